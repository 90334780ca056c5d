"""What the READMEs of the findings say, against the tables beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from retrofit.analysis.finding_results import SweepResults
from retrofit.analysis.findings import FINDINGS
from retrofit.analysis.verdicts import diversity_effects

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FOLDERS = [EXPERIMENTS / finding.folder for finding in FINDINGS.values()]

_NUMBER = r"([+−]?)(\.\d{4})"
ESTIMATE = re.compile(rf"{_NUMBER}(?:\*\*)?(?: in [^()]{{0,40}})?,? \(?{_NUMBER}(?:–| to ){_NUMBER}")
"""A difference with its interval: +.0959 (.0617–.1341), or .0171, .0057 to .0285."""
MINUTES = re.compile(r"(\d+) minutes by their own clocks")
"""What all runs of a finding took."""

Triple = tuple[float, float, float]


def number(sign: str, digits: str) -> float:
    return -float(digits) if sign == "−" else float(digits)


def said(text: str) -> dict[str, Triple]:
    """The estimates of a text with their intervals, by how it has them."""
    found = {}
    for match in ESTIMATE.finditer(" ".join(text.split())):
        parts = match.groups()
        found[match[0]] = (number(*parts[:2]), number(*parts[2:4]), number(*parts[4:]))
    return found


def linked(folder: Path, text: str) -> list[Path]:
    """The folder and those that its README links to."""
    others = {(folder / target).resolve() for target in re.findall(r"\]\((\.\./[\w/]+?)/?\)", text)}
    return [folder, *sorted(path for path in others if (path / "comparison.csv").is_file())]


def measured(folders: list[Path]) -> list[Triple]:
    """The comparisons of the folders, and of the first the effects of its grids over all held-out queries."""
    tables = [pd.read_csv(folder / "comparison.csv")[["difference", "low", "high"]] for folder in folders]
    results = SweepResults.read(folders[0])
    for sweep in results.sweeps:
        effects = diversity_effects(results, sweep)
        if effects is not None:
            rows = [(effect.estimate, effect.low, effect.high) for effect in effects.all]
            tables.append(pd.DataFrame(rows, columns=["difference", "low", "high"]))
    return [tuple(row) for row in pd.concat(tables).to_numpy()]


def stands_for(text: Triple, row: Triple) -> bool:
    """Whether a text's three numbers are a row's; one that says "below" may leave out the signs of all three."""
    estimate, low, high = row
    turned = (-estimate, -high, -low)
    # The tables have five digits, so what is rounded twice may be one off in the fourth decimal.
    return any(
        all(abs(a - b) < 1.01e-4 for a, b in zip(text, each, strict=True)) for each in ((estimate, low, high), turned)
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_estimate_with_an_interval_is_a_row_of_a_table(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    estimates, rows = said(text), measured(linked(folder, text))
    assert len(estimates) >= 10
    assert [shown for shown, text in estimates.items() if not any(stands_for(text, row) for row in rows)] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_time_that_is_said_is_that_of_all_runs(folder: Path) -> None:
    text = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    seconds = pd.read_csv(folder / "points.csv")["total_seconds"].sum()
    assert [int(minutes) for minutes in MINUTES.findall(text)] == [round(seconds / 60)]
