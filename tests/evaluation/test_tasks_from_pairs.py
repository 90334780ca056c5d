"""Retrieval tasks from the pairs table."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.records import PASSAGE_SCHEMA, Pair, Passage, content_id, shown_id, to_table
from retrofit.data.storage import PairSource
from retrofit.errors import UserError
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_pairs import Pool, tasks_from_pairs


def pair(query: str, *positives: str, task: str = "help", language: str = "en", document_language: str = "") -> Pair:
    return Pair(query, positives, task, language, document_language or language, "made up", "g", "test")


PAIRS = [
    pair("q1", "a", "b"),
    pair("q2", "c"),
    pair("q1", "d", task="desc"),
    pair("q3", "e", task="desc"),
    pair("q1", "f", task="desc", language="de"),
    pair("q4", "g", task="bitext", document_language="de"),
    replace(pair("q5", "h"), split="train"),
    pair("q6", "i", task="other"),
]


def source(pairs: list[Pair], passages: list[Passage] | None = None) -> PairSource:
    further = None
    if passages is not None:
        further = pa.Table.from_pylist([passage.row() for passage in passages], schema=PASSAGE_SCHEMA)
    return PairSource(Path("made up"), to_table(pairs), further, {})


def built(
    pairs: list[Pair] = PAIRS, passages: list[Passage] | None = None, **options: Any
) -> dict[tuple[str, str, str], RetrievalTask]:
    arguments = {
        "suite": "s", "split": "test", "tasks": ["help", "desc", "bitext"], "pool": "task",
        "max_queries": None, "max_passages": None, **options,
    }  # fmt: skip
    tasks = tasks_from_pairs(source(pairs, passages), **arguments)
    return {(task.task, task.query_language, task.document_language): task for task in tasks}


def answers(task: RetrievalTask) -> dict[str, set[str]]:
    """Texts of the relevant passages by text of the query."""
    return {
        task.queries[query_id]: {task.corpus[passage_id] for passage_id, grade in judged.items() if grade > 0}
        for query_id, judged in task.qrels.items()
    }


def test_a_pool_of_a_task_holds_its_own_passages() -> None:
    tasks = built()
    assert list(tasks) == sorted(tasks)
    assert set(tasks) == {("help", "en", "en"), ("desc", "en", "en"), ("desc", "de", "de"), ("bitext", "en", "de")}
    assert set(tasks["help", "en", "en"].corpus.values()) == {"a", "b", "c"}
    assert set(tasks["bitext", "en", "de"].corpus.values()) == {"g"}
    # "d" answers q1 as well, but is no passage of this pool.
    assert answers(tasks["help", "en", "en"]) == {"q1": {"a", "b"}, "q2": {"c"}}
    assert answers(tasks["desc", "de", "de"]) == {"q1": {"f"}}


def test_queries_belong_together_by_the_group_of_their_pair() -> None:
    grouped = [replace(row, group=f"group of {row.query}") for row in PAIRS]
    for task in built(grouped).values():
        assert task.groups == {query_id: f"group of {text}" for query_id, text in task.queries.items()}


@pytest.mark.parametrize("pool", ["language", "task"])
def test_a_query_asked_in_several_groups_has_one_whatever_the_order_of_the_pairs(pool: Pool) -> None:
    asked = [
        Pair("q", ("a",), "help", "en", "en", "s", "second", "test"),
        Pair("q", ("b",), "help", "en", "en", "s", "first", "test"),
        Pair("q", ("c",), "desc", "en", "en", "s", "third", "test"),
        Pair("q", ("d",), "desc", "en", "en", "s", "another split", "train"),
    ]
    for pairs in permutations(asked):
        for task in built(list(pairs), pool=pool, tasks=None).values():
            assert set(task.groups.values()) == {"first"}


def test_a_pool_of_a_language_holds_the_passages_of_all_tasks_and_knows_all_answers() -> None:
    tasks = built(pool="language")
    english, german = {"a", "b", "c", "d", "e"}, {"f", "g"}
    assert {key: set(task.corpus.values()) for key, task in tasks.items()} == {
        ("bitext", "en", "de"): german,
        ("desc", "de", "de"): german,
        ("desc", "en", "en"): english,
        ("help", "en", "en"): english,
    }
    assert answers(tasks["help", "en", "en"]) == {"q1": {"a", "b", "d"}, "q2": {"c"}}
    assert answers(tasks["desc", "en", "en"]) == {"q1": {"a", "b", "d"}, "q3": {"e"}}
    assert answers(tasks["bitext", "en", "de"]) == {"q4": {"g"}}
    assert answers(tasks["desc", "de", "de"]) == {"q1": {"f"}}


def test_identifiers_are_content_hashes() -> None:
    task = built()["help", "en", "en"]
    assert task.suite == "s"
    assert all(passage_id == shown_id(content_id(text)) for passage_id, text in task.corpus.items())
    assert all(query_id == shown_id(content_id(text, "en")) for query_id, text in task.queries.items())


def test_other_splits_give_no_passage() -> None:
    assert {task.suite for task in built(split="train", pool="language").values()} == {"s"}
    (task,) = built(split="train", pool="language").values()
    assert list(task.corpus.values()) == ["h"]


def test_a_suite_without_pairs_is_an_error_that_names_it() -> None:
    with pytest.raises(UserError, match=r"^evaluation\.suites\.s: .* validation pairs"):
        built(split="validation")


def test_all_tasks_of_the_split_unless_some_are_named() -> None:
    assert {key[0] for key in built(tasks=None)} == {"help", "desc", "bitext", "other"}


def test_the_further_passages_of_a_source_are_in_the_pools_of_their_language() -> None:
    further = [Passage("h", "en", "s"), Passage("a", "en", "s"), Passage("y", "de", "s"), Passage("z", "ja", "s")]
    tasks = built(passages=further, pool="language")
    assert set(tasks["help", "en", "en"].corpus.values()) == {"a", "b", "c", "d", "e", "h"}
    assert set(tasks["bitext", "en", "de"].corpus.values()) == {"f", "g", "y"}
    assert answers(tasks["help", "en", "en"]) == {"q1": {"a", "b", "d"}, "q2": {"c"}}
    assert set(built(passages=further)["help", "en", "en"].corpus.values()) == {"a", "b", "c"}


def test_an_unknown_task_is_an_error_that_names_the_key_of_the_suite() -> None:
    with pytest.raises(UserError) as caught:
        built(tasks=["halp"])
    assert "halp" in str(caught.value)
    assert "evaluation.suites.s.tasks" in str(caught.value)
    assert "task_mix" not in str(caught.value)


def test_languages_are_those_of_both_sides() -> None:
    assert set(built(languages=["en"])) == {("help", "en", "en"), ("desc", "en", "en")}
    assert set(built(languages=["de", "en", "fr"])) == set(built())
    with pytest.raises(UserError, match=r"^evaluation\.suites\.s\.languages: fr not in the data source"):
        built(languages=["fr"])
    with pytest.raises(UserError, match=r"^evaluation\.suites\.s: .* of these tasks and languages"):
        built(languages=["de"], tasks=["help"])


BOTH = ["help", "desc"]
MANY = [pair(f"q{n}", f"a{n}", *([f"b{n}"] if n % 3 == 0 else []), task=("help", "desc")[n % 2]) for n in range(40)]


@pytest.mark.parametrize("pool", ["language", "task"])
def test_max_queries_draws_queries_of_each_stratum(pool: str) -> None:
    whole, drawn = built(MANY, tasks=BOTH, pool=pool), built(MANY, tasks=BOTH, pool=pool, max_queries=5)
    assert drawn == built(MANY[::-1], tasks=BOTH, pool=pool, max_queries=5)
    for key, task in drawn.items():
        assert len(task.queries) == 5
        assert task.qrels.keys() == task.queries.keys()
        assert set(task.queries.items()) < set(whole[key].queries.items())
        assert task.corpus == whole[key].corpus
    other = built(MANY, tasks=BOTH, pool=pool, max_queries=5, seed=1)
    assert [set(task.queries) for task in other.values()] != [set(task.queries) for task in drawn.values()]


@given(
    pool=st.sampled_from(["language", "task"]),
    max_queries=st.one_of(st.none(), st.integers(1, 12)),
    max_passages=st.integers(1, 60),
)
def test_max_passages_keeps_every_answer(pool: str, max_queries: int | None, max_passages: int) -> None:
    whole = built(MANY, tasks=BOTH, pool=pool, max_queries=max_queries)
    reduced = built(MANY, tasks=BOTH, pool=pool, max_queries=max_queries, max_passages=max_passages)
    wanted: dict[frozenset[str], set[str]] = {}
    for task in whole.values():
        wanted.setdefault(frozenset(task.corpus), set()).update(*task.qrels.values())
    for key, task in reduced.items():
        assert task.qrels == whole[key].qrels
        assert all(set(judged) <= set(task.corpus) for judged in task.qrels.values())
        assert set(task.corpus.items()) <= set(whole[key].corpus.items())
        needed = len(wanted[frozenset(whole[key].corpus)])
        assert len(task.corpus) == min(len(whole[key].corpus), max(needed, max_passages))
