"""The relevance matrix of a step, and the dataset of planned steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data.batching import PlannedBatches, text_batch
from retrofit.data.embedded.corpus import share_positives
from retrofit.data.records import Pair, content_id, to_table
from retrofit.data.sampling import SamplingPlan
from retrofit.data.selection import strata


def pair(query: str, *positives: str, negatives: tuple[str, ...] = (), language: str = "en", group: str = "g") -> Pair:
    return Pair(query, positives, "field_help", language, language, "made up", group, "train", negatives)


def rows(*pairs: Pair) -> list[dict[str, Any]]:
    return to_table(pairs).to_pylist()


def test_every_other_passage_is_a_negative() -> None:
    batch = text_batch(rows(pair("q", "a"), pair("r", "b"), pair("s", "c")), [0, 0, 0])
    assert batch.queries == ["q", "r", "s"]
    assert batch.passages == ["a", "b", "c"]
    assert batch.relevance.dtype == torch.int8
    assert batch.relevance.tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]


def test_a_passage_that_stands_in_a_batch_twice_is_one_column() -> None:
    batch = text_batch(rows(pair("q", "a"), pair("r", "a"), pair("s", "b", negatives=("a", "c", "c2"))), [0, 0, 0])
    assert batch.passages == ["a", "b", "c", "c2"]
    assert batch.relevance.tolist() == [[1, -1, -1, -1], [1, -1, -1, -1], [-1, 1, -1, -1]]


def test_other_known_positives_are_masked() -> None:
    batch = text_batch(rows(pair("q", "a", "b"), pair("r", "b"), pair("s", "c", negatives=("d",))), [0, 0, 0])
    assert batch.passages == ["a", "b", "c", "d"]
    assert batch.relevance.tolist() == [[1, 0, -1, -1], [-1, 1, -1, -1], [-1, -1, 1, -1]]


def test_a_query_that_recurs_in_a_batch_masks_the_positives_of_its_other_rows() -> None:
    batch = text_batch(rows(pair("q", "a"), pair("q", "b", group="h"), pair("r", "c")), [0, 0, 0])
    assert batch.relevance.tolist() == [[1, 0, -1], [0, 1, -1], [-1, -1, 1]]


def test_the_same_words_in_another_language_are_another_query() -> None:
    batch = text_batch(rows(pair("Name", "a", language="de"), pair("Name", "b", language="en")), [0, 0])
    assert batch.relevance.tolist() == [[1, -1], [-1, 1]]


def test_a_labelled_negative_that_answers_is_masked() -> None:
    batch = text_batch(rows(pair("q", "a", "b", negatives=("b",)), pair("r", "c", negatives=("a",))), [0, 0])
    assert batch.passages == ["a", "c", "b"]
    assert batch.relevance.tolist() == [[1, -1, 0], [-1, 1, -1]]


@pytest.mark.parametrize(("visit", "expected"), [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (7, "b")])
def test_positives_take_turns_by_visit(visit: int, expected: str) -> None:
    batch = text_batch(rows(pair("q", "a", "b", "c"), pair("r", "z")), [visit, 0])
    assert batch.passages == [expected, "z"]
    assert batch.relevance.tolist() == [[1, -1], [-1, 1]]


def test_extra_passages_are_negatives_unless_they_answer() -> None:
    extra = [(content_id(text), text) for text in ("x", "b", "a")]
    batch = text_batch(rows(pair("q", "a", "b"), pair("r", "c")), [0, 0], extra)
    assert batch.passages == ["a", "c", "x", "b"]
    assert batch.relevance.tolist() == [[1, -1, -1, 0], [-1, 1, -1, -1]]


TEXT = st.sampled_from("abcdefgh")
PAIRS = st.lists(
    st.builds(
        lambda query, positives, negatives, group: pair(query, *positives, negatives=tuple(negatives), group=group),
        st.sampled_from("qrstu"),
        st.lists(TEXT, min_size=1, max_size=3, unique=True),
        st.lists(TEXT, max_size=3, unique=True),
        st.sampled_from("gh"),
    ),
    min_size=2,
    max_size=7,
)


def check(queries: Sequence[str], passages: Sequence[str], relevance: torch.Tensor, known: dict[str, set[str]]) -> None:
    assert relevance.shape == (len(queries), len(passages))
    assert len(set(passages)) == len(passages)
    for row, query in enumerate(queries):
        entries = dict(zip(passages, relevance[row].tolist(), strict=True))
        assert list(entries.values()).count(1) == 1
        for passage, entry in entries.items():
            assert (entry in (0, 1)) == (passage in known[query])


@given(PAIRS, st.lists(TEXT, max_size=4), st.integers(0, 5))
@settings(deadline=None)
def test_no_known_positive_is_a_negative_and_no_other_is_masked(
    pairs: list[Pair], extra: list[str], visit: int
) -> None:
    batch = text_batch(rows(*pairs), [visit] * len(pairs), [(content_id(text), text) for text in extra])
    known: dict[str, set[str]] = {}
    for each in pairs:
        known.setdefault(each.query, set()).update(each.positives)
    check(batch.queries, batch.passages, batch.relevance, known)
    texts = set(extra).union(*(each.negatives for each in pairs))
    assert texts <= set(batch.passages)
    for row, each in enumerate(pairs):
        column = batch.relevance[row].tolist().index(1)
        assert batch.passages[column] == each.positives[visit % len(each.positives)]


def letters(texts: Sequence[str], kind: str) -> list[list[int]]:
    return [[ord(kind[0]), *map(ord, text)] for text in texts]


def spelled(token_ids: list[list[int]]) -> list[str]:
    return ["".join(map(chr, ids[1:])) for ids in token_ids]


def planned(pairs: list[Pair], random_negatives: int = 0, seed: int = 0, steps: int = 6) -> PlannedBatches:
    table = to_table(pairs)
    plan = SamplingPlan(strata(table), 3, steps, 0.5, seed)
    return PlannedBatches(table, plan, letters, random_negatives, seed)


@given(PAIRS, st.integers(0, 3), st.integers(0, 20))
@settings(deadline=None)
def test_planned_batches_never_push_a_query_from_an_answer(pairs: list[Pair], negatives: int, seed: int) -> None:
    # share_positives is what the corpus promises: a query has all its answers in every row.
    pairs, _ = share_positives(pairs)
    batches = planned(pairs, negatives, seed)
    known = {each.query: set(each.positives) for each in pairs}
    for step in range(len(batches)):
        batch = batches[step]
        assert all(ids[0] == ord("q") for ids in batch.token_ids[: batch.n_queries])
        assert all(ids[0] == ord("p") for ids in batch.token_ids[batch.n_queries :])
        texts = spelled(batch.token_ids)
        check(texts[: batch.n_queries], texts[batch.n_queries :], batch.relevance, known)


MANY = [pair(f"q{n}", f"a{n}", f"b{n}") for n in range(20)] + [pair(f"q{n}", f"c{n}", language="de") for n in range(20)]


@pytest.mark.parametrize("negatives", [0, 2])
def test_a_step_is_the_same_whenever_it_is_asked_for(negatives: int) -> None:
    first, second = planned(MANY, negatives), planned(MANY, negatives)
    forwards = [first[step] for step in range(len(first))]
    for step in reversed(range(len(second))):
        batch = second[step]
        assert batch.token_ids == forwards[step].token_ids
        assert torch.equal(batch.relevance, forwards[step].relevance)
    other = planned(MANY, negatives, seed=1)
    assert [other[step].token_ids for step in range(len(other))] != [batch.token_ids for batch in forwards]


def test_random_negatives_are_passages_of_the_same_stratum() -> None:
    plain, batches = planned(MANY), planned(MANY, random_negatives=2)
    added = 0
    for step in range(len(batches)):
        texts = spelled(batches[step].token_ids)
        without = spelled(plain[step].token_ids)
        assert texts[: len(without)] == without
        extra = texts[len(without) :]
        assert len(extra) <= 6
        assert {text[0] for text in extra} <= ({"c"} if "c" in {text[0] for text in without} else {"a", "b"})
        added += len(extra)
    assert added > len(batches)


def test_random_negatives_are_drawn_anew_for_every_step() -> None:
    # Six a step: one draw for all steps would never show more than six passages.
    pairs = [pair(f"q{n}", f"a{n}", f"b{n}") for n in range(40)]
    plain, batches = planned(pairs), planned(pairs, random_negatives=2)
    added = [
        frozenset(spelled(batches[step].token_ids)) - frozenset(spelled(plain[step].token_ids))
        for step in range(len(batches))
    ]
    assert len(frozenset.union(*added)) > 12


def test_positives_of_a_small_stratum_rotate_over_the_steps() -> None:
    batches = planned([pair(f"q{n}", f"a{n}", f"b{n}") for n in range(3)], steps=4)
    initials = [{text[0] for text in spelled(batches[step].token_ids)[3:]} for step in range(4)]
    assert initials == [{"a"}, {"b"}, {"a"}, {"b"}]
