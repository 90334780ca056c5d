"""The plan: which kinds of query, how often, and that more are asked for without others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.errors import UserError
from retrofit.synthesis.plan import Plan
from retrofit.synthesis.records import FAMILIES, SourcePassage

KNOWN = ("de", "en", "ja")
QUERY_FAMILIES = [family for family in FAMILIES if family != "document"]


def passages(count: int, language: str = "en") -> list[SourcePassage]:
    return [SourcePassage(f"passage {number}", "", language, f"group {number}", "made up") for number in range(count)]


def plan(per_passage: int = 2, seed: int = 0, **weights: float) -> Plan:
    return Plan(None, per_passage, weights or dict.fromkeys(QUERY_FAMILIES, 1.0), KNOWN, seed)


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


def test_small_weights_are_weights_too() -> None:
    requests, _ = plan(1, claim=1e-6, question=1e-6, title=1e-6).requests(passages(900), KNOWN)
    assert all(250 < count < 350 for count in Counter(request.family for request in requests).values())


def test_a_cross_lingual_query_is_in_another_language() -> None:
    requests, _ = plan(1, cross_lingual=1.0).requests(passages(300), KNOWN)
    assert Counter(request.language for request in requests).keys() == {"de", "ja"}
    others, _ = Plan(None, 1, {"cross_lingual": 1.0}, ["en"], 0).requests(passages(3), KNOWN)
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


def test_few_passages_lie_within_more_and_each_language_has_its_own() -> None:
    texts = [*passages(30), *passages(5, "de")]
    few, more = (
        {
            (request.passage.text, request.language)
            for request in Plan(most, 1, {"title": 1.0}, [], 0).requests(texts, KNOWN)[0]
        }
        for most in (10, 20)
    )
    assert Counter(language for _, language in few) == {"en": 10, "de": 5}
    assert few < more
    assert few != {(text.text, text.language) for text in texts[:10] + texts[30:]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_passages": 0}, "data_source.plan.max_passages=0: expected a whole number"),
        ({"per_passage": None}, "data_source.plan.per_passage=None: expected a whole number"),
        ({"families": {"poem": 1}}, "data_source.plan.families.poem: no such kind of query; expected one of keywords"),
        ({"families": None}, "data_source.plan.families=None: expected a mapping"),
        ({"cross_lingual": "de"}, "data_source.plan.cross_lingual=de: expected a list of names"),
        ({"cross_lingual": None}, "data_source.plan.cross_lingual=None: expected a list of names"),
        ({"families": {"title": -1}}, "data_source.plan.families.title=-1: expected a weight"),
    ],
)
def test_a_bad_key_is_named(changes: dict[str, Any], said: str) -> None:
    settings = {"max_passages": None, "per_passage": 1, "families": {"title": 1}, "cross_lingual": [], "seed": 0}
    with pytest.raises(UserError, match=said):
        Plan(**{**settings, **changes})
