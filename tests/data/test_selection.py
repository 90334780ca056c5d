"""Which pairs train."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data.records import Pair, to_table
from retrofit.data.selection import cap_per_language, cap_per_stratum, count_by, select, strata
from retrofit.errors import UserError


def pair(number: int, task: str = "field_help", language: str = "de", document_language: str | None = None) -> Pair:
    return Pair(
        query=f"query {number}",
        positives=(f"answer {number}",),
        task=task,
        language=language,
        document_language=document_language or language,
        source="made up",
        group=f"group {number}",
        split="train",
    )


def pairs_of(counts: dict[tuple[str, str], int]) -> list[Pair]:
    return [pair(n, task, language) for (task, language), count in counts.items() for n in range(count)]


def ids(table: pa.Table) -> set[tuple[str, str]]:
    rows = list(zip(table["query_id"].to_pylist(), table["task"].to_pylist(), strict=True))
    assert len(set(rows)) == len(rows)
    return set(rows)


COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(["field_help", "title_body"]), st.sampled_from(["de", "en", "ja"])),
    st.integers(1, 20),
    min_size=1,
)


@given(COUNTS, st.integers(1, 25), st.integers(0, 25), st.integers(0, 2**31))
@settings(deadline=None)
def test_samples_of_one_seed_are_nested(counts: dict[tuple[str, str], int], cap: int, more: int, seed: int) -> None:
    table = to_table(pairs_of(counts))
    small, large = cap_per_language(table, cap, seed), cap_per_language(table, cap + more, seed)
    assert ids(small) <= ids(large)
    available = Counter(table["language"].to_pylist())
    assert Counter(small["language"].to_pylist()) == {name: min(cap, n) for name, n in available.items()}


@given(COUNTS, st.integers(1, 10), st.integers(0, 100), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_sample_does_not_depend_on_the_order_of_the_rows(
    counts: dict[tuple[str, str], int], cap: int, seed: int, random: object
) -> None:
    pairs = pairs_of(counts)
    expected = ids(cap_per_language(to_table(pairs), cap, seed))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert ids(cap_per_language(to_table(pairs), cap, seed)) == expected


def test_what_one_language_gets_does_not_depend_on_the_others() -> None:
    german, english = [pair(n) for n in range(30)], [pair(n, language="en") for n in range(30)]
    alone = cap_per_language(to_table(german), 7, 3)
    among = cap_per_language(to_table([*english, *german]), 7, 3)
    assert ids(alone) < ids(among)


def test_other_seeds_draw_other_samples() -> None:
    table = to_table([pair(n) for n in range(100)])
    samples = [frozenset(ids(cap_per_language(table, 20, seed))) for seed in range(5)]
    assert len(set(samples)) == 5
    assert ids(cap_per_language(table, 20, 2)) == samples[2]


def test_a_sample_is_spread_over_the_table() -> None:
    table = to_table([pair(n) for n in range(1000)])
    rows = [int(query.split()[1]) for query in cap_per_language(table, 500, 0)["query"].to_pylist()]
    assert rows == sorted(rows)
    assert 400 < np.mean(rows) < 600
    assert 200 < sum(row < 500 for row in rows) < 300


def test_no_cap_keeps_all_and_an_empty_table_stays_empty() -> None:
    table = to_table([pair(n) for n in range(5)])
    assert cap_per_language(table, None, 0).equals(table)
    assert len(cap_per_language(table.slice(0, 0), 3, 0)) == 0


def test_the_cap_of_a_language_is_shared_by_its_tasks_but_that_of_a_stratum_is_not() -> None:
    table = to_table(pairs_of({("field_help", "de"): 30, ("title_body", "de"): 30, ("title_body", "en"): 4}))
    assert count_by(cap_per_stratum(table, 6, 0), "task", "language") == {
        ("field_help", "de"): 6,
        ("title_body", "de"): 6,
        ("title_body", "en"): 4,
    }
    assert count_by(cap_per_language(table, 6, 0), "language") == {("de",): 6, ("en",): 4}


def test_a_stratum_is_told_apart_by_the_language_of_its_documents() -> None:
    pairs = [pair(n, "bitext", "de", target) for n in range(5) for target in ("en", "ja")]
    table = cap_per_stratum(to_table(pairs), 3, 0)
    assert count_by(table, "language", "document_language") == {("de", "en"): 3, ("de", "ja"): 3}
    rows = strata(table)
    assert list(rows) == [("bitext", "de", "en"), ("bitext", "de", "ja")]
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(6))
    for key, members in rows.items():
        assert {table["document_language"][int(row)].as_py() for row in members} == {key[2]}


MIXED = [
    pair(0),
    replace(pair(1), split="test"),
    replace(pair(2), split="validation"),
    pair(3, task="title_body"),
    pair(4, language="en"),
    pair(5, task="bitext", language="de", document_language="en"),
    pair(6, task="bitext", language="en", document_language="ja"),
    pair(7, task="bitext", language="ja", document_language="en"),
]


@pytest.mark.parametrize(
    ("split", "tasks", "languages", "expected"),
    [
        ("train", None, None, [0, 3, 4, 5, 6, 7]),
        ("test", None, None, [1]),
        ("validation", ["field_help"], ["de"], [2]),
        ("train", ["title_body", "bitext"], None, [3, 5, 6, 7]),
        ("train", None, ["de"], [0, 3]),
        ("train", None, ["de", "en"], [0, 3, 4, 5]),
        ("train", ["bitext"], ["en", "ja"], [6, 7]),
        ("train", ["bitext"], ["en"], []),
    ],
)
def test_select(split: str, tasks: list[str] | None, languages: list[str] | None, expected: list[int]) -> None:
    table = select(to_table(MIXED), split, tasks, languages)  # type: ignore[arg-type]
    assert table["query"].to_pylist() == [f"query {number}" for number in expected]


@pytest.mark.parametrize(
    ("tasks", "languages", "key", "missing"),
    [
        (["field_help", "fild_help"], None, "task_mix.tasks", "fild_help"),
        (None, ["de", "xx", "tlh"], "languages.languages", "tlh, xx"),
    ],
)
def test_what_no_pair_has_is_an_error_that_names_the_key(
    tasks: list[str] | None, languages: list[str] | None, key: str, missing: str
) -> None:
    with pytest.raises(UserError) as caught:
        select(to_table(MIXED), "train", tasks, languages)
    message = str(caught.value)
    assert message.startswith(f"{key}: {missing} ")
    assert "\n" not in message
    assert "field_help" in message if tasks else "ja" in message


def test_a_language_that_only_documents_have_is_known() -> None:
    table = to_table([pair(0, "bitext", "de", "he"), pair(1, "bitext", "de", "en")])
    assert select(table, "train", None, ["de", "he"])["query"].to_pylist() == ["query 0"]
