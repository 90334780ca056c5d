"""What an error says as one line."""

from __future__ import annotations

import pytest

from retrofit.errors import first_line, one_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a\n  b\r\nc"), "a b c"),
        (KeyError(), "KeyError"),
        (OSError(" \n"), "OSError"),
    ],
)
def test_an_error_is_one_line_and_never_an_empty_one(error: Exception, expected: str) -> None:
    assert one_line(error) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("a b\nc"), "a b"), (OSError("\n a\n b"), "a"), (KeyError(), "KeyError"), (OSError(" \n"), "OSError")],
)
def test_the_first_line_of_an_error(error: Exception, expected: str) -> None:
    assert first_line(error) == expected
