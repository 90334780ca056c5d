"""``retrofit inspect`` from outside, on the tiny corpus and on a folder of the user's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.commands.forked import retrofit


def inspect(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return retrofit(place, "inspect", "model=tiny", *overrides)


@pytest.fixture
def tiny_source(small_run: list[str]) -> list[str]:
    """The overrides that put the tiny corpus in place of the embedded one."""
    return [override for override in small_run if "data_source." in override or "evaluation.sources" in override]


def test_a_selection_is_shown_and_written(tmp_path: Path, tiny_source: list[str]) -> None:
    done = inspect(tmp_path, *tiny_source, "languages=en", "task_mix=field_help")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "inspections").iterdir()
    assert {path.name for path in folder.iterdir()} == {"data_card.json", "data_card.html"}
    card = json.loads((folder / "data_card.json").read_text(encoding="utf-8"))
    assert [row["language"] for row in card["selected"]] == ["en"]
    assert 0 < card["pairs"] <= 7
    assert "made_up: training pairs" in done.stdout
    assert "data_card.html" in done.stdout
    again = inspect(tmp_path, *tiny_source, "languages=en", "task_mix=field_help")
    assert again.stdout == done.stdout


def test_a_folder_of_ones_own_needs_two_overrides(tmp_path: Path, tiny_source: list[str]) -> None:
    rows = [{"query": f"Frage {n}?", "positive": f"Die Antwort auf Frage {n} lautet {n * 7}."} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    evaluation = [override for override in tiny_source if "evaluation.sources" in override]
    path = "data_source.path=rows.jsonl"
    done = inspect(tmp_path, *evaluation, "data_source=folder", path, "data_source.language=de", "curation=none")
    assert done.returncode == 0, done.stderr
    assert "folder: training pairs" in done.stdout
    assert "left out while reading: nothing" in done.stdout


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("sample=0", "retrofit inspect: sample=0: expected "),
        ("languages.languages=de", "retrofit inspect: languages.languages=de: expected a list"),
        ("task_mix.tasks=[1]", "retrofit inspect: task_mix.tasks=[1]: expected a list"),
        ("model=bm25", "retrofit inspect: model=bm25: expected a model with a checkpoint"),
        ("model=sentence_transformer", "retrofit inspect: model.prompts=None: expected a text for query"),
        ("data_source=folder", "retrofit inspect: data_source.path=null: expected "),
        ("languages.languages=[tlh]", "retrofit inspect: languages.languages: tlh not in the data source"),
    ],
)
def test_what_cannot_be_carried_out_is_one_line(
    tmp_path: Path, tiny_source: list[str], override: str, start: str
) -> None:
    source = [each for each in tiny_source if not (override == "data_source=folder" and "data_source." in each)]
    done = inspect(tmp_path, *source, override)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("retrofit inspect: ")]
    assert len(lines) == 1
    assert lines[0].startswith(start)
    assert "Traceback" not in done.stderr
