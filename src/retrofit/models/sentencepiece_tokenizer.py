"""A fast tokenizer from a SentencePiece unigram model, read without the library that wrote it.

The file is a protocol buffer: field 1, repeated, is a piece (1 its text, 2 its score as f32); field 3 is the
normaliser, whose field 2 is a compiled table of characters that ``tokenizers`` reads as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from retrofit.errors import UserError

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_UNKNOWN, _START, _END = 0, 1, 2


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
        names = [name for name, _ in pieces[: _END + 1]]
        if names[_START:] != ["<s>", "</s>"]:
            raise ValueError(f"its first pieces are {names}")
    except (IndexError, StopIteration, ValueError, struct.error) as error:
        raise UserError(f"not a SentencePiece unigram model as expected: {error}") from error
    tokenizer = Tokenizer(Unigram(pieces, unk_id=_UNKNOWN, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(table), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", _START), ("</s>", _END)]
    )
    return tokenizer


def _piece(message: bytes) -> tuple[str, float]:
    found = dict(_fields(message))
    return found[1].decode(), struct.unpack("<f", found[2])[0] if 2 in found else 0.0


def _last(fields: list[tuple[int, bytes]], wanted: int) -> bytes:
    return [value for number, value in fields if number == wanted][-1]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each field of a protocol buffer; of a whole number, no bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            _, position = _varint(message, position)
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
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
