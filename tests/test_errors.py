"""What an error says as one line."""

from __future__ import annotations

import pytest

from retrofit.errors import one_line


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
