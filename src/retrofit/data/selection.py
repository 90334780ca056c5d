"""Which pairs train: by split, task and language, and how many of each language."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrofit.data.records import Split
from retrofit.errors import UserError

Stratum = tuple[str, ...]
"""Task, query language, document language: the columns of ``STRATUM_COLUMNS``."""

STRATUM_COLUMNS = ("task", "language", "document_language")


def select(
    table: pa.Table,
    split: Split,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks_key: str = "task_mix.tasks",
) -> pa.Table:
    """Return the pairs of a split whose task is wanted and whose languages are both wanted.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take; a cross-lingual pair needs both of its own among them. None takes all.
        tasks_key: the configuration key an error about the tasks names.

    Raises:
        UserError: a task or a language that no pair of the table has.
    """
    keep = pc.equal(table["split"], split)
    if tasks is not None:
        _check_known(tasks, table["task"].unique().to_pylist(), tasks_key)
        keep = pc.and_(keep, pc.is_in(table["task"], pa.array(tasks)))
    if languages is not None:
        known = {*table["language"].unique().to_pylist(), *table["document_language"].unique().to_pylist()}
        _check_known(languages, known, "languages.languages")
        wanted = pa.array(languages)
        keep = pc.and_(keep, pc.is_in(table["language"], wanted))
        keep = pc.and_(keep, pc.is_in(table["document_language"], wanted))
    return table.filter(keep)


def _check_known(asked: Sequence[str], known: Collection[str], key: str) -> None:
    missing = sorted(set(asked) - set(known))
    if missing:
        raise UserError(f"{key}: {', '.join(missing)} not in the data source; it has {', '.join(sorted(known))}")


def strata(table: pa.Table) -> dict[Stratum, np.ndarray]:
    """Return the row numbers (int64, ascending) of every task and language pair, in the order of their names."""
    return _rows_by_key([table[name].to_pylist() for name in STRATUM_COLUMNS])


def _rows_by_key(columns: Sequence[list[str]]) -> dict[tuple[str, ...], np.ndarray]:
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns, strict=True)):
        rows.setdefault(key, []).append(row)
    return {key: np.array(rows[key], dtype=np.int64) for key in sorted(rows)}


def cap_per_language(table: pa.Table, cap: int | None, seed: int) -> pa.Table:
    """Return at most ``cap`` pairs of each query language, drawn at random over all its tasks.

    Samples of one seed are nested: whatever a cap of 1,000 keeps, a cap of 2,000 keeps as well, because each pair's
    place in the draw depends on nothing but its content and the seed.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        cap: largest number of pairs a language; None keeps all.
        seed: of the draw.
    """
    return _cap(table, [table["language"].to_pylist()], cap, seed)


def cap_per_stratum(table: pa.Table, cap: int | None, seed: int) -> pa.Table:
    """Return at most ``cap`` pairs of each task and language pair; draws as :func:`cap_per_language` does."""
    return _cap(table, [table[name].to_pylist() for name in STRATUM_COLUMNS], cap, seed)


def _cap(table: pa.Table, columns: Sequence[list[str]], cap: int | None, seed: int) -> pa.Table:
    if cap is None:
        return table
    rank = _draw_order(table, seed)
    rows = [members[np.argsort(rank[members], kind="stable")[:cap]] for members in _rows_by_key(columns).values()]
    return table.take(np.sort(np.concatenate(rows))) if rows else table


def _draw_order(table: pa.Table, seed: int) -> np.ndarray:
    """Return a pseudo-random uint64 a row that depends on the row's identifiers and the seed alone."""
    import pandas as pd

    keys = pd.DataFrame({name: table[name].to_pylist() for name in ("query_id", "task", "document_language")})
    order: np.ndarray = pd.util.hash_pandas_object(keys, index=False, hash_key=f"{seed:016d}"[-16:]).to_numpy()
    return order


def count_by(table: pa.Table, *names: str) -> Mapping[tuple[str, ...], int]:
    """Return how many pairs there are of each combination of the named columns."""
    counted = table.group_by(list(names)).aggregate([([], "count_all")]).to_pylist()
    return {tuple(row[name] for name in names): row["count_all"] for row in counted}
