import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from tests.analysis.finding_folders import write_experiments

from retrofit.analysis.findings import FINDINGS

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OF_FINDINGS = {finding: path for finding in FINDINGS for path in NOTEBOOKS if path.stem.startswith(f"{finding}_")}
OVERVIEW = ROOT / "notebooks" / "overview.ipynb"


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Execute a notebook's cells where its kernel would, and return the names they leave."""
    mpl.use("Agg")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for cell in code_cells(path):
        exec(compile("".join(cell["source"]), path.name, "exec"), names)  # noqa: S102 -- our own notebook
    return names


def test_there_is_a_notebook_for_the_default_recipe_and_for_each_finding() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"default_recipe", "overview"}
    assert [OF_FINDINGS[finding.id].stem for finding in FINDINGS.values()] == [f.folder for f in FINDINGS.values()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_the_committed_results(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(path, path.parent, monkeypatch)
    if path.stem == "default_recipe":
        assert not names["suites"].empty
    elif path != OVERVIEW:
        measured = (ROOT / "experiments" / names["finding"].folder / "results.csv").is_file()
        assert (names["figure"] is not None) == measured


@pytest.mark.parametrize(("finding", "path"), OF_FINDINGS.items(), ids=OF_FINDINGS)
def test_a_notebook_shows_the_figure_and_the_verdict_of_its_finding(
    finding: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_experiments(tmp_path / "experiments", finding)
    (tmp_path / "notebooks").mkdir()
    names = run(path, tmp_path / "notebooks", monkeypatch)
    assert names["figure"].axes
    assert len(names["compared"])
    assert f"{names['said'].verdict}: {names['said'].sentence}" in capsys.readouterr().out
    assert names["said"].verdict == ("partly" if finding == "F5" else "reproduced")


@pytest.mark.parametrize(("finding", "path"), OF_FINDINGS.items(), ids=OF_FINDINGS)
def test_a_notebook_without_results_says_so(
    finding: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiments").mkdir()
    names = run(path, tmp_path, monkeypatch)
    assert names["figure"] is None
    assert f"not measured: There are no results in experiments/{FINDINGS[finding].folder}" in capsys.readouterr().out


@pytest.mark.parametrize("findings", [(), ("F3",)], ids=["none", "one"])
def test_the_overview_takes_what_there_is(
    findings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if findings:
        write_experiments(tmp_path / "experiments", *findings)
    else:
        (tmp_path / "experiments").mkdir()
    names = run(OVERVIEW, tmp_path, monkeypatch)
    measured = {finding for finding, said in names["verdicts"].items() if said.verdict != "not measured"}
    assert measured == set(findings)
    assert (names["figure"] is None) == (not findings)
