"""What merging on integers must give, told from a plain reading of the same rules in lists."""

import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data.records import SPLITS, Pair, Split, content_id, shown_id
from retrofit.data.sources.columns import Example
from retrofit.data.sources.merging import Merged, merge
from retrofit.data.sources.refusals import Refusals, Row
from retrofit.data.sources.spool import SPOOL, SpoolWriter
from retrofit.data.splits import remove_leaks, split_of

# Few letters, so that queries, passages and groups do meet.
LETTERS = st.sampled_from("abcdefgh")
PASSAGES = st.lists(LETTERS, min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    splits: st.SearchStrategy[Split | None] = draw(
        st.sampled_from([st.none(), st.sampled_from(SPLITS), st.just("train")])
    )
    groups = draw(st.sampled_from([st.none(), st.sampled_from(["x", "y", "z"])]))
    rows = st.builds(
        Example,
        query=LETTERS,
        positives=PASSAGES,
        negatives=st.lists(LETTERS, max_size=3, unique=True).map(tuple),
        task=st.sampled_from(["t", "u"]),
        language=st.sampled_from(["de", "en"]),
        document_language=st.just("en"),
        group=groups,
        split=splits,
    )
    return draw(st.lists(rows, min_size=1, max_size=12))


def merged_on_disk(rows: list[Example]) -> tuple[list[Pair], Merged, Counter[str]]:
    with tempfile.TemporaryDirectory() as folder:
        with SpoolWriter(Path(folder)) as spool:
            for number, row in enumerate(rows, start=1):
                spool.write(row, Row("rows.jsonl", number), "made up")
        with Refusals(Path(folder) / "refused.jsonl") as refusals:
            merged = merge(Path(folder) / SPOOL, refusals)
            return list(merged.pairs()), merged, Counter(map(str, refusals.counts.elements()))


def merged_in_lists(rows: list[Example]) -> tuple[list[Pair], int]:
    """Return the pairs before negatives are looked at, and how many positives were shared."""
    stated = {row.split for row in rows}
    collected: dict[tuple[object, ...], list[Example]] = {}
    for row in rows:
        key = (row.task, row.language, row.document_language, row.group, row.query, row.split)
        collected.setdefault(key, []).append(row)
    pairs = []
    for same in collected.values():
        positives = tuple(dict.fromkeys(text for row in same for text in row.positives))
        group = same[0].group or shown_id(content_id(positives[0]))
        split = same[0].split or split_of(group)
        if split == "train" and None not in stated and split_of(group) not in stated:
            split = split_of(group)
        first = same[0]
        labels = (first.task, first.language, first.document_language, "made up")
        pairs.append(Pair(first.query, positives, *labels, group, split))
    shared = []
    added = 0
    for pair in pairs:
        pool = {text for other in pairs if other.split == pair.split for text in other.positives}
        same_question = [other for other in pairs if (other.query, other.language) == (pair.query, pair.language)]
        others = dict.fromkeys(text for other in same_question for text in other.positives if text in pool)
        positives = tuple(dict.fromkeys([*pair.positives, *others]))
        added += len(positives) - len(pair.positives)
        shared.append(replace(pair, positives=positives))
    return shared, added


@settings(max_examples=150)
@given(examples())
def test_merging_on_disk_is_merging_in_lists(rows: list[Example]) -> None:
    pairs, merged, refused = merged_on_disk(rows)
    shared, added = merged_in_lists(rows)
    expected, leaks = remove_leaks(shared)
    assert [replace(pair, negatives=()) for pair in pairs] == expected
    assert merged.shared == added
    assert {reason: count for reason, count in merged.leaks.items() if "negative" not in reason} == leaks
    assert len(rows) - refused["duplicate row"] - merged.merged == len(shared)


@settings(max_examples=100)
@given(examples())
def test_a_negative_stays_unless_it_answers_or_leaks(rows: list[Example]) -> None:
    pairs, _, _ = merged_on_disk(rows)
    shared, _ = merged_in_lists(rows)
    order = {split: place for place, split in enumerate(SPLITS)}
    for pair in pairs:
        asked = [row for row in rows if (row.query, row.language) == (pair.query, pair.language)]
        known = {text for row in asked for text in row.positives}
        later = {
            text
            for other in shared
            if order[other.split] > order[pair.split]
            for text in (other.query, *other.positives)
        }
        assert not set(pair.negatives) & (known | later)
        assert len(set(pair.negatives)) == len(pair.negatives)
        mentioned = {text for row in asked for text in row.negatives}
        assert set(pair.negatives) <= mentioned
    if len({(row.task, row.language, row.group, row.query, row.split) for row in rows}) == 1:
        kept = {text for pair in pairs for text in pair.negatives}
        answers = {text for row in rows for text in row.positives}
        assert kept == {text for row in rows for text in row.negatives} - answers


def example(query: str, *positives: str, group: str | None = None, split: Split | None = None) -> Example:
    return Example(query, positives, (), "t", "en", "en", group, split)


def test_rows_of_a_query_without_a_group_are_one_pair_whatever_their_answers() -> None:
    pairs, merged, _ = merged_on_disk([example("a", "1"), example("b", "2"), example("a", "3"), example("a", "1", "3")])
    assert [(pair.query, pair.positives) for pair in pairs] == [("a", ("1", "3")), ("b", ("2",))]
    assert merged.merged == 2


def test_rows_of_two_groups_stay_two_pairs_and_share_their_answers() -> None:
    rows = [example("a", "1", group="x", split="test"), example("a", "2", group="y", split="test")]
    pairs, merged, _ = merged_on_disk(rows)
    assert [(pair.group, pair.positives) for pair in pairs] == [("x", ("1", "2")), ("y", ("2", "1"))]
    assert merged.shared == 2


def test_a_test_split_without_validation_takes_an_eighth_of_the_training_groups() -> None:
    rows = [example(f"q{n}", f"p{n}", group=f"g{n}", split="test" if n < 80 else "train") for n in range(880)]
    pairs, _, _ = merged_on_disk(rows)
    counts = Counter(pair.split for pair in pairs)
    assert counts["test"] == 80
    assert 60 < counts["validation"] < 140
    assert {pair.split for pair in pairs if split_of(pair.group) == "test" and int(pair.query[1:]) >= 80} == {"train"}


def test_a_source_that_says_only_train_is_divided_by_group() -> None:
    pairs, _, _ = merged_on_disk([example(f"q{n}", f"p{n}", group=f"g{n}", split="train") for n in range(100)])
    assert all(pair.split == split_of(pair.group) for pair in pairs)
    assert {pair.split for pair in pairs} == set(SPLITS)


def test_rows_may_come_from_more_files_than_labels_have_codes(tmp_path: Path) -> None:
    same = Example("q", ("p",), (), "t", "en", "en", "g", "train")
    files = [f"{number}.jsonl" for number in range(2**15 + 2)]
    with SpoolWriter(tmp_path) as spool:
        for name in files:
            spool.write(same, Row(name, 1), "made up")
    with Refusals(tmp_path / "refused.jsonl") as refusals:
        merged = merge(tmp_path / SPOOL, refusals)
        refusals.copy_to(tmp_path / "copied.jsonl")
    assert [pair.positives for pair in merged.pairs()] == [("p",)]
    lines = (tmp_path / "copied.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == files[1:]
