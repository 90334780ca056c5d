"""SentencePiece unigram models of a few pieces, as the bytes of their file."""

from __future__ import annotations

import struct
from collections.abc import Iterable

SPECIAL = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
KINDS = {"<unk>": 2, "<s>": 3, "</s>": 3}
"""What SentencePiece says of a piece that stands for no text: 2 is the unknown one, 3 a control piece; 5 is unused."""
PIECES = [*SPECIAL, ("▁", -4.0), ("▁ab", -1.0), ("a", -3.0), ("b", -3.0), ("c", -2.0)]

# A table without replacements: a double array in which no byte leads anywhere.
NO_REPLACEMENTS = struct.pack("<I", 1024) + bytes(1024)


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    size = bytes([len(content)]) if len(content) < 128 else bytes([len(content) & 127 | 128, len(content) >> 7])
    return bytes([number << 3 | 2]) + size + content


def piece(text: str, score: float, kind: int | None = None) -> bytes:
    """The field of a piece; a kind that is not given is that of the text, or none."""
    kind = kind or KINDS.get(text)
    of_kind = b"" if kind is None else bytes([3 << 3, kind])
    return field(1, field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + of_kind)


def sentencepiece_model(pieces: Iterable[tuple[str, float]] = PIECES, table: bytes = NO_REPLACEMENTS) -> bytes:
    """A whole file."""
    whole_number = bytes([4 << 3, 0x96, 0x01])
    normaliser = field(1, b"name") + field(2, table) + whole_number
    return b"".join(piece(text, score) for text, score in pieces) + field(3, normaliser)
