"""Which of a folder's prompts goes before a passage."""

from __future__ import annotations

import pytest

from retrofit.models.prompts import passage_prompt


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"query": "q", "document": "", "passage": "passage: "}, "passage: "),
        ({"query": "q", "document": "doc: ", "passage": "passage: "}, "doc: "),
        ({"query": "q", "document": ""}, ""),
        ({"document": None}, ""),
        ({}, ""),
    ],
)
def test_an_empty_document_prompt_does_not_hide_the_passage_prompt(prompts: dict[str, str], expected: str) -> None:
    assert passage_prompt(prompts) == expected
