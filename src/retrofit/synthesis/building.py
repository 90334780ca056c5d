"""A data source of synthetic pairs: passages read, queries written, filtered and accounted for, as one artefact."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrofit.artefacts import write_json
from retrofit.data.records import LABEL, Passage, content_id
from retrofit.data.sources.building import Intake, build_source
from retrofit.data.sources.refusals import RefusedRowError, Row
from retrofit.data.sources.validation import Rules, check_share
from retrofit.data.storage import RecordWriter
from retrofit.engine import Engine
from retrofit.errors import UserError
from retrofit.synthesis.candidates import Candidate
from retrofit.synthesis.filters import TextFilters
from retrofit.synthesis.generator import Generator
from retrofit.synthesis.judge import Judge
from retrofit.synthesis.passages import Passages, read_all
from retrofit.synthesis.plan import Plan, share
from retrofit.synthesis.records import PASSING, Request, SourcePassage, Written
from retrofit.synthesis.round_trip import RoundTrip
from retrofit.synthesis.templates import Templates

REPORT = "synthesis.json"
PROVENANCE = "provenance.arrow"
LEFT_OUT = "left_out.jsonl"
CODE_VERSION = 2  # raise it whenever the same inputs would give other pairs

PROVENANCE_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.uint64(), nullable=False),
        pa.field("passage_id", pa.uint64(), nullable=False),
        pa.field("template", LABEL, nullable=False),
        pa.field("generator", LABEL, nullable=False),
        pa.field("day", LABEL, nullable=False),
        pa.field("filters", LABEL, nullable=False),
        pa.field("copied", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("judged", pa.int8(), nullable=False),
    ]
)
"""Where each pair comes from: the template that wrote it, the generator or the language model, the day, the filters it
passed and what they found (``rank`` and ``judged`` are 0 where nothing was asked)."""

_EXAMPLES_EACH = 4
_MAX_CHARACTERS = 100_000

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Synthesis:
    """Everything that makes synthetic pairs.

    Attributes:
        passages: where the texts to write for come from, by name.
        templates: tells which languages can be written.
        plan: which texts are requested.
        generator: writes them.
        filters: reject by the texts.
        round_trip: rejects by a search.
        judge: rejects by a language model's judgement; None asks none.
        max_failed: largest share of requests, and of judgements, that may fail for a reason that may pass (time-outs,
            an unreachable server, a budget that is spent) before nothing is built.
    """

    passages: Mapping[str, Passages]
    templates: Templates
    plan: Plan
    generator: Generator
    filters: TextFilters
    round_trip: RoundTrip
    judge: Judge | None
    max_failed: float

    def __post_init__(self) -> None:
        check_share("data_source.max_failed", self.max_failed)
        for language in self.plan.cross_lingual:
            if language not in self.templates:
                known = ", ".join(self.templates.languages)
                raise UserError(f"data_source.plan.cross_lingual: no templates in {language}; there are {known}")

    def identity(self) -> dict[str, Any]:
        """Return everything the pairs depend on; JSON-like."""
        return {
            "synthesis": CODE_VERSION,
            "passages": [[name, dict(part.identity)] for name, part in self.passages.items()],  # the first one counts
            "languages": list(self.templates.languages),
            "plan": self.plan.identity(),
            "generator": dict(self.generator.identity),
            "filters": dataclasses.asdict(self.filters),
            "round_trip": self.round_trip.identity(),
            "judge": None if self.judge is None else dict(self.judge.identity),
            "max_failed": self.max_failed,
        }


def build_synthetic(*, name: str, synthesis: Synthesis, licence: str | None, engine: Engine, cache: Path) -> Path:
    """Return the folder of a source of synthetic pairs, building it first if the cache does not hold it.

    Besides the files of every source the folder holds ``synthesis.json`` (what was asked, written, rejected and kept),
    ``provenance.arrow`` (a row of ``PROVENANCE_SCHEMA`` for each query and passage) and ``left_out.jsonl`` (what failed
    or was rejected, and why).

    Args:
        name: name of the source.
        synthesis: what makes the pairs.
        licence: of the texts, for the report.
        engine: where the work is done.
        cache: root of the cache.

    Raises:
        UserError: there is nothing to write for, too many requests failed, or no pair is left.
    """
    rules = Rules(0.0, _MAX_CHARACTERS, _MAX_CHARACTERS, query_may_equal_positive=False)

    def read(intake: Intake) -> None:
        _Build(synthesis, engine, cache, intake, rules).run()

    with contextlib.closing(engine):
        # Every pair trains: what is measured is real.
        return build_source(
            cache,
            "synthetic",
            name,
            licence,
            rules,
            synthesis.identity(),
            read,
            derive_splits=False,
            rows_key="data_source.passages",
        )


class _Build:
    def __init__(self, synthesis: Synthesis, engine: Engine, cache: Path, intake: Intake, rules: Rules) -> None:
        self.synthesis = synthesis
        self.engine = engine
        self.cache = cache
        self.intake = intake
        self.rules = rules
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        made = self.synthesis
        texts = self._timed("read", lambda: read_all(made.passages))
        requests, no_templates = made.plan.requests(texts, made.templates)
        if not requests:
            if no_templates:
                raise UserError(
                    f"paths.templates: none in {', '.join(no_templates)}, the languages of the passages; there are "
                    f"{', '.join(made.templates.languages)}"
                )
            raise UserError("data_source.plan.families: no passage gets a query; expected a weight above 0")
        log.info("%d texts to write for %d passages", len(requests), len(texts))
        written = self._timed("write", lambda: list(made.generator.generate(requests, self.engine)))
        self._check_failed(written)
        candidates = _in_order(requests, written)
        self._timed("filters", lambda: self._filter(candidates))
        self._timed("round_trip", lambda: made.round_trip.apply(_left(candidates), texts, self.cache, self.engine))
        if (judge := made.judge) is not None:
            self._timed("judge", lambda: judge.apply(_left(candidates), self.engine, made.max_failed))
        if not _left(candidates):
            raise UserError(
                f"no pair is left of {len(requests)} requests ({_all_left_out(written, candidates)}); see "
                "data_source.filters, data_source.round_trip.k"
            )
        self._write(texts, requests, written, candidates, no_templates)

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        result = work()
        self.seconds[stage] = round(time.monotonic() - started, 1)
        return result

    def _filter(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            try:
                self.rules.check_texts(candidate.query, (candidate.passage,), ())
            except RefusedRowError as error:
                candidate.reject("unusable", f"{error.field}: {error.reason}")
        self.synthesis.filters.apply(_left(candidates))

    def _check_failed(self, written: Sequence[Written]) -> None:
        failed = [item for item in written if item.failure in PASSING]
        if len(failed) > self.synthesis.max_failed * len(written):
            first = failed[0]
            raise UserError(
                f"{len(failed)} of {len(written)} requests failed ({first.failure}: {first.detail}), more than "
                f"data_source.max_failed={self.synthesis.max_failed}; what was answered is kept, and the same command "
                "asks for the rest"
            )

    def _write(
        self,
        texts: Sequence[SourcePassage],
        requests: Sequence[Request],
        written: Sequence[Written],
        candidates: Sequence[Candidate],
        no_templates: Counter[str],
    ) -> None:
        kept, folder = _left(candidates), self.intake.folder
        rows = (Row(item.written.template, number, {"pair": item}) for number, item in enumerate(kept, start=1))
        self.intake.take_all(rows, lambda values: values["pair"].example())
        searched = [text for text in texts if not text.is_query]
        self.intake.write_passages(Passage(text.text, text.language, self.intake.name) for text in searched)
        self._write_provenance(kept)
        failures = [item for item in written if item.failure is not None]
        with (folder / LEFT_OUT).open("w", encoding="utf-8") as file:
            for row in _left_out(failures, candidates):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        write_json(
            folder / REPORT,
            {
                "generator": self.synthesis.generator.name,
                "passages": len(searched),
                "without_templates": dict(sorted(no_templates.items())),
                "requests": _counts(request.family for request in requests),
                "written": len(candidates),
                "failures": _counts(item.failure for item in failures),
                "rejected": _counts(item.rejected for item in candidates if item.rejected),
                "kept": len(kept),
                "not_judged": 0 if self.synthesis.judge is None else sum(item.judged == 0 for item in kept),
                "pairs_by_language": _counts(item.language for item in kept),
                "pairs_by_task": _counts(item.task for item in kept),
                "seconds": self.seconds,
                "examples": _examples(candidates),
            },
        )
        log.info("%d of %d written texts kept", len(kept), len(candidates))

    def _write_provenance(self, kept: Sequence[Candidate]) -> None:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        with RecordWriter(self.intake.folder / PROVENANCE, PROVENANCE_SCHEMA) as writer:
            for item in kept:
                writer.write(
                    {
                        "query_id": content_id(item.query, item.language),
                        "passage_id": content_id(item.passage),
                        "template": item.written.template,
                        "generator": self.synthesis.generator.name,
                        "day": item.written.day or today,
                        "filters": _passed(self.synthesis, item),
                        "copied": item.copied,
                        "rank": item.rank,
                        "judged": item.judged,
                    }
                )


def _in_order(requests: Sequence[Request], written: Sequence[Written]) -> list[Candidate]:
    """Return what was written as candidates in the order of the requests, however the replies came."""
    place = {request: number for number, request in enumerate(requests)}
    ordered = sorted(written, key=lambda item: place[item.request])
    return [Candidate(item) for item in ordered if item.failure is None]


def _left(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if not candidate.rejected]


def _left_out(failures: Sequence[Written], candidates: Sequence[Candidate]) -> Iterator[Mapping[str, Any]]:
    for item in failures:
        request = item.request
        yield {
            "reason": item.failure,
            "found": item.detail,
            "language": request.language,
            "task": request.family,
            "template": item.template,
            "passage": request.passage.text,
        }
    yield from (candidate.row() for candidate in candidates if candidate.rejected)


def _all_left_out(written: Sequence[Written], candidates: Sequence[Candidate]) -> str:
    reasons = Counter([*(item.failure for item in written if item.failure), *(item.rejected for item in candidates)])
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _passed(synthesis: Synthesis, candidate: Candidate) -> str:
    """Return the filters a kept pair has passed, in a line."""
    filters = dataclasses.asdict(synthesis.filters)
    passed = [f"{name} {value}" for name, value in filters.items() if value is not None]
    if candidate.rank:
        passed.append(f"round_trip {synthesis.round_trip.k}")
    if candidate.judged and synthesis.judge is not None:
        passed.append(f"judge {synthesis.judge.least}")
    return ", ".join(passed)


def _examples(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return a few of what was kept and of what each filter rejected, drawn by their content."""
    shown: Counter[str] = Counter()
    chosen = []
    for item in sorted(candidates, key=lambda item: share(0, item.task, item.written.request.passage)):
        if shown[item.rejected] < (_EXAMPLES_EACH if item.rejected else 3 * _EXAMPLES_EACH):
            shown[item.rejected] += 1
            chosen.append(
                {
                    "language": item.language,
                    "task": item.task,
                    "query": item.query,
                    "passage": item.passage,
                    "template": item.written.template,
                    "kept": not item.rejected,
                    "reason": f"{item.rejected}: {item.found}" if item.rejected else "",
                }
            )
    return chosen
