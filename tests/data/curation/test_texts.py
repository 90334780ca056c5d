"""Texts as they are compared, and their windows and shingles against the plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.curation.languages import known_language
from retrofit.data.curation.similarity import SHINGLE, Bands, jaccard, rows_a_band, shingles
from retrofit.data.curation.texts import normalised, placeholder_share, says_nothing
from retrofit.data.curation.windows import HashIndex, width_at, windows

TEXTS = st.text(max_size=40)
SCRIPTS = st.text(alphabet="abcäß 一二三カナ한글กขคאבב", max_size=40)


@given(TEXTS)
def test_normalising_again_changes_nothing(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert "  " not in once
    assert once == once.strip()


@pytest.mark.parametrize(
    ("one", "two"),
    [("Straße", "STRASSE"), ("ﬁle  name", "File\nName"), ("ｶﾅ", "カナ"), ("co\u00adoperate", "cooperate"), ("Ι", "ι")],
)
def test_what_reads_alike_is_alike(one: str, two: str) -> None:
    assert normalised(one) == normalised(two)


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        ("{name}", True), ("12:30 – 14", True), ("https://example.org", True), ("%s / %(count)d", True), ("", True),
        ("OK", False), ("灯", False), ("🎉", False), ("{name} an", False), ("א", False),
    ],
)  # fmt: skip
def test_texts_that_say_nothing(text: str, nothing: bool) -> None:
    assert says_nothing(text) is nothing


def test_the_share_of_placeholders_is_of_characters() -> None:
    assert placeholder_share("ab {cd}") == pytest.approx(4 / 7)
    assert placeholder_share("ab cd") == 0


def plain_windows(text: str, width: int, tails: bool) -> list[tuple[int, str]]:
    """Where each window of a text starts, and what it holds."""
    ends = [start + width_at(character, width) for start, character in enumerate(text)]
    starts = [start for start, end in enumerate(ends) if end <= len(text)]
    uncovered = [place for place in range(len(text)) if not any(start <= place < ends[start] for start in starts)]
    if tails and uncovered:
        starts = sorted([*starts, uncovered[0]])
    return [(start, text[start : ends[start]]) for start in starts]


@given(st.lists(SCRIPTS, max_size=5), st.integers(2, 9), st.booleans())
def test_windows_are_those_of_each_text(texts: list[str], width: int, tails: bool) -> None:
    hashes, owners, positions = windows(texts, width, tails=tails)
    expected = [(number, *window) for number, text in enumerate(texts) for window in plain_windows(text, width, tails)]
    assert list(zip(owners.tolist(), positions.tolist(), strict=True)) == [(n, start) for n, start, _ in expected]
    complete = [
        (hash_, piece)
        for hash_, (_, _, piece) in zip(hashes.tolist(), expected, strict=True)
        if len(piece) == width_at(piece[0], width)
    ]
    of_piece = {piece: hash_ for hash_, piece in complete}
    assert all(of_piece[piece] == hash_ for hash_, piece in complete)
    assert len(set(of_piece.values())) == len(of_piece)


@given(SCRIPTS)
def test_every_character_stands_in_a_shingle(text: str) -> None:
    assert shingles(text) == ({piece for _, piece in plain_windows(text, SHINGLE, True)} or {""})
    covered = {start + offset for start, piece in plain_windows(text, SHINGLE, True) for offset in range(len(piece))}
    assert covered == set(range(len(text)))


@pytest.mark.parametrize(
    ("one", "two"),
    [("囲み数字 3", "囲み数字 0"), ("ab囲み数字cd", "ab囲み数字ce"), ("灯 l1", "灯 l2"), ("灯 l1灯", "灯 l2灯")],
)
def test_a_short_tail_in_another_script_tells_texts_apart(one: str, two: str) -> None:
    assert jaccard(shingles(one), shingles(two)) < 1
    assert (Bands(0.9).of([one])[0] != Bands(0.9).of([two])[0]).any()


@given(SCRIPTS, SCRIPTS)
def test_jaccard_is_that_of_the_shingles(one: str, two: str) -> None:
    left, right = shingles(one), shingles(two)
    assert jaccard(left, left) == 1
    assert jaccard(left, right) == jaccard(right, left)
    assert jaccard(left, right) == (len(left & right) / len(left | right) if left | right else 1)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8, 0.9])
def test_texts_just_at_the_threshold_share_a_band(threshold: float) -> None:
    """Of pairs a little above the threshold, MinHash must find nearly all."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789"))
    found = tried = 0
    for _ in range(400):
        text = "".join(generator.choice(letters, 300))
        changed = "".join(generator.choice(letters, int(300 * (1 - threshold) * 0.9)))
        other = text[: 300 - len(changed) // 2] + changed[: len(changed) // 2]
        if threshold <= jaccard(shingles(text), shingles(other)):
            bands = Bands(threshold).of([text, other])
            found += bool((bands[0] == bands[1]).any())
            tried += 1
    assert tried > 300
    assert found >= 0.98 * tried
    assert rows_a_band(threshold) >= 1


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.lists(st.integers(0, 2**64 - 1), max_size=30))
def test_an_index_gives_the_first_value_of_a_hash(known: list[int], others: list[int]) -> None:
    index = HashIndex(np.array(known, np.uint64), np.arange(len(known), dtype=np.int32))
    asked = [*known, *others]
    expected = [known.index(value) if value in known else -1 for value in asked]
    assert index.find(np.array(asked, np.uint64)).tolist() == expected


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("de", "de"), ("pt-BR", "pt"), ("zh-Hant", "zh"), ("cmn", "zh"), ("arb_Arab", "ar"), ("eng_Latn", "en"),
        ("sr-Latn", "sr"), ("nb", "no"), ("tlh", None), ("not a code", None),
    ],
)  # fmt: skip
def test_codes_are_read_as_the_detector_names_them(code: str, language: str | None) -> None:
    assert known_language(code) == language
