"""The page of all findings, or of one sweep: verdicts, figures, languages, forgetting and cost in one file.

It needs nothing but itself, and is made from the results of sweeps alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from retrofit.analysis.drawing import page_svg, write_figure
from retrofit.analysis.figures import signed
from retrofit.analysis.finding_figures import finding_figure, gains_figure, wording
from retrofit.analysis.finding_results import DOMAINS, HELD_OUT, UNSEEN, SweepResults
from retrofit.analysis.findings import FINDING_OF_SWEEP, FINDINGS, NOT_MEASURED, PARTLY, REPRODUCED
from retrofit.analysis.overview_figures import gain_and_forgetting, loss_curves, short
from retrofit.analysis.pages import group_words, render, words
from retrofit.analysis.verdicts import told_p, verdict
from retrofit.artefacts import write_text
from retrofit.errors import UserError

PAGE = "report.html"
SHADES = 4
"""Shades of a heat map on each side of zero."""

_SIGNS = {REPRODUCED: "✓", PARTLY: "◐", NOT_MEASURED: "–"}


@dataclass(frozen=True)
class Written:
    """What has been written.

    Attributes:
        page: the HTML file.
        figures: the files of the main figures.
        verdicts: of the findings that the page is about, in words, by id.
    """

    page: Path
    figures: tuple[Path, ...]
    verdicts: dict[str, str]


def show_written(written: Written) -> None:
    """Print the verdicts, and where page and figures are."""
    for id_, said in written.verdicts.items():
        print(f"{id_} {FINDINGS[id_].name}: {said}")
    for path in (*written.figures, written.page):
        print(path)


def read_experiments(folder: Path) -> dict[str, SweepResults]:
    """Return the results of each finding that has any, by its id.

    Args:
        folder: holds a folder for each finding.

    Raises:
        UserError: there is no such folder, or a file of a finding cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"experiments={folder}: no such folder; expected one that holds {FINDINGS['F1'].folder} …")
    folders = {finding.id: folder / finding.folder for finding in FINDINGS.values()}
    return {id_: SweepResults.read(path) for id_, path in folders.items() if (path / "results.csv").is_file()}


def write_findings(experiments: Path, page: Path) -> Written:
    """Draw the figure of each finding into its folder and write the page of all of them; return what was written.

    Args:
        experiments: holds a folder for each finding.
        page: the HTML file.

    Raises:
        UserError: there is no such folder, or a file of a finding cannot be read.
    """
    found = read_experiments(experiments)
    figures = {id_: finding_figure(id_, results) for id_, results in found.items()}
    written = [
        path
        for id_, figure in figures.items()
        if figure is not None
        for path in write_figure(figure, found[id_].folder, wording(id_))
    ]
    sections = [_finding(id_, found.get(id_), figures.get(id_)) for id_ in FINDINGS]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, _render("What the paper found, and what was measured here", sections, found))
    return Written(page, tuple(written), _verdicts(sections))


def write_sweep(folder: Path, page: Path) -> Written:
    """Write the page of the sweeps whose results lie in a folder; return what was written.

    A sweep of the paper's findings has its figure and verdict; any other has its gains.

    Args:
        folder: of the results.
        page: the HTML file.

    Raises:
        UserError: a file of the results is missing or cannot be read.
    """
    results = SweepResults.read(folder)
    if not results.sweeps:
        raise UserError(f"{folder / 'results.csv'} holds no results: expected a row for each run of a sweep")
    found: dict[str, SweepResults] = {}
    for sweep in results.sweeps:
        key = FINDING_OF_SWEEP.get(sweep, sweep)
        found[key] = results.of([name for name in results.sweeps if FINDING_OF_SWEEP.get(name, name) == key])
    sections: list[dict[str, Any]] = []
    written: list[Path] = []
    for key, part in found.items():
        figure: Figure | None
        if key in FINDINGS:
            figure = finding_figure(key, part)
            sections.append(_finding(key, part, figure))
        else:
            figure = gains_figure(part, key)
            sections.append(_other(key, part, figure))
        if figure is not None and len(found) == 1:
            written += write_figure(figure, folder, wording(key))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, _render(f"Sweep {', '.join(words(sweep) for sweep in results.sweeps)}", sections, found))
    return Written(page, tuple(written), _verdicts(sections))


def _verdicts(sections: list[dict[str, Any]]) -> dict[str, str]:
    return {section["id"]: section["verdict"] for section in sections if section["verdict"]}


def _render(title: str, sections: list[dict[str, Any]], found: Mapping[str, SweepResults]) -> str:
    plane = gain_and_forgetting(
        {
            f"{key} {FINDINGS[key].name}" if key in FINDINGS else words(key): [
                (results, sweep, None) for sweep in results.sweeps
            ]
            for key, results in found.items()
        }
    )
    sweeps = [sweep for section in sections for sweep in section["sweeps"]]
    return render(
        "overview.html.j2",
        title=title,
        sections=sections,
        sweeps=sweeps,
        domains=DOMAINS,
        plane=_drawn(plane, "plane", "Every run by its gain where it was trained and its change on what it was not"),
        environments=[_environment(key, results) for key, results in found.items()],
    )


def _finding(id_: str, results: SweepResults | None, figure: Figure | None) -> dict[str, Any]:
    finding, said = FINDINGS[id_], verdict(id_, results)
    sweeps = [sweep for sweep in finding.sweeps if results is not None and sweep in results.sweeps]
    return {
        "id": id_,
        "name": finding.name,
        "question": finding.question,
        "claim": finding.claim,
        "verdict": said.verdict,
        "sign": _SIGNS.get(said.verdict, "✗"),
        "sentences": said.sentences,
        "checks": [
            {"says": check.says, "decisive": check.decisive,
             "sign": "–" if check.holds is None else "✓" if check.holds else "✗",
             "word": "not measured" if check.holds is None else "holds" if check.holds else "does not hold"}
            for check in said.checks
        ],
        "figure": _drawn(figure, f"{id_}-main", wording(id_)),
        "sweeps": [_sweep(id_, results, sweep) for sweep in sweeps if results is not None],
    }  # fmt: skip


def _other(sweep: str, results: SweepResults, figure: Figure) -> dict[str, Any]:
    """Return the section of a sweep that answers no finding of the paper."""
    id_ = f"S-{_slug(sweep)}"
    return {
        "id": id_, "name": words(sweep), "question": "", "claim": "", "verdict": "", "sign": "", "sentences": (),
        "checks": [], "figure": _drawn(figure, f"{id_}-main", wording(sweep)), "sweeps": [_sweep(id_, results, sweep)],
    }  # fmt: skip


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)


def _sweep(id_: str, results: SweepResults, sweep: str) -> dict[str, Any]:
    name = f"{id_}-{_slug(sweep)}"
    plane = gain_and_forgetting({short(label): [(results, sweep, label)] for label in results.labels(sweep)})
    return {
        "finding": f"{id_}: " if id_ in FINDINGS else "",
        "name": sweep,
        "seeds": results.seeds(sweep),
        "comparison": _comparison(results, sweep),
        "languages": _heat_maps(results, sweep),
        "cost": _cost(results, sweep),
        "loss": _drawn(loss_curves(results, sweep), f"{name}-loss", f"Training loss by step, sweep {words(sweep)}"),
        "plane": _drawn(
            plane, f"{name}-plane", f"Gain where it was trained against forgetting, sweep {words(sweep)}"
        ),
    }  # fmt: skip


def _comparison(results: SweepResults, sweep: str) -> list[dict[str, Any]]:
    """Return the rows of the comparison as they are read, by domain and point."""
    table = results.comparison[results.comparison["sweep"] == sweep]
    order = {label: place for place, label in enumerate(results.labels(sweep))}
    places = {domain: place for place, domain in enumerate(DOMAINS)}
    rows = sorted(
        table.to_dict("records"),
        key=lambda row: (row["against"] != "base", places.get(row["domain"], 9), order.get(row["point"], 99)),
    )
    return [
        row
        | {
            "point": short(row["point"]),
            "against": short(row["against"]),
            "interval": f"{signed(row['low'])} to {signed(row['high'])}" if pd.notna(row["low"]) else "",
            "p": told_p(row["p_holm"]) if pd.notna(row["p_holm"]) else "",
            "seeds": int(row["seeds"]),
            "seeds_up": int(row["seeds_up"]),
        }
        for row in rows
    ]


def _heat_maps(results: SweepResults, sweep: str) -> list[dict[str, Any]]:
    """Return a table of gains, languages down and points across, of the held-out queries and of every other suite."""
    rows = results.languages[results.languages["sweep"] == sweep]
    labels = results.labels(sweep)
    held_out = rows[rows["domain"].isin(HELD_OUT)]
    parts = [("held out", held_out)] if len(held_out) else []
    rest = rows[~rows["domain"].isin(HELD_OUT)]
    parts += [(group_words(group), part) for group, part in rest.groupby("group", sort=False)]
    return [_heat_map(name, part, labels) for name, part in parts]


def _heat_map(name: str, rows: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    most = max(float(rows["gain"].abs().max()), 1e-9)
    cells = {(row.language, row.point): row for row in rows.itertuples()}
    means = rows.groupby("language")["gain"].mean().sort_values(ascending=False)
    table = []
    for language in means.index:
        line = [cells.get((language, label)) for label in labels]
        table.append(
            {
                "language": language,
                "cells": [
                    {"gain": signed(cell.gain, 3), "shade": round(SHADES * cell.gain / most),
                     "other": cell.domain == UNSEEN} if cell else None
                    for cell in line
                ],
            }
        )  # fmt: skip
    return {"name": name, "points": [short(label) for label in labels], "rows": table}


def _cost(results: SweepResults, sweep: str) -> list[dict[str, Any]]:
    """Return what each point cost, mean over its runs."""
    points = results.points[results.points["sweep"] == sweep]
    columns = ["pairs", "steps", "negatives_per_query", "pairs_per_second", "training_seconds", "total_seconds",
               "peak_memory_gb"]  # fmt: skip
    means = points.groupby("point")[columns].mean()
    runs = points.groupby("point").size()
    return [
        {"point": short(label), "runs": int(runs[label])} | {name: float(means.loc[label, name]) for name in columns}
        for label in results.labels(sweep)
        if label in means.index
    ]


def _environment(key: str, results: SweepResults) -> dict[str, Any]:
    environment = results.environment
    return {
        "name": key,
        "commit": str(environment["commit"] or "unknown")[:12],
        "commits_of_runs": [str(commit)[:12] for commit in environment["commits_of_runs"]],
        "machine": environment["machine"],
        "packages": environment["packages"],
        "commands": environment["commands"],
    }


def _drawn(figure: Figure | None, name: str, label: str) -> Markup | None:
    return None if figure is None else Markup(page_svg(figure, name, label))  # noqa: S704 -- matplotlib escapes labels
