"""Which pairs train."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.records import Pair, to_table
from retrofit.data.selection import (
    cap_per_language,
    cap_per_stratum,
    count_by,
    draw_tasks_and_languages,
    equal_budget,
    labels,
    select,
    strata,
)
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


def ids(table: pa.Table, rows: np.ndarray) -> set[tuple[int, str]]:
    taken = table.take(rows)
    named = list(zip(taken["query_id"].to_pylist(), taken["task"].to_pylist(), strict=True))
    assert len(set(named)) == len(named)
    assert rows.tolist() == sorted(rows.tolist())
    return set(named)


def every(table: pa.Table) -> np.ndarray:
    return np.arange(len(table))


COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(["field_help", "title_body"]), st.sampled_from(["de", "en", "ja"])),
    st.integers(1, 20),
    min_size=1,
)


@given(COUNTS, st.integers(1, 25), st.integers(0, 25), st.integers(0, 2**31))
def test_samples_of_one_seed_are_nested(counts: dict[tuple[str, str], int], cap: int, more: int, seed: int) -> None:
    table = to_table(pairs_of(counts))
    small, large = (cap_per_language(table, every(table), most, seed) for most in (cap, cap + more))
    assert ids(table, small) <= ids(table, large)
    available = Counter(table["language"].to_pylist())
    assert Counter(table.take(small)["language"].to_pylist()) == {name: min(cap, n) for name, n in available.items()}


@given(COUNTS, st.integers(1, 10), st.integers(0, 100), st.randoms(use_true_random=False))
def test_the_sample_does_not_depend_on_the_order_of_the_rows(
    counts: dict[tuple[str, str], int], cap: int, seed: int, random: object
) -> None:
    pairs = pairs_of(counts)
    table = to_table(pairs)
    expected = ids(table, cap_per_language(table, every(table), cap, seed))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    shuffled = to_table(pairs)
    assert ids(shuffled, cap_per_language(shuffled, every(shuffled), cap, seed)) == expected


def test_what_one_language_gets_does_not_depend_on_the_others() -> None:
    german, english = [pair(n) for n in range(30)], [pair(n, language="en") for n in range(30)]
    alone, among = to_table(german), to_table([*english, *german])
    assert ids(alone, cap_per_language(alone, every(alone), 7, 3)) < ids(
        among, cap_per_language(among, every(among), 7, 3)
    )


def test_other_seeds_draw_other_samples() -> None:
    table = to_table([pair(n) for n in range(100)])
    samples = [frozenset(cap_per_language(table, every(table), 20, seed).tolist()) for seed in range(5)]
    assert len(set(samples)) == 5
    assert frozenset(cap_per_language(table, every(table), 20, 2).tolist()) == samples[2]


def test_a_sample_is_spread_over_the_table() -> None:
    table = to_table([pair(n) for n in range(1000)])
    rows = cap_per_language(table, every(table), 500, 0)
    assert 400 < np.mean(rows) < 600
    assert 200 < sum(rows < 500) < 300


def test_no_cap_keeps_all_and_nothing_stays_nothing() -> None:
    table = to_table([pair(n) for n in range(5)])
    nothing = np.empty(0, dtype=np.int64)
    assert cap_per_language(table, every(table), None, 0).tolist() == [0, 1, 2, 3, 4]
    assert len(cap_per_language(table, nothing, 3, 0)) == 0
    assert len(select(to_table([]), "train")) == 0
    assert strata(table, nothing) == {}


def test_the_cap_of_a_language_is_shared_by_its_tasks_but_that_of_a_stratum_is_not() -> None:
    table = to_table(pairs_of({("field_help", "de"): 30, ("title_body", "de"): 30, ("title_body", "en"): 4}))
    assert count_by(table, cap_per_stratum(table, every(table), 6, 0), "task", "language") == {
        ("field_help", "de"): 6,
        ("title_body", "de"): 6,
        ("title_body", "en"): 4,
    }
    assert count_by(table, cap_per_language(table, every(table), 6, 0), "language") == {("de",): 6, ("en",): 4}


def test_a_sample_is_drawn_from_the_rows_it_is_given() -> None:
    table = to_table([pair(n) for n in range(40)])
    even = every(table)[::2]
    assert set(cap_per_language(table, even, 5, 0).tolist()) <= set(even.tolist())
    assert set(equal_budget(table, even, 5, 0).tolist()) <= set(even.tolist())


def test_a_stratum_is_told_apart_by_the_language_of_its_documents() -> None:
    table = to_table([pair(n, "bitext", "de", target) for n in range(5) for target in ("en", "ja")])
    rows = cap_per_stratum(table, every(table), 3, 0)
    assert count_by(table, rows, "language", "document_language") == {("de", "en"): 3, ("de", "ja"): 3}
    groups = strata(table, rows)
    assert list(groups) == [("bitext", "de", "en"), ("bitext", "de", "ja")]
    assert sorted(np.concatenate(list(groups.values())).tolist()) == rows.tolist()
    for key, members in groups.items():
        assert {table["document_language"][int(row)].as_py() for row in members} == {key[2]}


@given(COUNTS, st.data(), st.integers(0, 50))
def test_an_equal_budget_is_spent_whole_evenly_and_nested(
    counts: dict[tuple[str, str], int], data: st.DataObject, seed: int
) -> None:
    table = to_table(pairs_of(counts))
    budget = data.draw(st.integers(1, len(table)))
    rows = equal_budget(table, every(table), budget, seed)
    assert len(rows) == budget
    taken = count_by(table, rows, "task", "language")
    # Nobody has two more than one who could have given more.
    for key, available in counts.items():
        if taken.get(key, 0) < available:
            assert max(taken.values()) <= taken.get(key, 0) + 1
    fewer = equal_budget(table, every(table), data.draw(st.integers(1, budget)), seed)
    assert ids(table, fewer) <= ids(table, rows)


def test_a_budget_that_is_not_there_is_an_error_that_names_the_key() -> None:
    table = to_table([pair(n) for n in range(5)])
    with pytest.raises(UserError, match=r"^data_scale\.pairs=6: only 5 "):
        equal_budget(table, every(table), 6, 0)
    assert equal_budget(table, every(table), None, 0).tolist() == [0, 1, 2, 3, 4]


GRID = pairs_of({(task, language): 3 for task in "abcd" for language in ("de", "en", "fr", "ja", "ru")})


def test_tasks_and_languages_are_drawn_nested_by_seed() -> None:
    table = to_table(GRID)

    def drawn(n_tasks: int | None, n_languages: int | None, seed: int) -> tuple[set[str], set[str]]:
        rows = draw_tasks_and_languages(table, every(table), n_tasks, n_languages, seed)
        taken = table.take(rows)
        assert len(rows) == 3 * (n_tasks or 4) * (n_languages or 5)
        return set(taken["task"].to_pylist()), set(taken["language"].to_pylist())

    for seed in range(4):
        assert drawn(1, 2, seed)[0] < drawn(2, 2, seed)[0] < drawn(3, None, seed)[0]
        assert drawn(2, 1, seed)[1] < drawn(2, 3, seed)[1] < drawn(None, 5, seed)[1]
        assert drawn(2, 2, seed) == drawn(2, 2, seed)
    assert len({frozenset(drawn(2, None, seed)[0]) for seed in range(8)}) > 2
    assert len({frozenset(drawn(None, 2, seed)[1]) for seed in range(8)}) > 2


def test_languages_are_drawn_among_those_of_the_drawn_tasks() -> None:
    table = to_table(pairs_of({("a", "de"): 3, ("b", "en"): 3}))
    for seed in range(5):
        assert len(draw_tasks_and_languages(table, every(table), 1, 1, seed)) == 3


@pytest.mark.parametrize(("tasks", "languages", "key"), [(5, 1, "task_mix.n_tasks"), (1, 6, "languages.n_languages")])
def test_more_than_there_are_cannot_be_drawn(tasks: int, languages: int, key: str) -> None:
    table = to_table(GRID)
    with pytest.raises(UserError, match=f"^{key}="):
        draw_tasks_and_languages(table, every(table), tasks, languages, 0)


@given(LISTS := st.lists(st.sampled_from("abc"), min_size=1, max_size=20), LISTS)
def test_labels_of_joined_tables_agree(first: list[str], second: list[str]) -> None:
    tables = [to_table([pair(n, task) for n, task in enumerate(tasks)]) for tasks in (first, second)]
    codes, known = labels(pa.concat_tables(tables), "task")
    assert [known[code] for code in codes] == first + second


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
    rows = select(to_table(MIXED), split, tasks, languages)  # type: ignore[arg-type]
    assert rows.tolist() == expected


@pytest.mark.parametrize(
    ("tasks", "languages", "key", "missing"),
    [
        (["fild_help"], None, "task_mix.tasks", "fild_help"),
        (None, ["xx", "tlh"], "languages.languages", "tlh, xx"),
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
    assert message.endswith(f"({key.split('.')[0]}=all takes them all)")


def test_what_is_asked_for_and_absent_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        rows = select(to_table(MIXED), "train", ["title_body", "fild_help"], ["de", "xx", "tlh"])
    assert rows.tolist() == [3]
    assert "task_mix.tasks: fild_help not in" in caplog.text
    assert "languages.languages: tlh, xx not in" in caplog.text


def test_a_language_that_only_documents_have_is_known() -> None:
    table = to_table([pair(0, "bitext", "de", "he"), pair(1, "bitext", "de", "en")])
    assert select(table, "train", None, ["de", "he"]).tolist() == [0]
