"""The data card: what is in a selection, as one HTML file and at the terminal. Reads ``data_card.json`` only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from retrofit.analysis.figures import count_bars, length_histogram
from retrofit.analysis.pages import render, words
from retrofit.analysis.terminal import console
from retrofit.artefacts import write_text

CARD = "data_card.json"
PAGE = "data_card.html"

LANGUAGES_DRAWN = 40
"""Bars of the chart of languages; the table has them all."""


def write_data_card(folder: Path) -> Path:
    """Write ``data_card.html`` from the ``data_card.json`` of a folder and return its path."""
    card = _read(folder)
    bins, queries, passages = _histogram(card["tokens"])
    grid = _grid(card["selected"])
    drawn = {language: counts.total() for language, counts in grid["rows"][:LANGUAGES_DRAWN]}
    page = render(
        "data_card.html.j2",
        card=card,
        left_out=left_out(card["source"]),
        removed=card["curation"]["removed"],
        evaluation_sets=card["curation"].get("evaluation_sets", {}),
        grid=grid,
        languages_left=len(grid["rows"]) - len(drawn),
        pairs_left=grid["total"] - sum(drawn.values()),
        tokens=_by_task_and_kind(card["tokens"]),
        language_figure=Markup(count_bars(drawn, "pairs", "languages")),  # noqa: S704 -- ours
        length_figure=Markup(length_histogram(bins, queries, passages, "lengths")),  # noqa: S704 -- from numbers
    )
    write_text(folder / PAGE, page)
    return folder / PAGE


def show_data_card(folder: Path) -> None:
    """Print what a folder's ``data_card.json`` says to standard output."""
    card, screen = _read(folder), console()
    grid = _grid(card["selected"])
    table = Table(title=f"{card['name']}: training pairs", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("language")
    for column in ("all", *grid["tasks"]):
        table.add_column(words(column), justify="right")
    for language, counts in grid["rows"]:
        cells = [str(counts.get(task, "")) for task in grid["tasks"]]
        table.add_row(Text(language), str(sum(counts.values())), *cells)
    table.add_section()
    table.add_row("all", str(grid["total"]), *(str(total) for total in grid["tasks"].values()), style="bold")
    screen.print(table)
    for line in (*_account(card), *_text_lines(card), f"data card  {folder / PAGE}"):
        screen.print(Text(line), soft_wrap=True)


def _account(card: Mapping[str, Any]) -> list[str]:
    """Return what the source holds and what was left out of it, in lines."""
    sets = card["curation"].get("evaluation_sets", {})
    return [
        f"source {card['fingerprint']}: {_sentence(_splits(card['by_split']))} pairs",
        f"left out while reading: {_sentence(left_out(card['source'])) or 'nothing'}",
        f"left out by curation: {_sentence(card['curation']['removed']) or 'nothing'}",
        *(f"  of it, texts of {name}: {_sentence(reasons)}" for name, reasons in sets.items()),
    ]


def _text_lines(card: Mapping[str, Any]) -> list[str]:
    """Return how often texts recur and how long they are, in lines."""
    texts = card["texts"]
    return [
        f"{texts['queries']} queries ({texts['queries_in_several_pairs']} in several pairs), "
        f"{texts['passages']} passages ({texts['passages_in_several_pairs']} in several pairs); "
        f"{texts['pairs_with_several_positives']} pairs with several positives, "
        f"{texts['pairs_with_given_negatives']} with hard negatives",
        *(
            f"tokens, {words(row['task'])}, {row['kind']}: median {row['median']:g}, "
            f"95% up to {row['percentile_95']:g}, longest {row['longest']}"
            for row in _by_task_and_kind(card["tokens"])
        ),
    ]


def left_out(source: Mapping[str, Any]) -> dict[str, int]:
    """Return how many rows a source's report counts as left out, by reason, whatever the source calls them."""
    counts: Counter[str] = Counter()
    for key in ("refused", "unused", "leaks"):
        counts.update(source.get(key, {}))
    for by_task in source.get("dropped", {}).values():  # the embedded corpus counts by reader, task, reason, language
        for by_reason in by_task.values():
            for reason, by_language in by_reason.items():
                counts[reason] += sum(by_language.values())
    return {reason: count for reason, count in counts.most_common() if count}


def _read(folder: Path) -> Any:
    return json.loads((folder / CARD).read_text(encoding="utf-8"))


def _languages(row: Mapping[str, Any]) -> str:
    query, document = row["language"], row["document_language"]
    return str(query if query == document else f"{query} → {document}")


def _grid(selected: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a table, languages down, the most frequent first, and tasks across, with totals."""
    rows: dict[str, Counter[str]] = {}
    tasks: Counter[str] = Counter()
    for row in selected:
        rows.setdefault(_languages(row), Counter())[row["task"]] += row["pairs"]
        tasks[row["task"]] += row["pairs"]
    ordered = sorted(rows.items(), key=lambda item: (-item[1].total(), item[0]))
    return {"tasks": dict(sorted(tasks.items())), "rows": ordered, "total": tasks.total()}


def _by_task_and_kind(tokens: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return lengths by task and kind: medians and percentiles averaged over language pairs, the longest of all."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in tokens:
        groups.setdefault((row["task"], row["kind"]), []).append(row)
    return [
        {
            "task": task,
            "kind": kind,
            "texts": sum(row["texts"] for row in rows),
            "median": round(sum(row["median"] for row in rows) / len(rows), 1),
            "percentile_95": round(sum(row["percentile_95"] for row in rows) / len(rows), 1),
            "longest": max(row["longest"] for row in rows),
            "longer_than": {
                limit: sum(row["longer_than"][limit] for row in rows) / sum(row["texts"] for row in rows)
                for limit in rows[0]["longer_than"]
            },
        }
        for (task, kind), rows in sorted(groups.items())
    ]


def _histogram(tokens: list[Mapping[str, Any]]) -> tuple[list[str], list[int], list[int]]:
    bins = list(tokens[0]["histogram"])
    counts = {
        kind: [sum(row["histogram"][name] for row in tokens if row["kind"] == kind) for name in bins]
        for kind in ("query", "passage")
    }
    return bins, counts["query"], counts["passage"]


def _splits(by_split: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in by_split:
        counts[row["split"]] += row["pairs"]
    return dict(counts)


def _sentence(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {words(reason)}" for reason, count in counts.items())
