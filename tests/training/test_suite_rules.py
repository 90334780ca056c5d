"""The rules that the specifications of suites keep, by the key that mends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrofit.training.suite_rules import benchmark_rules, suite_rules

RETRIEVAL: dict[str, Any] = {
    "kind": "retrieval", "source": "own", "tasks": None, "pool": "task", "max_queries": 5, "max_passages": None,
}  # fmt: skip
RERANKING: dict[str, Any] = {
    "kind": "reranking", "source": "own", "tasks": ["help"], "languages": None, "candidates": 5, "max_queries": 5,
    "max_passages": None,
}  # fmt: skip
CLUSTERING: dict[str, Any] = {
    "kind": "clustering", "source": "own", "tasks": None, "languages": ["de"], "sides": ["query"], "max_labels": None,
    "min_texts_per_label": 2, "max_texts_per_label": None,
}  # fmt: skip
MIXED: dict[str, Any] = {
    "kind": "mixed", "source": "own", "tasks": None, "languages": None, "relevant": "own", "max_queries": 5,
    "max_passages": None,
}  # fmt: skip


def broken(suite: dict[str, Any]) -> tuple[str, str] | None:
    """The key and the expectation of the first rule that a suite breaks."""
    return next(((key, expected) for holds, key, expected in suite_rules({"s": suite}, ["own"]) if not holds), None)


@pytest.mark.parametrize("suite", [RETRIEVAL, RERANKING, CLUSTERING, MIXED], ids=lambda suite: suite["kind"])
def test_suites_that_can_be_made_keep_the_rules(suite: dict[str, Any]) -> None:
    assert broken(suite) is None


@pytest.mark.parametrize(
    ("suite", "key"),
    [
        (RETRIEVAL | {"kind": "retreival"}, "kind"),
        ({key: value for key, value in RETRIEVAL.items() if key != "kind"}, "kind"),
        (RETRIEVAL | {"kind": "sts"}, "kind"),
        (RETRIEVAL | {"source": "onw"}, "source"),
        ({key: value for key, value in RETRIEVAL.items() if key != "source"}, "source"),
        (RETRIEVAL | {"max_querys": 3}, "max_querys"),
        (RETRIEVAL | {"candidates": 3}, "candidates"),
        ({key: value for key, value in RETRIEVAL.items() if key != "pool"}, "pool"),
        (RETRIEVAL | {"pool": "langauge"}, "pool"),
        (RETRIEVAL | {"max_queries": 0}, "max_queries"),
        (RETRIEVAL | {"max_passages": 1.5}, "max_passages"),
        (RETRIEVAL | {"tasks": "help"}, "tasks"),
        (RETRIEVAL | {"tasks": []}, "tasks"),
        (RETRIEVAL | {"languages": ["de", "de"]}, "languages"),
        (RERANKING | {"candidates": None}, "candidates"),
        (CLUSTERING | {"sides": ["answers"]}, "sides"),
        (CLUSTERING | {"sides": None}, "sides"),
        (CLUSTERING | {"max_labels": 1}, "max_labels"),
        (CLUSTERING | {"min_texts_per_label": 1}, "min_texts_per_label"),
        (CLUSTERING | {"languages": [1]}, "languages"),
        (MIXED | {"relevant": "mine"}, "relevant"),
    ],
)
def test_a_broken_rule_names_its_key(suite: dict[str, Any], key: str) -> None:
    found = broken(suite)
    assert found is not None
    assert found[0] == f"evaluation.suites.s.{key}"


def test_suites_of_folders(tmp_path: Path) -> None:
    suite = {"kind": "retrieval", "folder": str(tmp_path)}
    assert broken(suite) is None
    assert broken(suite | {"kind": "sts", "max_pairs": 10, "languages": ["de"]}) is None
    for changed, key in (
        ({"folder": str(tmp_path / "nowhere")}, "folder"),
        ({"folder": None}, "folder"),
        ({"source": "own"}, "folder"),
        ({"kind": "bitexts"}, "kind"),
        ({"pool": "language"}, "pool"),
        ({"min_characters": 0}, "min_characters"),
        ({"kind": "reranking"}, "candidates"),
    ):
        found = broken(suite | changed)
        assert found is not None
        assert found[0] == f"evaluation.suites.s.{key}"


@pytest.mark.parametrize(
    ("benchmark", "key"),
    [
        (None, None),
        ({"name": "MTEB(eng, v2)", "task_types": ["Retrieval", "STS"]}, None),
        ({"name": "MTEB(eng, v2)"}, ""),
        ({"name": "MTEB(eng, v2)", "task_types": ["STS"], "languages": ["de"]}, ""),
        ("MTEB(eng, v2)", ""),
        ({"name": None, "task_types": ["STS"]}, ".name"),
        ({"name": "MTEB(eng, v2)", "task_types": "Retrieval"}, ".task_types"),
        ({"name": "MTEB(eng, v2)", "task_types": []}, ".task_types"),
    ],
)
def test_benchmarks(benchmark: Any, key: str | None) -> None:
    found = next((key for holds, key, _ in benchmark_rules(benchmark) if not holds), None)
    assert found == (None if key is None else f"evaluation.benchmark{key}")
