"""SentencePiece unigram models: the likeliest pieces, by trying all; and files that are damaged or hold more."""

from __future__ import annotations

import functools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.sentencepiece_files import PIECES, SPECIAL, field, piece, sentencepiece_model

from retrofit.errors import UserError
from retrofit.models.sentencepiece_tokenizer import unigram_tokenizer

UNKNOWN_PENALTY = 10  # below the least likely piece, as in SentencePiece


def likeliest(word: str, scores: dict[str, float], unknown: float) -> float:
    """The score of the best way to cut a word, by trying all; a character that is no piece has that of the unknown."""

    @functools.cache
    def best(start: int) -> float:
        if start == len(word):
            return 0.0
        ways = [
            scores[word[start:end]] + best(end) for end in range(start + 1, len(word) + 1) if word[start:end] in scores
        ]
        if word[start] not in scores:
            ways.append(unknown + best(start + 1))
        return max(ways)

    return best(0)


@given(
    st.dictionaries(st.from_regex(r"▁[abé]{0,2}|[abé]{1,3}", fullmatch=True), st.integers(-40, -1), max_size=12),
    st.text("abéz \u3042", max_size=14),
)
def test_a_text_is_cut_into_the_likeliest_pieces(eighths: dict[str, int], text: str) -> None:
    scores = {name: score / 8 for name, score in eighths.items()}
    encoded = unigram_tokenizer(sentencepiece_model([*SPECIAL, *scores.items()])).encode(text)
    names = [name for name, _ in [*SPECIAL, *scores.items()]]
    assert (encoded.ids[0], encoded.ids[-1]) == (1, 2)
    found = list(zip(encoded.ids, encoded.tokens, strict=True))[1:-1]
    assert all(token == names[number] for number, token in found if number)
    words = ["▁" + word for word in text.split()]
    assert "".join(token for _, token in found) == "".join(words)
    unknown = min([0.0, *scores.values()]) - UNKNOWN_PENALTY
    score = sum(scores[token] if number else unknown * len(token) for number, token in found)
    assert score == pytest.approx(sum(likeliest(word, scores, unknown) for word in words))


def test_the_tokenizer_takes_the_likeliest_pieces_and_extra_blanks_away() -> None:
    tokenizer = unigram_tokenizer(sentencepiece_model())
    assert tokenizer.encode("  ab   c ").ids == [1, 4, 3, 7, 2]
    # Unknown characters that follow each other are one piece.
    assert tokenizer.encode("abzzc").ids == [1, 4, 0, 7, 2]
    assert tokenizer.encode("").ids == [1, 2]


def table_of_a(replacement: int) -> bytes:
    """A table that replaces A by what begins at a place of "ab", and its end, as a double array of 32-bit units.

    Bits 0 to 7 are a byte of the key, 8 says that a value follows, 10 to 30 lead on.
    """
    units = [0] * 512
    units[0] = 256 << 10
    units[256 ^ ord("A")] = 1 << 10 | 1 << 8 | ord("A")
    units[256 ^ ord("A") ^ 1] = 1 << 31 | replacement
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + b"ab\0"


def test_the_table_of_the_normaliser_replaces_characters() -> None:
    tokenizer = unigram_tokenizer(sentencepiece_model(table=table_of_a(0)))
    assert tokenizer.encode("A c").ids == tokenizer.encode("ab c").ids == [1, 4, 3, 7, 2]
    assert unigram_tokenizer(sentencepiece_model()).encode("A c").ids == [1, 3, 0, 3, 7, 2]


def test_a_piece_without_a_score_has_none_to_lose() -> None:
    # Protocol buffers leave out a number that is 0.
    pieces = b"".join(piece(*each) for each in PIECES)
    model = pieces + field(1, field(1, "▁abc".encode())) + sentencepiece_model([])
    assert unigram_tokenizer(model).encode("abc").ids == [1, len(PIECES), 2]


@pytest.mark.parametrize("text", ["<s>", "</s>", "<unk>", "ab </s> c", "<s>ab", "<mask>", "▁x", "c<unk>"])
def test_what_is_no_text_to_the_model_is_not_found_in_texts(text: str) -> None:
    """A text may well write a control piece: its characters are pieces like any."""
    letters = [(letter, -3.0) for letter in "<>/abcsunkm"]
    pieces = [piece(*each) for each in (*SPECIAL, ("▁", -4.0), *letters)]
    extra = [piece("<mask>", 0.0, kind=3), piece("▁x", 0.0, kind=5)]
    tokenizer = unigram_tokenizer(b"".join([*pieces, *extra]) + sentencepiece_model([]))
    ids = {name: number for number, (name, _) in enumerate([*SPECIAL, ("▁", -4.0), *letters])}
    words = ["▁" + word.removeprefix("▁") for word in text.split()]
    expected = [ids.get(letter, 0) for letter in "".join(words)]
    assert tokenizer.encode(text).ids == [1, *expected, 2]


OTHER_FIELDS = st.one_of(
    st.binary(max_size=200).map(lambda content: field(5, content)),
    st.binary(min_size=4, max_size=4).map(lambda content: bytes([6 << 3 | 5]) + content),
    st.binary(min_size=8, max_size=8).map(lambda content: bytes([7 << 3 | 1]) + content),
    st.just(bytes([8 << 3]) + b"\xff" * 9 + b"\x01"),  # -1, in ten bytes
    st.just(bytes([16 << 3 & 127 | 128, 16 >> 4, 1])),  # number 16 takes two bytes
)


@given(st.lists(st.tuples(st.integers(0, len(PIECES)), OTHER_FIELDS), max_size=6))
def test_fields_of_other_numbers_are_passed_over(others: list[tuple[int, bytes]]) -> None:
    parts = [piece(*each) for each in PIECES]
    for place, other in sorted(others, reverse=True):
        parts.insert(place, other)
    model = b"".join(parts) + sentencepiece_model([])
    assert unigram_tokenizer(model).to_str() == unigram_tokenizer(sentencepiece_model()).to_str()


def test_a_file_that_ends_too_early_is_refused_wherever_it_ends() -> None:
    model = sentencepiece_model()
    for end in range(len(model)):
        with pytest.raises(UserError):
            unigram_tokenizer(model[:end])


@given(st.data())
def test_a_model_with_any_changed_byte_is_refused_in_one_line_or_read(data: st.DataObject) -> None:
    model = bytearray(sentencepiece_model())
    for place in data.draw(st.lists(st.integers(0, len(model) - 1), min_size=1, max_size=4)):
        model[place] = data.draw(st.integers(0, 255))
    try:
        tokenizer = unigram_tokenizer(bytes(model))
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- it may be raised
    else:
        assert tokenizer.encode("abc").ids[0] == 1


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        sentencepiece_model()[:-4],
        sentencepiece_model()[19:],
        b"\xff" * 20,
        b"\x0b",
        sentencepiece_model([*SPECIAL[:1], *SPECIAL[:0:-1]]),
        field(1, field(1, b"\xff")) + sentencepiece_model(),
        field(1, field(1, b"x") + field(2, b"score")) + sentencepiece_model(),
        sentencepiece_model() + field(1, b""),
        sentencepiece_model() + field(1, field(2, b"1234")),
        sentencepiece_model() + field(1, field(1, b"x") + field(3, b"")),
        sentencepiece_model() + bytes([9 << 3]) + b"\xff" * 11 + b"\x01",
        sentencepiece_model(table=struct.pack("<I", 64) + bytes(64)),
        sentencepiece_model(table=struct.pack("<2I", 1024, 512 << 10) + bytes(1020)),
        sentencepiece_model(table=b""),
        sentencepiece_model(table=b"abc"),
        sentencepiece_model(table=struct.pack("<I", 0) + bytes(64)),
        sentencepiece_model(table=struct.pack("<I", 3) + bytes(64)),
        sentencepiece_model(table=struct.pack("<I", 2**31) + bytes(64)),
        sentencepiece_model(table=struct.pack("<I", 64) + bytes(64) + b"\xff\0"),
        sentencepiece_model(table=table_of_a(3)),
        sentencepiece_model([*PIECES, ("d", float("nan"))]),
        sentencepiece_model([*PIECES, ("d", float("inf"))]),
    ],
)
def test_a_damaged_model_is_one_line(damaged: bytes) -> None:
    with pytest.raises(UserError, match=r"^not a SentencePiece unigram model as expected: [^\n]*$"):
        unigram_tokenizer(damaged)
