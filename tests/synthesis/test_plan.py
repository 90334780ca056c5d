"""The plan: which kinds of query, how often, and that more are asked for without others."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.synthesis.plan import Plan
from retrofit.synthesis.records import FAMILIES, SourcePassage

KNOWN = ("de", "en", "ja")
QUERY_FAMILIES = [family for family in FAMILIES if family != "document"]


def passages(count: int, language: str = "en") -> list[SourcePassage]:
    return [SourcePassage(f"passage {number}", "", language, f"group {number}", "made up") for number in range(count)]


def plan(per_passage: int = 2, seed: int = 0, **weights: float) -> Plan:
    return Plan(per_passage, weights or dict.fromkeys(QUERY_FAMILIES, 1.0), KNOWN, seed)


@given(st.integers(1, 8), st.integers(0, 5))
def test_kinds_of_a_passage_differ_and_more_contain_fewer(per_passage: int, seed: int) -> None:
    requests, _ = plan(per_passage, seed).requests(passages(5), KNOWN)
    kinds = Counter((request.passage.text, request.family) for request in requests)
    assert set(kinds.values()) == {1}
    assert len(requests) == 5 * per_passage
    more, _ = plan(min(8, per_passage + 1), seed).requests(passages(5), KNOWN)
    assert set(requests) <= set(more)
    assert plan(per_passage, seed).requests(passages(5), KNOWN)[0] == requests


def test_kinds_are_drawn_by_weight() -> None:
    requests, _ = plan(1, claim=3.0, question=1.0, title=0.0).requests(passages(4_000), KNOWN)
    counts = Counter(request.family for request in requests)
    assert set(counts) == {"claim", "question"}
    assert counts["claim"] / 4_000 == pytest.approx(0.75, abs=0.03)


def test_a_cross_lingual_query_is_in_another_language() -> None:
    requests, _ = plan(1, cross_lingual=1.0).requests(passages(300), KNOWN)
    assert Counter(request.language for request in requests).keys() == {"de", "ja"}
    others, _ = Plan(1, {"cross_lingual": 1.0}, ["en"], 0).requests(passages(3), KNOWN)
    assert others == []


def test_a_language_without_templates_is_counted() -> None:
    requests, left_out = plan(1, question=1.0).requests([*passages(2), *passages(3, "ga")], KNOWN)
    assert len(requests) == 2
    assert left_out == {"ga": 3}


def test_a_query_wants_a_passage_and_nothing_else() -> None:
    query = SourcePassage("who?", "", "en", "g", "made up", is_query=True)
    requests, _ = plan(3).requests([query], KNOWN)
    assert [request.family for request in requests] == ["document"]
    assert not any(request.family == "document" for request in plan(8).requests(passages(50), KNOWN)[0])
