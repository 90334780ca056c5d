"""Examples in a prompt: training pairs of the language, drawn by the seed, as different as can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrofit.errors import UserError
from retrofit.synthesis.examples import Examples


def examples(corpus: Path, **changes: Any) -> Examples:
    settings = {"tasks": ["field_help"], "per_prompt": 3, "max_passage_characters": 400, "seed": 0, **changes}
    return Examples({"name": "made up", "pairs": corpus}, **settings)


def test_they_are_training_pairs_in_the_language(corpus: Path) -> None:
    found = examples(corpus).of("de")
    assert len(found) == 3
    assert all(" train " in query and "field_help" in query for _, query in found)
    assert not {passage for passage, _ in found} & {passage for passage, _ in examples(corpus).of("en")}
    assert examples(corpus).of("de") == found


def test_they_begin_with_different_words_where_there_are_any(corpus: Path) -> None:
    found = examples(corpus, tasks=None, per_prompt=5).of("en")
    assert len({query.split()[0] for _, query in found}) == 5


def test_long_passages_are_passed_over_and_few_are_better_than_none(corpus: Path) -> None:
    passages = [passage for passage, _ in examples(corpus, per_prompt=50).of("ja")]
    longest = max(map(len, passages))
    shorter = examples(corpus, per_prompt=50, max_passage_characters=longest - 1).of("ja")
    assert 0 < len(shorter) < len(passages)
    assert examples(corpus).of("fr") == []


def test_what_they_depend_on_is_said(corpus: Path) -> None:
    same, seed, tasks = examples(corpus), examples(corpus, seed=1), examples(corpus, tasks=["title_body"])
    assert examples(corpus).identity == same.identity
    assert same.identity != seed.identity != tasks.identity
    assert same.of("de") != seed.of("de")


def test_a_bad_key_is_named(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"data_source\.generator\.examples\.per_prompt=0: expected"):
        examples(corpus, per_prompt=0)
    with pytest.raises(UserError, match=r"data_source\.generator\.examples\.tasks"):
        examples(corpus, tasks=["no_such_task"])
