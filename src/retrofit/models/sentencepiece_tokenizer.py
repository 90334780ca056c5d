"""A fast tokenizer from a SentencePiece unigram model, read without the library that wrote it.

The file is a protocol buffer: field 1, repeated, is a piece (1 its text, 2 its score as f32, 3 its kind); field 3 is
the normaliser, whose field 2 is a compiled table of characters that ``tokenizers`` reads as it is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from retrofit.errors import UserError, first_line

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_UNKNOWN, _START, _END = 0, 1, 2
_NO_TEXT = (2, 3, 5)  # kinds of pieces that stand for no text: the unknown one, control pieces, unused ones
_LONGEST_VARINT = 10  # bytes


def unigram_tokenizer(model: bytes) -> Any:
    """Return a tokenizer of the ``tokenizers`` library; a text is put between the pieces ``<s>`` and ``</s>``.

    Args:
        model: content of the file; its first pieces are the unknown one, ``<s>`` and ``</s>``.

    Raises:
        UserError: it is no such file.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    try:
        fields = list(_fields(model))
        pieces = [_piece(value) for number, value in fields if number == 1]
        table = next(value for number, value in _fields(_last(fields, 3)) if number == 2)
        names = [name.strip() for name, _ in pieces[: _END + 1]]
        if names[_START:] != ["<s>", "</s>"]:
            raise ValueError(f"its first pieces are {names}")
        _check_table(table)
        tokenizer = Tokenizer(Unigram(pieces, unk_id=_UNKNOWN, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Precompiled(table), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
    except Exception as error:  # those of the library have no class of their own
        raise UserError(f"not a SentencePiece unigram model as expected: {first_line(error)}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", _START), ("</s>", _END)]
    )
    return tokenizer


def _piece(message: bytes) -> tuple[str, float]:
    fields = dict(_fields(message))
    if 1 not in fields:
        raise ValueError("a piece without a text")
    text, score = fields[1].decode(), struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0
    if not math.isfinite(score):
        raise ValueError(f"a piece with the score {score}")
    if 3 in fields and _varint(fields[3], 0)[0] in _NO_TEXT:
        text += " "  # so that no text has it: blanks are replaced before pieces are looked for
    return text, score


def _check_table(table: bytes) -> None:
    """Return if every text can be looked up in a table of characters; else the library would panic at some text.

    The table is a double array (Darts-clone), after its size in bytes, and what characters are replaced by. A unit has
    its label in bits 0 to 7 and 31, bit 8 where a value follows, and in bits 9 to 30 how far its successors are.

    Raises:
        ValueError: something lies outside.
    """
    (size,) = struct.unpack_from("<I", table)
    units, replacements = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64), table[4 + size :]
    if not len(units):
        raise ValueError("its table of characters is empty")
    successors = (units >> 10) << ((units >> 6) & 8)
    starts, visited = successors[:1], np.zeros(0, dtype=np.int64)
    while len(starts):
        visited = np.union1d(visited, starts)
        following = starts[:, None] ^ np.arange(1, 256)
        if following.max() >= len(units):
            raise ValueError("its table of characters leads outside of itself")
        found = following[units[following] & (1 << 31 | 0xFF) == np.arange(1, 256)]
        leaves = found[units[found] >> 8 & 1 == 1]
        values = units[leaves ^ successors[leaves]] & 0x7FFFFFFF
        if any(value >= len(replacements) or replacements[value] & 0xC0 == 0x80 for value in values.tolist()):
            raise ValueError("its table of characters has no replacement where one should be")
        starts = np.setdiff1d(found ^ successors[found], visited)


def _last(fields: list[tuple[int, bytes]], wanted: int) -> bytes:
    return [value for number, value in fields if number == wanted][-1]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each field of a protocol buffer; of a whole number, those that spell it."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            size = _varint(message, position)[1] - position
        elif kind == _BYTES:
            size, position = _varint(message, position)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if position + size > len(message):
            raise ValueError("it ends within a field")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a whole number, seven bits a byte, and where it ends."""
    value = shift = 0
    while shift < 7 * _LONGEST_VARINT:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than {_LONGEST_VARINT} bytes")
