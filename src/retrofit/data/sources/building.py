"""What all sources share: rows are taken in, checked, spooled, merged and written, and accounted for."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrofit.artefacts import ArtefactStore, fingerprint, write_json
from retrofit.data.records import PAIR_SCHEMA, Passage
from retrofit.data.sources.columns import Example
from retrofit.data.sources.merging import Merged, merge
from retrofit.data.sources.refusals import REFUSED, Refusals, RefusedRowError, Row
from retrofit.data.sources.spool import SPOOL, SpoolWriter
from retrofit.data.sources.validation import Rules
from retrofit.data.storage import PAIRS, PASSAGES, REPORT, RecordWriter, nested, write_passages
from retrofit.errors import UserError

STAGE = "corpora"
# Raise it when the same rows would give other pairs: by any change to this package, to records or to splits.
CODE_VERSION = 3

log = logging.getLogger(__name__)


@dataclass
class Intake:
    """Takes in the rows of a source.

    Attributes:
        folder: for files that are needed while the source is built; those left there become part of the artefact.
        name: name of the source.
        rules: what a row must keep; None takes all, for rows that were checked before.
        refusals: where refused rows go.
        spool: where the others go.
        rows: how many were read.
        unused: rows that are good but say nothing to learn from, by reason.
        checks: what must hold of all rows together; asked once it is known that few enough were refused.
    """

    folder: Path
    name: str
    rules: Rules | None
    refusals: Refusals
    spool: SpoolWriter
    rows: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    checks: list[Callable[[], None]] = field(default_factory=list)

    def take_all(self, rows: Iterable[Row], read: Callable[[Mapping[str, Any]], Example]) -> None:
        """Take in rows, the bad ones as refused.

        Args:
            rows: the rows.
            read: turns the fields of a row into an example, or refuses it with a ``RefusedRowError``.
        """
        for row in rows:
            self.rows += 1
            if row.problem is not None:
                self.refuse(row, row.problem)
                continue
            try:
                self.take(read(row.values), row)
            except RefusedRowError as error:
                self.refuse(row, error)

    def take(self, example: Example, row: Row, source: str | None = None) -> None:
        """Take in an example.

        Args:
            example: the example.
            row: where it comes from.
            source: name of the source if it is not this one.

        Raises:
            RefusedRowError: a rule is broken.
        """
        if self.rules is not None:
            self.rules.check_texts(example.query, example.positives, example.negatives)
        self.spool.write(example, row, source or self.name)

    def refuse(self, row: Row, error: RefusedRowError) -> None:
        """Account for a row that cannot be used."""
        self.refusals.add(row, error)

    def write_passages(self, passages: Iterable[Passage]) -> None:
        """Write what can be searched besides the passages of the pairs, if there is anything."""
        if not write_passages(self.folder / PASSAGES, passages):
            (self.folder / PASSAGES).unlink()


def build_source(
    cache: Path,
    kind: str,
    name: str,
    licence: str | None,
    rules: Rules | None,
    inputs: Mapping[str, Any],
    read: Callable[[Intake], None],
    *,
    derive_splits: bool = True,
    rows_key: str = "data_source.path",
) -> Path:
    """Return the folder of a source, building it first if the cache does not hold it.

    Args:
        cache: root of the cache.
        kind: what reads it.
        name: name of the source, repeated in every pair.
        licence: of its texts, for the report.
        rules: what a row must keep; None takes all.
        inputs: what the pairs depend on besides; JSON-like.
        read: takes all rows in.
        derive_splits: whether a held-out split that the source lacks is taken from its training groups.
        rows_key: the configuration key an error names that says which rows are read.

    Raises:
        UserError: no row can be used or too many cannot, or the cache cannot be written.
    """
    inputs = {"corpus": kind, "code": CODE_VERSION, "name": name, "licence": licence, **inputs}
    kept_refusals = cache / "refused" / f"{name}-{fingerprint(inputs)}.jsonl"

    def build(folder: Path) -> None:
        with Refusals(kept_refusals) as refusals:
            _build(folder, name, licence, rules, read, refusals, derive_splits, rows_key)

    return ArtefactStore(cache).get(STAGE, inputs, build)


def _build(
    folder: Path,
    name: str,
    licence: str | None,
    rules: Rules | None,
    read: Callable[[Intake], None],
    refusals: Refusals,
    derive_splits: bool,
    rows_key: str,
) -> None:
    started = time.monotonic()
    with SpoolWriter(folder) as spool:
        intake = Intake(folder, name, rules, refusals, spool)
        read(intake)
    read_at = time.monotonic()
    _check_enough(intake, rows_key)
    merged = merge(folder / SPOOL, refusals, derive_splits)
    pairs, counts = _write_pairs(folder / PAIRS, merged)
    refusals.copy_to(folder / REFUSED)
    report = {
        "source": name,
        "licence": licence,
        "pairs": nested(counts),
        "rows": intake.rows,
        "refused": {str(reason): count for reason, count in sorted(refusals.counts.items())},
        "unused": dict(sorted((+intake.unused).items())),
        "merged": merged.merged,
        "positives_shared": merged.shared,
        "answering_negatives": merged.answering_negatives,
        "leaks": dict(sorted(merged.leaks.items())),
        "seconds": {"read": round(read_at - started, 1), "build": round(time.monotonic() - read_at, 1)},
    }
    write_json(folder / REPORT, report)
    del merged  # closes the mapped spool
    (folder / SPOOL).unlink()
    log.info("%s: %d pairs of %d rows; refused %s", name, pairs, intake.rows, report["refused"])


def _check_enough(intake: Intake, rows_key: str) -> None:
    if not intake.rows:
        raise UserError(f"{intake.name}: no rows; expected at least one ({rows_key})")
    if intake.rules is not None:
        intake.refusals.check(intake.rows, intake.rules.max_refused)
    for check in intake.checks:
        check()
    if not intake.spool.rows:
        left_out = [*intake.refusals.counts.items(), *(+intake.unused).items()]
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out)
        raise UserError(f"{intake.name}: none of {intake.rows} rows gives a pair ({reasons}); see {rows_key}")


def _write_pairs(path: Path, merged: Merged) -> tuple[int, Counter[tuple[str, str, str]]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    with RecordWriter(path, PAIR_SCHEMA) as writer:
        for pair in merged.pairs():
            writer.write(pair.row())
            counts[pair.task, pair.language, pair.split] += 1
    return writer.rows, counts
