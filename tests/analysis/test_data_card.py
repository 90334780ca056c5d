"""The data card as a page and at the terminal: every figure of the JSON, text from outside escaped, the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.page_words import Words

from retrofit.analysis.data_card import CARD, left_out, show_data_card, write_data_card

HOSTILE = "<script>alert('שלום')</script>"


def tokens(kind: str, median: float) -> dict[str, Any]:
    return {
        "task": "field_help", "language": "de", "document_language": "de", "kind": kind, "texts": 3, "median": median,
        "percentile_95": 20.0, "longest": 77, "longer_than": {"64": 1, "512": 0}, "histogram": {"0–7": 2, "64–127": 1},
    }  # fmt: skip


def selected(task: str, language: str, document_language: str, pairs: int) -> dict[str, Any]:
    return {"task": task, "language": language, "document_language": document_language, "pairs": pairs}


CONTENT: dict[str, Any] = {
    "name": "mine",
    "fingerprint": "0123abcd",
    "source": {"refused": {"empty text": 31}, "leaks": {"train: query also in test": 17}, "licence": "CC0"},
    "passages_besides": 41,
    "pairs": 66,
    "selected": [
        selected("field_help", "de", "de", 52),
        selected("bitext", "de", "en", 11),
        selected("field_help", "en", "en", 3),
    ],
    "by_split": [{"split": "train", "task": "field_help", "pairs": 1234}],
    "curation": {"removed": {"held_out_near": 13}, "evaluation_sets": {"own:test": {"held_out_near": 12}}},
    "removed_examples": [
        {"row": 1, "reason": "held_out_near", "field": "query", "text": HOSTILE, "matched": "y", "score": 0.9}
    ],
    "texts": {
        "queries": 61, "queries_in_several_pairs": 5, "passages": 59, "passages_in_several_pairs": 4,
        "pairs_with_several_positives": 7, "positives_per_pair": {"1": 59, "2": 7}, "pairs_with_given_negatives": 2,
    },
    "tokens": [tokens("query", 5.5), tokens("passage", 30.0)],
    "examples": [
        selected("field_help", "de", "de", 1) | {"query": HOSTILE, "positive": "Antwort", "positives": 2},
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CARD).write_text(json.dumps(CONTENT), encoding="utf-8")
    return tmp_path


def test_the_page_says_what_the_card_holds(folder: Path) -> None:
    page = write_data_card(folder).read_text(encoding="utf-8")
    text = Words(page).text
    for figure in ("66", "52", "11", "31", "17", "13", "12", "41", "1234", "61", "59", "0123abcd", "33.3%", "77"):
        assert figure in text, figure
    joined = " ".join(text)
    for words in ("de → en", "held out near", "empty text", "CC0", "own:test", "(one of 2)"):
        assert words in joined, words
    assert "<script" not in page
    assert HOSTILE in joined
    assert "http" not in page


def test_the_same_card_gives_the_same_bytes(folder: Path) -> None:
    first = write_data_card(folder).read_bytes()
    assert write_data_card(folder).read_bytes() == first


def test_nothing_removed_and_no_example_is_a_page_too(folder: Path) -> None:
    content = CONTENT | {"curation": {"removed": {}}, "removed_examples": [], "examples": [], "source": {}}
    (folder / CARD).write_text(json.dumps(content), encoding="utf-8")
    assert "nothing" in Words(write_data_card(folder).read_text(encoding="utf-8")).text


def test_the_terminal_says_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_data_card(folder)
    shown = capsys.readouterr().out
    for words in (
        "mine: training pairs", "1234 train pairs", "31 empty text", "13 held out near", "12 held out near",
        "61 queries (5 in several pairs)", "59 passages (4 in several pairs)", "median 5.5", str(folder),
    ):  # fmt: skip
        assert words in shown, words


def test_what_the_embedded_corpus_left_out_is_counted_by_reason() -> None:
    dropped = {"homeassistant": {"field_help": {"short": {"de": 2, "en": 1}, "same as English": {"de": 4}}}}
    report = {"dropped": dropped, "leaks": {"train: query also in test": 3}, "refused": {}}
    assert left_out(report) == {"same as English": 4, "short": 3, "train: query also in test": 3}


def test_what_the_chart_leaves_out_is_said(folder: Path) -> None:
    many = [selected("bitext", f"l{number}", "en", 100 - number) for number in range(45)]
    (folder / CARD).write_text(json.dumps(CONTENT | {"selected": many}), encoding="utf-8")
    page = write_data_card(folder).read_text(encoding="utf-8")
    assert "5 others have 290 together" in " ".join(Words(page).text)
    assert page.count("l44 → en") == 1  # in the table, not in the chart
    assert page.count("l39 → en") == 2
