"""``retrofit report`` from outside: all findings, those that are there, and one sweep."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from tests.analysis.finding_folders import SWEEPS, write_experiments, write_results
from tests.commands.forked import retrofit


def report(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return retrofit(place, "report", *overrides)


def test_findings_that_are_there_are_drawn_and_judged(tmp_path: Path) -> None:
    write_experiments(tmp_path / "experiments", "F2", "F4")
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "F2 data scale: reproduced\n" in done.stdout
    assert "F3 negatives: not measured\n" in done.stdout
    written = {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix in (".html", ".svg", ".png")
    }
    assert written == {
        "experiments/report.html", "experiments/F2_data_scale/figure.svg", "experiments/F2_data_scale/figure.png",
        "experiments/F4_diversity/figure.svg", "experiments/F4_diversity/figure.png",
    }  # fmt: skip
    assert all(path in done.stdout for path in written)


def test_the_page_may_lie_elsewhere(tmp_path: Path) -> None:
    write_experiments(tmp_path / "results", "F1")
    done = report(tmp_path, "experiments=results", "page=site/all.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "all.html").is_file()
    assert not (tmp_path / "results" / "report.html").exists()


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        ([], "retrofit report: experiments=experiments: no such folder"),
        (["page=."], "retrofit report: page=.: is a folder; expected the name of an HTML file"),
        (["sweep=negatives", "output=there"], "retrofit report: output=there: is a file; expected a folder"),
        (["sweep=[]"], "retrofit report: sweep=[]: expected the name of a sweep"),
        (["sweep=negatives"], "retrofit report: sweep=negatives: no runs in runs/negatives; 'retrofit train -m"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, overrides: list[str], start: str) -> None:
    (tmp_path / "there").touch()
    done = report(tmp_path, *overrides)
    assert done.returncode == 2
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("override", ["sweep=negatives", "sweep.name=negatives"])
def test_a_sweep_is_collected_and_shown(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retrofit.commands.report import main

    asked: list[tuple[list[Path], str | None]] = []

    def collect_sweeps(runs: list[Path], output: Path, reference: str | None) -> None:
        asked.append((runs, reference))
        write_results(output, [sweep for sweep in SWEEPS["F3_negatives"] if sweep[0] == "negatives"])

    collecting = types.ModuleType("retrofit.analysis.sweep_results")
    collecting.collect_sweeps = collect_sweeps  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "retrofit.analysis.sweep_results", collecting)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "negatives").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["retrofit report", override, "reference='negatives=bm25'"])
    main()
    assert asked == [([Path("runs/negatives")], "negatives=bm25")]
    assert "F3 negatives: reproduced\n" in capsys.readouterr().out
    folder = tmp_path / "runs" / "reports" / "negatives"
    assert (folder / "figure.svg").is_file()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Sweep negatives" in page
    assert "F1" not in page
