from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data.records import SPLITS, Pair, Split
from retrofit.data.splits import remove_leaks, split_of

ORDER = {"train": 0, "validation": 1, "test": 2}


def pair(query: str, *positives: str, split: Split = "train", language: str = "en") -> Pair:
    return Pair(
        query=query,
        positives=positives,
        task="field_help",
        language=language,
        document_language=language,
        source="made up",
        group="g",
        split=split,
    )


@given(st.text(), st.text(max_size=5))
def test_a_group_has_one_split_whatever_else_there_is(group: str, salt: str) -> None:
    assert split_of(group, salt=salt) in SPLITS
    assert split_of(group, salt=salt) == split_of(group, salt=salt)


@settings(max_examples=25)
@given(st.text(max_size=8))
def test_six_in_eight_groups_train_and_one_each_is_held_out(salt: str) -> None:
    groups = 8_000
    counts = Counter(split_of(f"group {number}", salt=salt) for number in range(groups))
    for split, share in (("train", 6 / 8), ("validation", 1 / 8), ("test", 1 / 8)):
        deviation = (groups * share * (1 - share)) ** 0.5
        assert abs(counts[split] - groups * share) < 6 * deviation


def test_the_salt_chooses_the_assignment() -> None:
    one, other = ([split_of(str(n), salt=salt) for n in range(200)] for salt in ("a", "b"))
    assert one != other


# Few letters, so that texts do meet across splits, as queries and as passages.
TEXTS = st.sampled_from("abcdefghij")
PAIRS = st.lists(
    st.builds(
        lambda query, positives, split, language: pair(query, *positives, split=split, language=language),
        TEXTS,
        st.lists(TEXTS, min_size=1, max_size=4, unique=True),
        st.sampled_from(SPLITS),
        st.sampled_from(["en", "de"]),
    ),
    max_size=12,
)


def texts(pairs: list[Pair], split: Split) -> set[str]:
    return {text for each in pairs if each.split == split for text in (each.query, *each.positives)}


@given(PAIRS)
def test_no_text_is_left_on_two_sides(pairs: list[Pair]) -> None:
    kept, _ = remove_leaks(pairs)
    train, validation, test = (texts(kept, split) for split in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test


@given(PAIRS)
def test_nothing_else_is_removed_and_all_that_is_removed_is_counted(pairs: list[Pair]) -> None:
    kept, counts = remove_leaks(pairs)
    later = {split: set().union(*(texts(pairs, s) for s in SPLITS if ORDER[s] > ORDER[split])) for split in SPLITS}
    expected = []
    for each in pairs:
        positives = tuple(text for text in each.positives if text not in later[each.split])
        if each.query not in later[each.split] and positives:
            expected.append(pair(each.query, *positives, split=each.split, language=each.language))
    assert kept == expected
    lost = sum(number for reason, number in counts.items() if "query also in" in reason or "no positive" in reason)
    assert lost == len(pairs) - len(kept)
    assert [each for each in kept if each.split == "test"] == [each for each in pairs if each.split == "test"]


def test_boilerplate_leaves_training_and_the_rest_of_the_pair_stays() -> None:
    kept, counts = remove_leaks(
        [
            pair("a: Host", "The address of your device.", "The address of your bridge."),
            pair("b: Host", "The address of your device."),
            pair("c: Host", "The address of your device.", split="test"),
            pair("c: Host", "Another text.", split="validation"),
        ]
    )
    assert [(each.query, each.positives, each.split) for each in kept] == [
        ("a: Host", ("The address of your bridge.",), "train"),
        ("c: Host", ("The address of your device.",), "test"),
    ]
    assert counts == {
        "train: positive also in test": 2,
        "train: no positive left": 1,
        "validation: query also in test": 1,
    }
