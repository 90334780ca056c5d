"""The summary at the terminal: readable as plain text, the same figures as the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from retrofit.analysis.terminal import show_run
from retrofit.errors import UserError


@pytest.fixture
def printed(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    show_run(run_folder)
    return capsys.readouterr().out


def test_languages_with_their_figures_seen_ones_first(printed: str, run_folder: Path) -> None:
    frame = pd.read_csv(run_folder / "metrics.csv", keep_default_na=False)
    rows = frame[(frame["metric"] == "ndcg_at_10") & (frame["suite"] == "held_out")]
    means = rows.pivot_table(index="query_language", columns="model", values="value")
    table = [line.split() for line in printed.splitlines()]
    order = []
    for language in ["en", "zh-Hans", "de", "he", "el", "ru", "fi", "ga"]:
        base, retrofitted = means.loc[language, "base"], means.loc[language, "retrofitted"]
        expected = [language, f"{base:.4f}", f"{retrofitted:.4f}", f"{retrofitted - base:+.4f}"]
        (line,) = (number for number, cells in enumerate(table) if cells[:4] == expected)
        order.append(line)
    assert order == sorted(order)


def test_groups_have_the_means_of_the_headline(printed: str, run_folder: Path) -> None:
    held_out = json.loads((run_folder / "metrics.json").read_text())["headline"]["held_out"]
    for label, group in (
        ("trained on, mean of 5", "seen_languages"),
        ("not trained on, mean of 3", "unseen_languages"),
    ):
        figures = held_out[group]
        expected = rf"^\s*{label}\s+{figures['base']:.4f}\s+{figures['retrofitted']:.4f}\s+\{figures['gain']:+.4f}\s"
        assert re.search(expected, printed, re.MULTILINE)


def test_suites_with_the_change_of_each_task(printed: str, run_folder: Path) -> None:
    headline = json.loads((run_folder / "metrics.json").read_text())["headline"]
    for suite in ("held_out", "retention"):
        figures = headline[suite]
        line = f"{suite}  {figures['base']:.4f} → {figures['retrofitted']:.4f}  {figures['gain']:+.4f}"
        assert line in printed
    assert "bitext -0.0089, definition -0.0057, emoji_name -0.0036" in printed


def test_examples_are_plain_lines_cut_to_size(printed: str) -> None:
    assert "<script>alert('query')</script> & [bold]Host[/bold]" in printed
    assert "    1   wrong <b>passage</b> of two lines\n" in printed
    (cut,) = re.findall(r"1 ✓ (the right passage .*)\n", printed)
    assert len(cut) <= 100
    assert cut.endswith("…")
    assert "    2 ✓ כתובת המכשיר" in printed


def test_a_pipe_gets_no_escape_codes_and_whole_paths(printed: str, run_folder: Path) -> None:
    assert "\x1b" not in printed
    lines = printed.splitlines()
    assert lines[-4:] == [
        f"run folder  {run_folder}",
        f"report      {run_folder / 'report.html'}",
        f"model       {run_folder / 'model'}",
        f"try it      retrofit search {run_folder / 'model'} FILE",
    ]


def test_escape_codes_of_a_passage_do_not_reach_the_terminal(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder / "examples.json"
    examples = json.loads(path.read_text())
    examples[0]["passages"]["base"][0]["text"] = "red \x1b[31m alert \x07"
    path.write_text(json.dumps(examples))
    show_run(run_folder)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_no_examples_and_no_second_kind_of_language(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "examples.json").write_text("[]")
    path = run_folder / "metrics.csv"
    path.write_text(path.read_text().replace("True", "False"))
    show_run(run_folder)
    out = capsys.readouterr().out
    assert "Queries to look at" not in out
    assert "trained on" not in out
    assert "zh-Hans" in out


def test_an_unfinished_run_is_one_line(run_folder: Path) -> None:
    (run_folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        show_run(run_folder)
