"""What may be shown of what a server says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrofit.models.openai_server import shown, without_key

KEY = "sk-made-up/0123456789+abcdefghij=KLMNOPQRSTUVWXYZ"


@given(st.text(), st.integers(0, len(KEY) - 1), st.integers(1, len(KEY)), st.text())
def test_whatever_part_of_a_key_is_echoed_is_cleared(before: str, start: int, length: int, after: str) -> None:
    part = KEY[start : start + length]
    cleared = without_key(before + part + after, KEY)
    assert not any(KEY[at : at + 12] in cleared for at in range(len(KEY) - 11))
    if len(part) < 12 and not any(KEY[at : at + 12] in before + part + after for at in range(len(KEY) - 11)):
        assert cleared == before + part + after


def test_a_short_key_is_a_word_and_what_is_long_is_cut() -> None:
    assert shown("the key\nEMPTY", "EMPTY") == "the key EMPTY"
    assert shown("x" * 300, None) == "x" * 199 + "…"
