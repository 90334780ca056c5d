"""Filters: what each rejects and lets pass, and that rejecting depends on nothing but the texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.errors import UserError
from retrofit.synthesis.candidates import Candidate
from retrofit.synthesis.filters import TextFilters, copied_share
from retrofit.synthesis.records import Request, SourcePassage, Written

PASSAGE = "The old mill beside the river was rebuilt in 1903 by two brothers from the next valley."


def candidate(text: str, passage: str = PASSAGE, language: str = "en", family: Any = "question") -> Candidate:
    source = SourcePassage(passage, "", "en", "g", "made up", is_query=family == "document")
    return Candidate(Written(Request(source, family, language), text, f"{language}/{family}/1"))


def filters(**changes: Any) -> TextFilters:
    settings = {
        "min_characters": 3, "max_characters": 80, "max_document_characters": 400, "language_confidence": 0.95,
        "max_copied": 0.5, "copied_words": 3, "max_passages": 1,
    }  # fmt: skip
    return TextFilters(**{**settings, **changes})


def rejected(*candidates: Candidate, **changes: Any) -> list[str]:
    filters(**changes).apply(candidates)
    return [item.rejected for item in candidates]


def test_each_filter_rejects_what_it_is_for() -> None:
    found = rejected(
        candidate("Who rebuilt the mill, and when did that happen?"),
        candidate("ab"),
        candidate("x" * 81),
        candidate("Wer hat die alte Mühle am Fluss wieder aufgebaut?"),
        candidate("Wer hat die alte Mühle am Fluss wieder aufgebaut?", language="de"),
        candidate("old mill beside the river was rebuilt"),
    )
    assert found == ["", "length", "length", "language", "", "copied"]


def test_a_limit_is_allowed_and_one_more_is_not() -> None:
    assert rejected(candidate("abc"), candidate("y" * 80), candidate("z" * 81)) == ["", "", "length"]
    half = candidate("the old mill beside was never seen")  # two of five runs of three words
    assert copied_share(half, 3) == pytest.approx(2 / 5)
    assert rejected(half, max_copied=0.4) == [""]
    again = candidate("the old mill beside was never seen")
    assert rejected(again, max_copied=0.39) == ["copied"]


def test_null_switches_a_filter_off() -> None:
    german = candidate("Wer hat die alte Mühle am Fluss wieder aufgebaut?")
    copy = candidate("old mill beside the river was rebuilt")
    assert rejected(german, copy, language_confidence=None, max_copied=None) == ["", ""]


def test_a_short_query_is_no_copy_and_scripts_without_spaces_are_compared_by_characters() -> None:
    assert copied_share(candidate("old mill"), 3) == 0
    japanese = "古い水車小屋が川のそばにある。"
    assert copied_share(candidate("水車小屋", japanese, "ja"), 3) == 0  # four characters are two words
    assert copied_share(candidate("古い水車小屋が", japanese, "ja"), 3) == 1
    assert copied_share(candidate("古い水車の家はどこ", japanese, "ja"), 3) == 0
    assert copied_share(candidate("YouTube是什么？", "YouTube是一个网站", "zh-Hans"), 3) == 0
    hindi = "ताजमहल को शाहजहाँ ने बनवाया था"
    assert copied_share(candidate("ताजमहल किसने बनवाया था", hindi, "hi"), 3) == 0
    assert copied_share(candidate("शाहजहाँ ने बनवाया था", hindi, "hi"), 3) == 1


def test_what_is_repeated_goes() -> None:
    same_passage = [candidate("Who owns it now?"), candidate("who  owns it NOW?")]
    assert rejected(*same_passage) == ["", "repeated"]
    many = [candidate("What is there to know?", f"{PASSAGE} {number}") for number in range(3)]
    assert rejected(*many, max_passages=2) == ["repeated"] * 3
    two = [candidate("What is there to know?", f"{PASSAGE} {number}") for number in range(2)]
    assert rejected(*two, max_passages=2) == ["", ""]
    other_languages = [candidate("Taxi Berlin"), candidate("Taxi Berlin", f"{PASSAGE} !", language="de")]
    assert rejected(*other_languages) == ["", ""]


def test_a_written_passage_is_judged_as_a_passage() -> None:
    document = candidate(PASSAGE * 2, "who rebuilt the mill", family="document")
    assert (document.query, document.passage) == ("who rebuilt the mill", PASSAGE * 2)
    assert rejected(document, candidate(PASSAGE * 5, "who rebuilt the mill", family="document")) == ["", "length"]


@given(st.lists(st.sampled_from(["a b c", "a  B c", "d e f", "", "ü"]), max_size=8), st.randoms())
def test_the_order_of_candidates_decides_only_which_of_equals_stays(texts: list[str], chance: Any) -> None:
    def counted(order: list[str]) -> list[tuple[str, str]]:
        items = [candidate(text) for text in order]
        filters(language_confidence=None).apply(items)
        return sorted((" ".join(item.query.casefold().split()), item.rejected) for item in items)

    shuffled = list(texts)
    chance.shuffle(shuffled)
    assert counted(texts) == counted(shuffled)


@pytest.mark.parametrize(
    ("key", "value"), [("min_characters", 0), ("copied_words", 1.5), ("max_copied", 1.1), ("language_confidence", "x")]
)
def test_a_bad_value_is_named_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"data_source.filters.{key}={value}: expected"):
        filters(**{key: value})
