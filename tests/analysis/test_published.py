"""Scores of others: that a reader can find them, under names that this repository measures under."""

from __future__ import annotations

import pytest
import yaml

from retrofit.analysis.evaluated_cells import METRIC_BY_KIND
from retrofit.analysis.published import PUBLISHED, published
from retrofit.commands.application import configuration_folder


def test_they_are_of_the_benchmark_that_the_configuration_measures() -> None:
    config = yaml.safe_load((configuration_folder() / "evaluation" / "mteb.yaml").read_text(encoding="utf-8"))
    assert {score.benchmark for score in PUBLISHED} == {config["benchmark"]["name"]}
    assert {score.kind for score in PUBLISHED} <= METRIC_BY_KIND.keys()


def test_each_is_of_a_hundred_and_stands_once() -> None:
    assert all(1 < score.score <= 100 for score in PUBLISHED)
    assert len({(score.benchmark, score.kind, score.model) for score in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("benchmark", "kind", "count"),
    [
        ("MTEB(Multilingual, v2)", "retrieval", 3),
        ("MTEB(Multilingual, v2)", "sts", 0),
        ("held_out", "retrieval", 0),
    ],
)
def test_they_are_found_by_benchmark_and_kind(benchmark: str, kind: str, count: int) -> None:
    found = published(benchmark, kind)
    assert len(found) == count
    assert all((score.benchmark, score.kind) == (benchmark, kind) for score in found)
