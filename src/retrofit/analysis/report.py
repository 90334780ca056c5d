"""The report of a run: one HTML file that needs nothing but itself, neither network nor neighbours."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from retrofit.analysis.comparison import HELD_OUT
from retrofit.analysis.figures import interpolation_curve, language_bars, loss_curve, signed
from retrofit.analysis.pages import render, score, words
from retrofit.analysis.run_results import RunResults, is_retention
from retrofit.artefacts import write_text

REPORT = "report.html"

UNSHOWN_CONFIG = ("paths", "logger")
"""Configuration that says where a machine keeps things, nothing about the result."""


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    The same results give the same bytes.

    Args:
        run_folder: of a finished run.

    Raises:
        UserError: one of the files the report is made from is missing or cannot be read.
    """
    results = RunResults.read(run_folder)
    path = run_folder / REPORT
    write_text(path, _render(results))
    return path


def _render(results: RunResults) -> str:
    config, tried = results.config, results.interpolation
    return render(
        "report.html.j2",
        title=f"{config.get('experiment_name', 'run')} · {results.folder.name}",
        model=config["model"].get("name", ""),
        summary=_summary(results),
        cards=_cards(results),
        suites=[_suite(results, suite, number) for number, suite in enumerate(results.suites)],
        interpolation=[] if tried is None else tried.to_dict("records"),
        interpolation_figure="" if tried is None else Markup(interpolation_curve(tried, "interpolation")),  # noqa: S704 -- ours
        loss_figure=Markup(loss_curve(results.training_curve, "loss")),  # noqa: S704 -- drawn from numbers
        examples=results.examples,
        trained=_trained_pairs(results.data),
        data=results.data,
        config=yaml.safe_dump(
            {key: value for key, value in config.items() if key not in UNSHOWN_CONFIG},
            sort_keys=False,
            allow_unicode=True,
        ),
        seconds=results.figures.get("seconds", {}),
        machine=results.figures.get("machine", {}),
        model_folder=json.dumps((results.folder / "model").as_posix(), ensure_ascii=False),
        search_model=shlex.quote((results.folder / "model").as_posix()),
    )


def _summary(results: RunResults) -> str:
    """Return the result in words: what was gained, and in the same breath what was forgotten."""
    parts = []
    for suite in results.suites:
        mean = results.suite_mean(suite)
        moved = f"from {score(mean['base'])} to {score(mean['retrofitted'])} ({signed(mean['gain'])})"
        parts.append(f"{_what_for(suite)} ({words(suite)}) nDCG@10 went {moved}")
    return f"On {'; on '.join(parts)}." if parts else ""


def _what_for(suite: str) -> str:
    """Return what a suite is to the training; one of the user's own, or a folder, is none of it by its name."""
    if suite == HELD_OUT:
        return "what it was trained for"
    return "what must not be forgotten" if is_retention(suite) else "texts from elsewhere"


def _cards(results: RunResults) -> list[dict[str, Any]]:
    """Return the headline figures: of a suite, of its seen and unseen languages, and the change in retention."""
    cards = []
    for suite in results.suites:
        figures = results.figures["headline"].get(suite, results.suite_mean(suite))
        if is_retention(suite):
            tasks = results.tasks(suite)
            worst = tasks.loc[tasks["gain"].idxmin()]
            note = f"task that changed worst: {words(worst['task'])} {signed(worst['gain'])}"
            cards.append(_card(f"{words(suite)}: change", figures, note))
            continue
        languages = results.languages(suite)
        fell = sorted(languages.loc[languages["gain"] < 0, "language"])
        note = f"{_counted(len(languages))}, " + (f"fell: {', '.join(fell)}" if fell else "none fell")
        cards.append(_card(f"{words(suite)}: gain", figures, note))
        for key, what in (("seen_languages", "languages trained on"), ("unseen_languages", "languages not trained on")):
            if key in figures:
                group = figures[key]
                cards.append(_card(f"{words(suite)}: {what}", group, _counted(int(group["languages"]))))
    return cards


def _counted(languages: int) -> str:
    return "1 language" if languages == 1 else f"{languages} languages"


def _card(name: str, figures: Mapping[str, Any], note: str) -> dict[str, Any]:
    return {"name": name, "note": note} | {key: float(figures[key]) for key in ("base", "retrofitted", "gain")}


def _suite(results: RunResults, suite: str, number: int) -> dict[str, Any]:
    languages, cells = results.languages(suite), results.cells(suite)
    return {
        "name": suite,
        "retention": is_retention(suite),
        "mean": results.suite_mean(suite),
        # Seen and unseen are told apart only where a suite has languages of both kinds.
        "both_kinds": languages["seen"].nunique() > 1,
        "languages": languages.to_dict("records"),
        "tasks": results.tasks(suite).to_dict("records"),
        "cells": cells.sort_values(["task", "query_language", "document_language"]).to_dict("records"),
        "figure": Markup(language_bars(languages, f"suite{number}")),  # noqa: S704 -- matplotlib escapes the labels
    }


def _trained_pairs(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of training pairs as a table, languages down and tasks across, with totals."""
    counts: dict[str, dict[str, int]] = {}
    tasks: dict[str, int] = {}
    for row in data["pairs_by_task_and_language"]:
        pair = _languages(row["language"], row["document_language"])
        count = int(row["pairs"])
        counts.setdefault(pair, {})[row["task"]] = counts.get(pair, {}).get(row["task"], 0) + count
        tasks[row["task"]] = tasks.get(row["task"], 0) + count
    rows = sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return {"tasks": dict(sorted(tasks.items())), "rows": rows, "total": sum(tasks.values())}


def _languages(query: str, document: str) -> str:
    return query if query == document else f"{query} → {document}"
