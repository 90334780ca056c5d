"""How negatives were mined, at the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from retrofit.analysis.pages import words
from retrofit.analysis.run_results import flattened
from retrofit.analysis.terminal import console

SHOWN = 100


def show_mining(folder: Path) -> None:
    """Print what ``mining.json`` and, where there is one, ``false_negatives.csv`` of a folder say."""
    report, screen = json.loads((folder / "mining.json").read_text(encoding="utf-8")), console()
    rejected = ", ".join(f"{count} {words(name)}" for name, count in report["rejected"].items())
    lines = [
        f"{report['queries']} queries in {report['passages']} passages, {report['candidates']} candidates: {rejected}",
        f"{report['chosen']} negatives, {report['filled_at_random']} gaps filled at random, "
        f"{report['left_open']} left open",
    ]
    for name in ("rank", "score", "below_positive"):
        if name in report:
            values = ", ".join(f"{percentile}%: {value:g}" for percentile, value in report[name].items())
            lines.append(f"{words(name)}: {values}")
    for line in lines:
        screen.print(Text(line), soft_wrap=True)
    for example in report["examples"]:
        for kind in ("query", "positive", "negative"):
            indent = "" if kind == "query" else "  "
            screen.print(Text(f"{indent}{kind}: {flattened(example[kind], SHOWN)}"), soft_wrap=True)
    if (folder / "false_negatives.csv").exists():
        screen.print(_false_negatives(pd.read_csv(folder / "false_negatives.csv")))
    screen.print(Text(f"written to {folder}"), soft_wrap=True)


def _false_negatives(rates: pd.DataFrame) -> Table:
    table = Table(title="a known answer, hidden: how often it is taken for a negative", box=box.SIMPLE_HEAD)
    table.add_column("filters")
    for name in ("hidden", "found", "let through", "the best negative", "of the best 4", "negatives left"):
        table.add_column(name, justify="right")
    for row in rates.to_dict("records"):
        table.add_row(
            Text(row["filters"]), str(row["hidden"]), f"{row['found']:.3f}", f"{row['kept']:.3f}",
            f"{row['false_1']:.3f} ({row['false_1_low']:.3f}–{row['false_1_high']:.3f})",
            f"{row['false_4']:.3f} ({row['false_4_low']:.3f}–{row['false_4_high']:.3f})", f"{row['negatives']:.1f}",
        )  # fmt: skip
    return table
