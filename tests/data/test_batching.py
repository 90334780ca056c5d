"""The relevance matrix of a step, and the dataset of planned steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.batching import BatchContents, KnownPositives, PlannedBatches, text_batch
from retrofit.data.records import Pair, content_id, to_table
from retrofit.data.sampling import Homogeneous, Mixture, SamplingPlan
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
    three = rows(pair("q", "a"), pair("r", "a"), pair("s", "b", negatives=("a", "c", "c2")))
    batch = text_batch(three, [0, 0, 0], given_negatives=3)
    assert batch.passages == ["a", "b", "c", "c2"]
    assert batch.relevance.tolist() == [[1, -1, -1, -1], [1, -1, -1, -1], [-1, 1, -1, -1]]


def test_other_known_positives_are_masked() -> None:
    three = rows(pair("q", "a", "b"), pair("r", "b"), pair("s", "c", negatives=("d",)))
    batch = text_batch(three, [0, 0, 0], given_negatives=1)
    assert batch.passages == ["a", "b", "c", "d"]
    assert batch.relevance.tolist() == [[1, 0, -1, -1], [-1, 1, -1, -1], [-1, -1, 1, -1]]


def test_a_query_that_recurs_in_a_batch_masks_the_positives_of_its_other_rows() -> None:
    batch = text_batch(rows(pair("q", "a"), pair("q", "b", group="h"), pair("r", "c")), [0, 0, 0])
    assert batch.relevance.tolist() == [[1, 0, -1], [0, 1, -1], [-1, -1, 1]]


def test_a_batch_knows_what_answers_its_queries_wherever_that_stands() -> None:
    three = rows(pair("q", "a", "b"), pair("r", "c"), pair("q", "c", group="h"))
    known = {three[1]["query_id"]: {content_id("elsewhere")}}
    batch = text_batch(three, [0, 0, 0], [(content_id("x"), "x")], known)
    assert batch.passages == ["a", "c", "x"]
    assert unsigned(batch.passage_ids) == [content_id(text) for text in batch.passages]
    assert unsigned(batch.query_ids) == [row["query_id"] for row in three]
    assert (batch.query_ids < 0).any(), "no id that int64 reads as negative"
    expected = {0: ["a", "b", "c"], 1: ["c", "elsewhere"], 2: ["a", "b", "c"]}
    assert batch.answers.dtype == torch.int64
    assert sorted(zip(batch.answers[:, 0].tolist(), unsigned(batch.answers[:, 1]), strict=True)) == sorted(
        (place, content_id(text)) for place, texts in expected.items() for text in texts
    )


def unsigned(ids: torch.Tensor) -> list[int]:
    return [identifier % 2**64 for identifier in ids.tolist()]


def test_the_same_words_in_another_language_are_another_query() -> None:
    batch = text_batch(rows(pair("Name", "a", language="de"), pair("Name", "b", language="en")), [0, 0])
    assert batch.relevance.tolist() == [[1, -1], [-1, 1]]


def test_a_labelled_negative_that_answers_is_masked() -> None:
    two = rows(pair("q", "a", "b", negatives=("b",)), pair("r", "c", negatives=("a",)))
    batch = text_batch(two, [0, 0], given_negatives=2)
    assert batch.passages == ["a", "c", "b"]
    assert batch.relevance.tolist() == [[1, -1, 0], [-1, 1, -1]]


@pytest.mark.parametrize(("visit", "expected"), [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (7, "b")])
def test_positives_take_turns_by_visit(visit: int, expected: str) -> None:
    batch = text_batch(rows(pair("q", "a", "b", "c"), pair("r", "z")), [visit, 0])
    assert batch.passages == [expected, "z"]
    assert batch.relevance.tolist() == [[1, -1], [-1, 1]]


@pytest.mark.parametrize(("visit", "expected"), [(0, "xy"), (1, "zx"), (2, "yz"), (3, "xy")])
def test_given_negatives_take_turns_by_visit(visit: int, expected: str) -> None:
    batch = text_batch(rows(pair("q", "a", negatives=("x", "y", "z")), pair("r", "b")), [visit, 0], given_negatives=2)
    assert batch.passages == ["a", "b", *expected]
    assert text_batch(rows(pair("q", "a", negatives=("x",)), pair("r", "b")), [visit, 0]).passages == ["a", "b"]


def test_a_passage_that_answers_by_way_of_an_absent_pair_is_masked() -> None:
    absent = pair("q", "b", group="elsewhere")
    present = rows(pair("q", "a"), pair("r", "b"))
    assert text_batch(present, [0, 0]).relevance.tolist() == [[1, -1], [-1, 1]]
    known = KnownPositives(to_table([pair("q", "a"), pair("r", "b"), absent])).of([row["query_id"] for row in present])
    assert text_batch(present, [0, 0], known=known).relevance.tolist() == [[1, 0], [-1, 1]]


@given(st.lists(st.tuples(st.sampled_from("qrstu"), st.sampled_from("abcd")), max_size=12), st.data())
def test_known_positives_are_those_of_every_pair(asked: list[tuple[str, str]], data: st.DataObject) -> None:
    pairs = [pair(query, passage, group=str(n)) for n, (query, passage) in enumerate(asked)]
    queries = data.draw(st.lists(st.sampled_from("qrstuv")))
    known = KnownPositives(to_table(pairs)).of([content_id(query, "en") for query in queries])
    for query in set(queries):
        answers = {content_id(passage) for other, passage in asked if other == query}
        times = sum(other == query for other, _ in asked)
        assert known.get(content_id(query, "en"), set()) == (answers if times > 1 else set())


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
def test_no_known_positive_is_a_negative_and_no_other_is_masked(
    pairs: list[Pair], extra: list[str], visit: int
) -> None:
    batch = text_batch(
        rows(*pairs), [visit] * len(pairs), [(content_id(text), text) for text in extra], given_negatives=3
    )
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


def planned(
    pairs: list[Pair],
    random_negatives: int = 0,
    seed: int = 0,
    steps: int = 6,
    homogeneous: Homogeneous = "both",
    given_negatives: int = 0,
) -> PlannedBatches:
    table = to_table(pairs)
    groups = strata(table, np.arange(len(table)))
    plan = SamplingPlan(groups, 3, steps, Mixture(homogeneous=homogeneous), seed)
    contents = BatchContents(given_negatives, random_negatives=random_negatives, seed=seed)
    return PlannedBatches(table, plan, letters, contents)


LANGUAGES = st.sampled_from(["en", "de"])
JUDGED = st.lists(
    st.builds(
        lambda query, positives, negatives, group, task, language, other: replace(
            pair(query, *positives, negatives=tuple(negatives), group=group, language=language),
            task=task,
            document_language=other,
        ),
        st.sampled_from("qrstu"),
        st.lists(TEXT, min_size=1, max_size=3, unique=True),
        st.lists(TEXT, max_size=3, unique=True),
        st.sampled_from("gh"),
        st.sampled_from(["field_help", "bitext"]),
        LANGUAGES,
        LANGUAGES,
    ),
    min_size=5,
    max_size=12,
).filter(lambda pairs: max(Counter((p.task, p.language, p.document_language) for p in pairs).values()) > 1)


@given(JUDGED, st.integers(0, 3), st.integers(0, 2), st.integers(0, 20), st.sampled_from(get_args(Homogeneous)))
def test_planned_batches_never_push_a_query_from_an_answer(
    pairs: list[Pair], random_negatives: int, given_negatives: int, seed: int, homogeneous: Homogeneous
) -> None:
    """Whatever shares a batch, and whichever pairs are not in it: no known answer is taken for a negative."""
    batches = planned(pairs, random_negatives, seed, homogeneous=homogeneous, given_negatives=given_negatives)
    known: dict[int, set[str]] = {}
    for each in pairs:
        known.setdefault(each.query_id, set()).update(each.positives)
    for step in range(len(batches)):
        rows = batches.reader.rows(batches.plan.batch(step).rows)
        texts = batches.texts(step)
        answers = [known[row["query_id"]] for row in rows]
        assert texts.queries == [row["query"] for row in rows]
        assert texts.relevance.shape == (len(texts.queries), len(texts.passages))
        assert len(set(texts.passages)) == len(texts.passages)
        for row, its_answers in zip(texts.relevance.tolist(), answers, strict=True):
            assert row.count(1) == 1
            for passage, entry in zip(texts.passages, row, strict=True):
                assert (entry in (0, 1)) == (passage in its_answers)
        token_ids = batches[step].token_ids
        assert spelled(token_ids) == [*texts.queries, *texts.passages]
        assert [chr(ids[0]) for ids in token_ids] == ["q"] * len(texts.queries) + ["p"] * len(texts.passages)


@given(JUDGED, st.integers(0, 2), st.integers(0, 5), st.integers(1, 9))
def test_processes_share_the_texts_of_a_step(
    pairs: list[Pair], random_negatives: int, anchors: int, world_size: int
) -> None:
    """Rank r has texts r, r + world size, … of queries, passages and anchors; all know the relevance of all."""
    batches = planned(pairs, random_negatives, steps=2)
    batches.anchor_rows = np.arange(len(pairs))
    batches.contents = replace(batches.contents, anchors=anchors)
    for step in range(2):
        whole = batches[step]
        texts = whole.token_ids + whole.anchors
        assert whole.n_anchors == len(whole.anchors) == min(anchors, len(pairs))
        for rank in range(world_size):
            share = batches.of_process(rank, world_size)[step]
            assert share.token_ids + share.anchors == texts[rank::world_size]
            assert share.token_ids == whole.token_ids[rank::world_size]
            assert (share.n_queries, share.n_anchors) == (whole.n_queries, whole.n_anchors)
            assert torch.equal(share.relevance, whole.relevance)


def test_a_process_tokenises_its_share_alone() -> None:
    seen: list[str] = []

    def counting(texts: Sequence[str], kind: str) -> list[list[int]]:
        seen.extend(texts)
        return letters(texts, kind)

    batches = planned(MANY, 2)
    share = batches.of_process(1, 3)
    share.tokenize = counting  # type: ignore[assignment]
    batch = share[0]
    assert spelled(batch.token_ids) == seen
    assert len(seen) == len(range(1, len(batches[0].token_ids), 3))


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
