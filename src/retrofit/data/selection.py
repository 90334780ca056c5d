"""Which pairs train: by split, task and language, and how many of them.

A selection is an array of row numbers, never a copy of texts, and what decides on a row are its label columns and its
identifier. So selecting from ten million pairs costs eight bytes a pair.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from retrofit.data.records import Split
from retrofit.errors import UserError

log = logging.getLogger(__name__)

Stratum = tuple[str, ...]
"""Task, query language, document language: the columns of ``STRATUM_COLUMNS``."""

STRATUM_COLUMNS = ("task", "language", "document_language")


def select(
    table: pa.Table,
    split: Split,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks_key: str = "task_mix.tasks",
    languages_key: str = "languages.languages",
) -> np.ndarray:
    """Return the row numbers (int64, ascending) of a split whose task is wanted and whose languages are both wanted.

    What is asked for and not there is named in a log line: a list of languages may suit several sources.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take; a cross-lingual pair needs both of its own among them. None takes all.
        tasks_key: the configuration key an error about the tasks names.
        languages_key: the configuration key an error about the languages names.

    Raises:
        UserError: none of the tasks, or none of the languages, is in the table.
    """
    keep = _is_any(table, "split", [split])
    if tasks is not None:
        _check_known(tasks, ["task"], table, tasks_key)
        keep &= _is_any(table, "task", tasks)
    if languages is not None:
        _check_known(languages, ["language", "document_language"], table, languages_key)
        keep &= _is_any(table, "language", languages)
        keep &= _is_any(table, "document_language", languages)
    return np.flatnonzero(keep)


def draw_tasks_and_languages(
    table: pa.Table, rows: np.ndarray, n_tasks: int | None, n_languages: int | None, seed: int
) -> np.ndarray:
    """Return the rows of some tasks and some languages, drawn by the seed: the axes of a diversity ablation.

    Draws of one seed are nested: two tasks are those of the draw of one, and another. Languages are drawn among those
    that the drawn tasks have.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        rows: int64, the rows to draw from.
        n_tasks: how many tasks; None keeps all.
        n_languages: how many languages; None keeps all. A cross-lingual pair needs both of its own among them.
        seed: of the draws.

    Raises:
        UserError: there are fewer tasks or languages than asked for.
    """
    if n_tasks is not None:
        tasks = _drawn(_present(table, rows, ("task",)), n_tasks, seed, "task_mix.n_tasks")
        rows = rows[_is_any(table, "task", tasks)[rows]]
    if n_languages is not None:
        languages = _drawn(_present(table, rows, ("language",)), n_languages, seed, "languages.n_languages")
        for column in ("language", "document_language"):
            rows = rows[_is_any(table, column, languages)[rows]]
    return rows


def strata(table: pa.Table, rows: np.ndarray) -> dict[Stratum, np.ndarray]:
    """Return the row numbers (int64, ascending) of every task and language pair, in the order of their names."""
    return _rows_by_key(table, rows, STRATUM_COLUMNS)


def cap_per_language(table: pa.Table, rows: np.ndarray, cap: int | None, seed: int) -> np.ndarray:
    """Return at most ``cap`` rows of each query language, drawn at random over all its tasks.

    Samples of one seed are nested: whatever a cap of 1,000 keeps, a cap of 2,000 keeps as well, because each pair's
    place in the draw depends on nothing but its content and the seed.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        rows: int64, the rows to draw from.
        cap: largest number of pairs a language; None keeps all.
        seed: of the draw.
    """
    if cap is None:
        return rows
    groups = _rows_by_key(table, rows, ("language",))
    return _first_drawn(table, groups, [cap] * len(groups), seed)


def cap_per_stratum(table: pa.Table, rows: np.ndarray, cap: int | None, seed: int) -> np.ndarray:
    """Return at most ``cap`` rows of each task and language pair; draws as :func:`cap_per_language` does."""
    if cap is None:
        return rows
    groups = strata(table, rows)
    return _first_drawn(table, groups, [cap] * len(groups), seed)


def equal_budget(
    table: pa.Table, rows: np.ndarray, pairs: int | None, seed: int, account: str = "task_mix, languages"
) -> np.ndarray:
    """Return ``pairs`` rows spread as evenly over the task and language pairs as their sizes allow.

    What a small stratum cannot give is shared out among the others, so that the budget is the same whether it is spent
    on one task or on ten. Smaller budgets lie inside larger ones, as with :func:`cap_per_language`.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        rows: int64, the rows to draw from.
        pairs: how many to take; None keeps all.
        seed: of the draw.
        account: what narrowed the rows down, for the error.

    Raises:
        UserError: there are fewer rows.
    """
    if pairs is None:
        return rows
    if len(rows) < pairs:
        raise UserError(f"data_scale.pairs={pairs}: only {len(rows)} training pairs are left ({account})")
    groups = strata(table, rows)
    return _first_drawn(table, groups, _even_quotas([len(group) for group in groups.values()], pairs), seed)


def count_by(table: pa.Table, rows: np.ndarray, *names: str) -> dict[tuple[str, ...], int]:
    """Return how many of the rows there are of each combination of the named label columns."""
    return {key: len(members) for key, members in _rows_by_key(table, rows, names).items()}


def labels(table: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """Return a label column as codes (int16 ``[rows]``) and the labels they stand for."""
    column = table[name].unify_dictionaries()
    if column.num_chunks == 0:
        return np.empty(0, dtype=np.int16), []
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return codes, column.chunk(0).dictionary.to_pylist()


def _is_any(table: pa.Table, name: str, wanted: Sequence[str]) -> np.ndarray:
    codes, known = labels(table, name)
    of_code = np.array([label in set(wanted) for label in known] or [False])
    chosen: np.ndarray = of_code[codes]
    return chosen


def _check_known(asked: Sequence[str], columns: Sequence[str], table: pa.Table, key: str) -> None:
    known = {label for column in columns for label in labels(table, column)[1]}
    missing = sorted(set(asked) - known)
    if missing and len(missing) == len(set(asked)):
        group = key.partition(".")[0]
        hint = f" ({group}=all takes them all)" if group in ("task_mix", "languages") else ""
        raise UserError(f"{key}: {', '.join(missing)} not in the data source; it has {', '.join(sorted(known))}{hint}")
    if missing:
        log.info("%s: %s not in the data source and left out", key, ", ".join(missing))


def _present(table: pa.Table, rows: np.ndarray, names: Sequence[str]) -> list[str]:
    return [key[0] for key in _rows_by_key(table, rows, names)]


def _drawn(names: list[str], number: int, seed: int, key: str) -> list[str]:
    if number > len(names):
        raise UserError(f"{key}={number}: the selection has {len(names)} ({', '.join(names)})")
    return sorted(names, key=lambda name: hashlib.blake2b(f"{seed}\x1f{name}".encode()).digest())[:number]


def _rows_by_key(table: pa.Table, rows: np.ndarray, names: Sequence[str]) -> dict[tuple[str, ...], np.ndarray]:
    """Return the rows of every combination of labels, ascending, in the order of the labels."""
    combined = np.zeros(len(rows), dtype=np.int64)
    known = []
    for name in names:
        codes, its_labels = labels(table, name)
        combined = combined * max(1, len(its_labels)) + codes[rows]
        known.append(its_labels)
    order = np.argsort(combined, kind="stable")
    values, starts = np.unique(combined[order], return_index=True)
    groups = {}
    for value, members in zip(values.tolist(), np.split(rows[order], starts[1:]), strict=False):
        key = []
        for its_labels in reversed(known):
            value, code = divmod(value, len(its_labels))
            key.append(its_labels[code])
        groups[tuple(reversed(key))] = members
    return {key: groups[key] for key in sorted(groups)}


def _first_drawn(
    table: pa.Table, groups: Mapping[tuple[str, ...], np.ndarray], quotas: Sequence[int], seed: int
) -> np.ndarray:
    """Return of each group the ``quota`` rows that come first in the draw, ascending."""
    order = _draw_order(table, seed)
    taken = [
        members[np.argsort(order[members], kind="stable")[:quota]]
        for members, quota in zip(groups.values(), quotas, strict=True)
    ]
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, dtype=np.int64)


def _draw_order(table: pa.Table, seed: int) -> np.ndarray:
    """Return a pseudo-random uint64 a row that depends on the pair's query, task, document language and the seed."""
    order: np.ndarray = table["query_id"].to_numpy() ^ np.uint64(_hashed(str(seed)))
    for name in ("task", "document_language"):
        codes, known = labels(table, name)
        order ^= np.array([_hashed(f"{name}\x1f{label}") for label in known] or [0], dtype=np.uint64)[codes]
    return _mixed(order)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return uint64 values scrambled by the finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _even_quotas(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many of ``total`` each group gives: equal shares, and what a small group lacks from the others."""
    quotas = [0] * len(sizes)
    left = total
    smallest_first = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(smallest_first):
        quotas[index] = min(sizes[index], left // (len(sizes) - place))
        left -= quotas[index]
    return quotas
