"""Synthetic pairs as a data source: what is asked, written, rejected and kept adds up, and every pair has a history."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from retrofit.commands.application import configuration_folder
from retrofit.data.records import content_id
from retrofit.data.sources.union import build_union
from retrofit.data.storage import PairSource, read_records
from retrofit.engine import LOCAL, Engine, RayEngine
from retrofit.errors import UserError
from retrofit.synthesis.building import PROVENANCE, Synthesis, build_synthetic
from retrofit.synthesis.filters import TextFilters
from retrofit.synthesis.passages import Passages
from retrofit.synthesis.plan import Plan
from retrofit.synthesis.records import FAMILIES, Request, SourcePassage, Written
from retrofit.synthesis.round_trip import RoundTrip
from retrofit.synthesis.template_generator import TemplateGenerator
from retrofit.synthesis.templates import Templates

WORDS = ["harbour", "lighthouse", "bakery", "orchard", "railway", "library", "monastery", "quarry", "windmill", "canal"]
TEXTS = [
    SourcePassage(
        f"The {word} of {other} was founded in 18{number:02d}. Its {word} keeper wrote letters to the {other} council.",
        f"{word.title()} {other.title()}",
        "en",
        f"article {number}",
        "made up",
    )
    for number, (word, other) in enumerate((a, b) for a in WORDS for b in WORDS if a != b)
]


class Failing:
    """A generator that fails for every n-th request."""

    name = "failing"
    identity: Mapping[str, Any] = {"generator": "failing"}

    def __init__(self, every: int, failure: Any) -> None:
        self.every = every
        self.failure = failure

    def generate(self, requests: Sequence[Request], engine: Engine) -> Iterator[Written]:
        for number, request in reversed(list(enumerate(requests))):
            failed = number % self.every == 0
            text = "" if failed else f"What is number {number} about, and who was there?"
            failure = self.failure if failed else None
            yield Written(request, text, "en/write_question", failure, "broken" if failed else "", "2026-01-02")


@pytest.fixture
def synthesis(tiny: Path) -> Callable[..., Synthesis]:
    templates = Templates(configuration_folder() / "synthesis")
    model = {
        "checkpoint": tiny, "pooling": "mean", "prompts": {"query": "query: ", "passage": "passage: "},
        "max_length": 64,
    }  # fmt: skip

    def made(texts: Sequence[SourcePassage] = TEXTS, **changes: Any) -> Synthesis:
        families = {family: 1.0 for family in FAMILIES if family != "document"}
        parts: dict[str, Any] = {
            "passages": {"part": Passages({"texts": len(texts)}, lambda: iter(texts))},
            "templates": templates,
            "plan": Plan(None, 2, families, ["de", "fr"], 0),
            "generator": TemplateGenerator(templates, 0),
            "filters": TextFilters(3, 300, 4000, 0.95, 0.5, 3, 1),
            "round_trip": RoundTrip(5, model, "float32", 1024),
            "judge": None,
            "max_failed": 0.1,
        }
        return Synthesis(**{**parts, **changes})

    return made


def build(synthesis: Synthesis, cache: Path, engine: Engine = LOCAL) -> Path:
    return build_synthetic(name="synthetic", synthesis=synthesis, licence=None, engine=engine, cache=cache)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "synthesis.json").read_text(encoding="utf-8"))
    return found


def test_everything_asked_for_is_accounted_for(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    folder = build(synthesis(), tmp_path)
    said = report(folder)
    assert said["passages"] == len(TEXTS)
    assert sum(said["requests"].values()) == said["written"] + sum(said["failures"].values()) == 2 * len(TEXTS)
    assert said["written"] == said["kept"] + sum(said["rejected"].values())
    assert said["rejected"]["round_trip"] > 0
    lines = [json.loads(line) for line in (folder / "left_out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(line["reason"] for line in lines) == Counter(said["rejected"]) + Counter(said["failures"])
    assert all(line["template"] and line["passage"] for line in lines)

    source = PairSource.open(folder)
    assert source.pairs.num_rows == said["kept"] > 0
    assert set(source.pairs["task"].to_pylist()) <= {f"synthetic_{family}" for family in FAMILIES}
    assert set(source.pairs["split"].to_pylist()) == {"train"}
    assert source.passages is not None
    assert source.passages.num_rows == len(TEXTS)


def test_every_pair_has_its_history(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    folder = build(synthesis(), tmp_path)
    history = {(row["query_id"], row["passage_id"]): row for row in read_records(folder / PROVENANCE).to_pylist()}
    for pair in PairSource.open(folder).pairs.to_pylist():
        row = history[pair["query_id"], pair["positive_ids"][0]]
        language, family, line = row["template"].split("/")
        assert language == pair["language"]
        assert f"synthetic_{family}" == pair["task"]
        assert int(line) > 0
        assert row["generator"] == "template"
        assert len(row["day"]) == len("2026-01-02")
        assert 1 <= row["rank"] <= 5
        assert row["copied"] <= 0.5
        assert "round_trip 5" in row["filters"]


def test_the_same_inputs_give_the_same_pairs_and_another_seed_others(
    synthesis: Callable[..., Synthesis], tmp_path: Path
) -> None:
    first, again = (PairSource.open(build(synthesis(), tmp_path / name)) for name in ("a", "b"))
    assert first.pairs.equals(again.pairs)
    assert first.fingerprint == again.fingerprint
    templates = synthesis().templates
    other = PairSource.open(build(synthesis(generator=TemplateGenerator(templates, 1)), tmp_path / "a"))
    assert not other.pairs.equals(first.pairs)


def test_two_processes_of_a_ray_cluster_write_the_same(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    engine = RayEngine(workers=2, address=None, cpus_per_worker=1, gpus_per_worker=0)
    found = PairSource.open(build(synthesis(), tmp_path / "ray", engine))
    assert found.pairs.equals(PairSource.open(build(synthesis(), tmp_path / "local")).pairs)


def test_what_may_pass_stops_the_build_where_there_is_much_of_it(
    synthesis: Callable[..., Synthesis], tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"36 of 180 requests failed \(timed_out: broken\), more than data_source.max_f"
    ):
        build(synthesis(generator=Failing(5, "timed_out")), tmp_path)
    assert not list(tmp_path.glob("corpora/[!.]*"))
    made = synthesis(
        generator=Failing(5, "malformed"), round_trip=RoundTrip(None, model_of(synthesis), "float32", 1024)
    )
    said = report(build(made, tmp_path))
    assert said["failures"] == {"malformed": 36}
    history = read_records(build(made, tmp_path) / PROVENANCE)
    assert set(history["day"].to_pylist()) == {"2026-01-02"}


def model_of(synthesis: Callable[..., Synthesis]) -> dict[str, Any]:
    model = synthesis().round_trip.model
    return {
        "checkpoint": model.folder, "pooling": model.pooling, "prompts": model.prompts, "max_length": model.max_length
    }  # fmt: skip


def test_replies_in_any_order_give_the_same_pairs(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    class Forwards(Failing):
        def generate(self, requests: Sequence[Request], engine: Engine) -> Iterator[Written]:
            yield from reversed(list(super().generate(requests, engine)))

    backwards = PairSource.open(build(synthesis(generator=Failing(7, "refused")), tmp_path / "a"))
    forwards = PairSource.open(build(synthesis(generator=Forwards(7, "refused")), tmp_path / "b"))
    assert backwards.pairs.equals(forwards.pairs)


def test_a_judge_has_the_last_word(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    class Judge:
        least = 3
        identity: Mapping[str, Any] = {"judge": "made up"}

        def apply(self, candidates: Sequence[Any], engine: Engine, max_failed: float) -> None:
            for number, candidate in enumerate(candidates):
                candidate.judged = 1 + number % 5
                if candidate.judged < self.least:
                    candidate.reject("judge", candidate.judged)

    folder = build(synthesis(judge=Judge()), tmp_path)
    assert report(folder)["rejected"]["judge"] > 0
    assert set(read_records(folder / PROVENANCE)["judged"].to_pylist()) == {3, 4, 5}


def test_a_budget_that_is_spent_builds_nothing_unless_so_much_may_be_missing(
    synthesis: Callable[..., Synthesis], tmp_path: Path
) -> None:
    search = RoundTrip(None, model_of(synthesis), "float32", 1024)
    with pytest.raises(UserError, match=r"36 of 180 requests failed \(over_budget"):
        build(synthesis(generator=Failing(5, "over_budget"), round_trip=search), tmp_path)
    allowed = build(synthesis(generator=Failing(5, "over_budget"), round_trip=search, max_failed=0.2), tmp_path)
    assert report(allowed)["failures"] == {"over_budget": 36}
    complete = build(synthesis(generator=Failing(10**9, "over_budget"), round_trip=search), tmp_path)
    assert complete != allowed


def test_what_no_source_would_take_is_rejected_with_the_others(
    synthesis: Callable[..., Synthesis], tmp_path: Path
) -> None:
    class Broken(Failing):
        def generate(self, requests: Sequence[Request], engine: Engine) -> Iterator[Written]:
            for item in super().generate(requests, engine):
                yield dataclasses.replace(item, text=item.text + "\ufffd") if "7" in item.text else item

    search = RoundTrip(None, model_of(synthesis), "float32", 1024)
    folder = build(synthesis(generator=Broken(10**9, None), round_trip=search), tmp_path)
    said = report(folder)
    assert said["rejected"]["unusable"] > 10
    assert said["kept"] == PairSource.open(folder).pairs.num_rows == read_records(folder / PROVENANCE).num_rows
    reasons = [json.loads(line) for line in (folder / "left_out.jsonl").read_text(encoding="utf-8").splitlines()]
    unusable = {line["found"] for line in reasons if line["reason"] == "unusable"}
    assert unusable == {"query: replacement character", "query: empty text"}


def test_a_passage_that_stands_in_two_languages_is_written_for_in_both(
    synthesis: Callable[..., Synthesis], tmp_path: Path
) -> None:
    texts = [*TEXTS, *(dataclasses.replace(text, language="fr") for text in TEXTS)]
    made = synthesis(texts, round_trip=RoundTrip(None, model_of(synthesis), "float32", 1024))
    assert {pair["document_language"] for pair in PairSource.open(build(made, tmp_path)).pairs.to_pylist()} == {
        "en", "fr",
    }  # fmt: skip


def test_together_with_real_pairs_nothing_real_is_lost(
    synthesis: Callable[..., Synthesis], corpus: Path, tmp_path: Path
) -> None:
    real = PairSource.open(corpus)
    passages = [
        SourcePassage(pair["positives"][0], pair["query"], pair["document_language"], pair["group"], "made up")
        for pair in real.pairs.to_pylist()
        if pair["split"] == "train" and pair["document_language"] in ("de", "en")
    ]
    made = synthesis(passages, round_trip=RoundTrip(None, model_of(synthesis), "float32", 1024))
    parts = {"real": {"pairs": corpus}, "synthetic": {"pairs": build(made, tmp_path)}}
    union = PairSource.open(build_union(name="both", parts=parts, cache=tmp_path))
    alone = PairSource.open(build_union(name="alone", parts={"real": parts["real"]}, cache=tmp_path))
    sources = Counter(union.pairs["source"].to_pylist())
    assert sources["real"] == alone.pairs.num_rows
    assert sources["synthetic"] > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_failed": "x"}, r"data_source\.max_failed=x: expected a share"),
        ({"plan": Plan(None, 1, {"title": 1}, ["dde"], 0)}, r"cross_lingual: no templates in dde; there are ar"),
    ],
)
def test_a_bad_key_is_named_before_anything_is_written(
    synthesis: Callable[..., Synthesis], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        synthesis(**changes)


def test_languages_without_templates_are_named(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    irish = [dataclasses.replace(text, language="ga") for text in TEXTS]
    with pytest.raises(UserError, match=r"paths\.templates: none in ga, the languages of the passages; there are ar"):
        build(synthesis(irish), tmp_path)


def test_nothing_to_write_and_nothing_left_are_said_with_their_keys(
    synthesis: Callable[..., Synthesis], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data_source\.passages: no text in part"):
        build(synthesis([]), tmp_path)
    with pytest.raises(UserError, match=r"data_source\.plan.families: no passage gets a query"):
        build(synthesis(plan=Plan(None, 1, {}, [], 0)), tmp_path)
    with pytest.raises(UserError, match=r"no pair is left of 180 requests \(180 length\); see data_source.filters"):
        build(synthesis(filters=TextFilters(200, 300, 4000, None, None, 3, 1)), tmp_path)


def test_identifiers_in_the_history_are_those_of_the_pairs(synthesis: Callable[..., Synthesis], tmp_path: Path) -> None:
    folder = build(synthesis(), tmp_path)
    pairs = PairSource.open(folder).pairs.to_pylist()
    history = {row["query_id"] for row in read_records(folder / PROVENANCE).to_pylist()}
    assert {content_id(pair["query"], pair["language"]) for pair in pairs} <= history
