"""The curation of a source as an artefact: the rows that are kept, those that are not, and why."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import tempfile
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrofit.artefacts import ArtefactStore, write_json
from retrofit.data.curation.decontamination import RULES, Decontamination
from retrofit.data.curation.duplicates import Duplicates
from retrofit.data.curation.held_out import HeldOutTexts
from retrofit.data.curation.quality import Finding, QualityRules, field_name
from retrofit.data.curation.report import counts_and_examples
from retrofit.data.curation.settings import CurationSettings
from retrofit.data.curation.texts import Row, excerpt, has_negatives, normalised, row_batches
from retrofit.data.records import LABEL
from retrofit.data.storage import PairSource, RecordWriter, read_records

STAGE = "curations"
# Raise it when the same source and settings would keep other rows: by any change to this package.
CODE_VERSION = 4
KEPT = "kept.npy"
REMOVED = "removed.arrow"
REPORT = "report.json"
OWN = "(own)"
"""Name of a source's own held-out rows where evaluation does not name the source; no source of evaluation has it."""

REMOVED_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", LABEL, nullable=False),
        pa.field("field", LABEL, nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("evaluation_set", LABEL, nullable=False),
        pa.field("matched", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)

_SECONDS_BETWEEN_LINES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curation:
    """Which training rows of a source are fit to train on.

    Attributes:
        kept: int64 ``[rows]``, ascending, memory-mapped: numbers of training rows that no rule removed.
        removed: memory-mapped table of ``REMOVED_SCHEMA``: one row for each training row that was removed, with the
            text that broke the rule and the text it repeats (both cut), and what the rule measured.
        report: counts by reason, task and language, and evaluation set; examples; JSON-like.
    """

    kept: npt.NDArray[np.int64]
    removed: pa.Table
    report: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Curation:
        """Return the curation of an artefact's folder."""
        return cls(
            np.load(folder / KEPT, mmap_mode="r", allow_pickle=False),
            read_records(folder / REMOVED),
            json.loads((folder / REPORT).read_text(encoding="utf-8")),
        )


def curated_rows(
    source: PairSource, evaluation: Mapping[str, PairSource], settings: Mapping[str, Any], cache: Path
) -> Curation:
    """Return which training rows of a source are kept, working it out first if the cache does not hold it.

    A row is removed when its query or any of its positives breaks a rule. The rules and their order: length,
    placeholders, language; an equal text, a similar text, a shared run in evaluation; an equal row, a similar row
    earlier in the table. Negatives that the source gives are compared with evaluation, too: a model that pushes away
    what it is measured on has seen it. The first rule that a row breaks is the reason. Duplicates come last, so that a
    row never goes for the sake of one that is removed itself; only they depend on the order of the rows.

    Args:
        source: what is trained on; only rows of the split ``train`` are looked at.
        evaluation: by name, the sources evaluation uses: no training text may be known from their validation and test
            rows. The source's own held-out rows count in any case.
        settings: the values of ``conf/curation``.
        cache: root of the cache.

    Raises:
        UserError: a setting is not understood, or the cache cannot be written.
    """
    parsed = CurationSettings.parse(settings, "curation")
    held_out = dict(evaluation)
    if source.fingerprint not in {other.fingerprint for other in held_out.values()}:
        held_out = {OWN: source, **held_out}
    inputs = {
        "code": CODE_VERSION,
        "source": source.fingerprint,
        # As a list: of a text that several sets hold the first is named.
        "evaluation": [[name, other.fingerprint] for name, other in held_out.items()],
        "settings": parsed.model_dump(),
        "libraries": {name: importlib.metadata.version(name) for name in ("langcodes", "py3langid", "rensa")},
        "unicode": unicodedata.unidata_version,
    }
    folder = ArtefactStore(cache).get(STAGE, inputs, lambda folder: _Build(folder, source, held_out, parsed).run())
    return Curation.open(folder)


class _Build:
    """Goes through the rows once for the rules that look at a row alone, and once more for duplicates."""

    def __init__(
        self, folder: Path, source: PairSource, held_out: Mapping[str, PairSource], settings: CurationSettings
    ) -> None:
        self._folder = folder
        self._table = source.pairs
        self._held_out = HeldOutTexts({name: other.pairs for name, other in held_out.items()})
        self._settings = settings
        self._quality = QualityRules(settings)
        self._seconds: dict[str, float] = {}

    def run(self) -> None:
        """Write the artefact's files."""
        with (
            tempfile.TemporaryDirectory(dir=self._folder) as scratch,
            RecordWriter(self._folder / REMOVED, REMOVED_SCHEMA) as removed,
        ):
            decontamination = self._indexed()
            settings = self._settings.duplicates
            duplicates = Duplicates(self._table, settings, Path(scratch)) if settings else None
            kept = self._kept_on_their_own(removed, decontamination, duplicates)
            if duplicates is not None:
                kept = np.setdiff1d(kept, self._repeated(removed, duplicates), assume_unique=True)
        np.save(self._folder / KEPT, kept)
        report = counts_and_examples(self._table, kept, read_records(self._folder / REMOVED))
        report["evaluation_texts"] = dict(self._held_out.counts) if decontamination else {}
        report["language_not_judged"] = dict(sorted(self._quality.not_judged.items()))
        report["candidates_not_compared"] = {
            "held_out_near": decontamination.cut_short if decontamination else 0,
            "duplicate_near": duplicates.cut_short if duplicates else 0,
        }
        write_json(self._folder / REPORT, {**report, "seconds": self._seconds})
        log.info("curation keeps %d of %d rows: %s", report["kept"], report["candidates"], report["removed"])

    def _indexed(self) -> Decontamination | None:
        if self._settings.decontamination is None:
            return None
        started = time.monotonic()
        index = Decontamination(self._held_out, self._settings.decontamination)
        self._seconds["index evaluation"] = round(time.monotonic() - started, 1)
        log.info("curation: %d evaluation texts indexed in %.1f s", len(self._held_out), time.monotonic() - started)
        return index

    def _kept_on_their_own(
        self, removed: RecordWriter, decontamination: Decontamination | None, duplicates: Duplicates | None
    ) -> npt.NDArray[np.int64]:
        kept = [np.zeros(0, np.int64)]
        progress = _Progress("rows")
        negatives = decontamination is not None and has_negatives(self._table)
        for rows in row_batches(self._table, "train", negatives=negatives):
            findings = [self._quality.broken_by(row) for row in rows]
            sound = _without(removed, rows, findings)
            if decontamination is not None:
                sound = _without(removed, sound, _contaminated(sound, decontamination, self._held_out))
            if duplicates is not None:
                duplicates.add(sound)
            kept.append(np.array([row.number for row in sound], np.int64))
            progress.add(len(rows))
        self._seconds["rows"] = progress.seconds
        return np.concatenate(kept)

    def _repeated(self, removed: RecordWriter, duplicates: Duplicates) -> npt.NDArray[np.int64]:
        progress = _Progress("duplicates")
        numbers = []
        for number, finding in duplicates.findings():
            removed.write(_record(number, finding))
            numbers.append(number)
            progress.add(1)
        self._seconds["duplicates"] = progress.seconds
        return np.array(numbers, np.int64)


class _Progress:
    """Logs a line every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._done = 0
        self._started = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._started, 1)

    def add(self, number: int) -> None:
        self._done += number
        now = time.monotonic()
        if now - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            log.info("curation: %d %s, %.0f/s", self._done, self._what, self._done / (now - self._started))


def _without(removed: RecordWriter, rows: Sequence[Row], findings: Sequence[Finding | None]) -> list[Row]:
    for row, finding in zip(rows, findings, strict=True):
        if finding is not None:
            removed.write(_record(row.number, finding))
    return [row for row, finding in zip(rows, findings, strict=True) if finding is None]


def _contaminated(
    rows: Sequence[Row], decontamination: Decontamination, held_out: HeldOutTexts
) -> list[Finding | None]:
    compared = [[normalised(text) for text in (*row.texts(), *row.negatives)] for row in rows]
    texts = list(dict.fromkeys(text for several in compared for text in several))
    matches = dict(zip(texts, decontamination.find(texts), strict=True))
    findings: list[Finding | None] = []
    for row, several in zip(rows, compared, strict=True):
        found = [(number, match) for number, text in enumerate(several) if (match := matches[text]) is not None]
        if not found:
            findings.append(None)
            continue
        number, match = min(found, key=lambda pair: (RULES.index(pair[1].reason), pair[0]))
        findings.append(
            Finding(
                match.reason,
                field_name(row, number),
                [*row.texts(), *row.negatives][number],
                match.score,
                held_out.text(match.number),
                held_out.evaluation_set(match.number),
            )
        )
    return findings


def _record(number: int, finding: Finding) -> dict[str, Any]:
    return {
        "row": number,
        "reason": finding.reason,
        "field": finding.field,
        "text": excerpt(finding.text),
        "evaluation_set": finding.evaluation_set,
        "matched": excerpt(finding.matched),
        "score": float(finding.score),
    }
