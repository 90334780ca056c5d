"""Evaluated models side by side at the terminal: quality, what was gained and lost, speed, size and leakage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrofit.analysis.evaluated_cells import read_table
from retrofit.analysis.evaluation_results import COMPARISON, COMPARISON_COLUMNS, TABLE, TABLE_COLUMNS
from retrofit.analysis.published import published
from retrofit.analysis.terminal import console

MARKS = {"gained": ("▲", "green"), "lost": ("▼", "red"), "kept": (" ", "")}

_GROUP = ["level", "suite", "kind", "group"]

_NOTHING = "–"
_OTHERS_SIDE_BY_SIDE = 5  # beside the reference; of more there is another table
_MODELS_WIDTH = 74  # characters that the models share of the 100


@dataclass(frozen=True)
class EvaluationFiles:
    """The tables of an evaluation folder.

    Attributes:
        table: ``table.csv``.
        comparison: ``comparison.csv``.
        models: ``models.csv``, with the ``name`` that each model is shown by.
        leakage: ``leakage.csv``, likewise.
    """

    table: pd.DataFrame
    comparison: pd.DataFrame
    models: pd.DataFrame
    leakage: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> EvaluationFiles:
        """Return the tables of an evaluation that was compared.

        Raises:
            UserError: a file is missing, cannot be read or lacks a column.
        """
        figures = ["parameters", "dimension", "megabytes", "texts_per_second"]
        models = read_table(folder / "models.csv", ["model", "configuration", "source", "kind", *figures])
        models["name"] = models["configuration"].where(models["configuration"] != "", models["model"])
        counts = ["queries", "queries_in_training", "passages", "passages_in_training"]
        leakage = read_table(folder / "leakage.csv", ["model", "suite", *counts])
        leakage["name"] = leakage["model"].map(models.set_index("model")["name"])
        return cls(
            read_table(folder / TABLE, TABLE_COLUMNS),
            read_table(folder / COMPARISON, COMPARISON_COLUMNS),
            models,
            leakage,
        )

    @property
    def names(self) -> list[str]:
        """The models as they are shown, the reference first."""
        names = list(dict.fromkeys(self.models["name"]))
        against = self.comparison["against"].iloc[0] if len(self.comparison) else names[0]
        return sorted(names, key=lambda name: name != against)


def show_evaluation(folder: Path) -> None:
    """Print the models of an evaluation folder side by side to standard output.

    A terminal gets colours; a file or a pipe gets the same as plain text, at least 100 columns wide.

    Args:
        folder: that :func:`retrofit.analysis.evaluation_results.compare_evaluation` was called with.

    Raises:
        UserError: one of its files is missing or cannot be read.
    """
    files, screen = EvaluationFiles.read(folder), console()
    reference, *others = files.names
    for start in range(0, max(1, len(others)), _OTHERS_SIDE_BY_SIDE):
        screen.print(_scores(files, [reference, *others[start : start + _OTHERS_SIDE_BY_SIDE]]))
    for line in _notes(files):
        screen.print(line)
    screen.print()
    _show_published(screen, files)
    for name in files.names[1:]:
        _show_changes(screen, files, name)
    screen.print(_sizes(files))
    screen.print(Text(f"written to {folder / TABLE}, {folder / COMPARISON}"), soft_wrap=True)


def _scores(files: EvaluationFiles, names: list[str]) -> Table:
    """Return suites, kinds and named groups down, models across: value, change below it, leakage below that."""
    table = Table(box=box.SIMPLE_HEAD, title="Models side by side", title_justify="left")
    table.add_column("", overflow="fold", min_width=21, max_width=26)
    for name in names:
        table.add_column(
            Text(name), justify="right", overflow="fold", min_width=9, max_width=_MODELS_WIDTH // len(names) - 3
        )
    values = files.table.set_index([*_GROUP, "model"])["value"].to_dict()
    for row in files.comparison.itertuples():  # a group that a model's training names has no row of the reference
        values.setdefault((row.level, row.suite, row.kind, row.group, row.against), row.reference_value)
    compared = files.comparison.set_index([*_GROUP, "model"])
    before = None
    for row in _shown_groups(files.table).itertuples():
        if before not in (None, row.level):
            table.add_section()
        before = row.level
        lines = [[Text(_NOTHING), Text()] for _ in names]
        for cell, name in zip(lines, names, strict=True):
            key = (row.level, row.suite, row.kind, row.group, name)
            if key in values:
                cell[0] = Text(f"{values[key]:.4f} ")
            if key in compared.index:
                cell[1] = _change(compared.loc[key, "difference"], compared.loc[key, "verdict"])
        metric = f"{row.kind} {row.metric}" if row.level == "suite" else row.metric
        label = Text.assemble((row.group, "bold"), f"\n{metric}" if metric else "")
        leaks = _leaks(files, row.suite) if row.level == "suite" else {}
        if leaks:
            label.append("\nin training, % of q/p")
        cells = [
            Text("\n").join([*cell, *([Text(leaks.get(name, _NOTHING))] if leaks else [])])
            for cell, name in zip(lines, names, strict=True)
        ]
        table.add_row(label, *cells)
    return table


def _shown_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return the suites, the kinds of task that several suites have, and the named groups over all suites."""
    groups = table[[*_GROUP, "metric"]].drop_duplicates(_GROUP)
    suites = groups[groups["level"] == "suite"]
    several = suites["kind"].value_counts()
    kinds = groups[(groups["level"] == "kind") & (groups["group"].map(several) > 1)]
    return pd.concat([suites, kinds, groups[(groups["level"] == "group") & (groups["suite"] == "")]])


def _change(difference: float, verdict: str) -> Text:
    mark, style = MARKS[verdict]
    return Text(f"{difference:+.4f}{mark}", style=style)


def _leaks(files: EvaluationFiles, suite: str) -> dict[str, str]:
    """Return the shares of a suite's queries and passages that stand in a model's training data, by model.

    Where it is unknown of one of a model's tasks or seeds, it is unknown of the model.
    """
    rows = files.leakage[files.leakage["suite"] == suite]
    counts = rows.groupby("name")[["queries", "queries_in_training", "passages", "passages_in_training"]]
    sums = counts.agg(lambda column: column.sum(skipna=False))
    return {
        str(row.Index): f"{_percent(row.queries_in_training, row.queries)}/"
        f"{_percent(row.passages_in_training, row.passages)} "
        for row in sums.itertuples()
    }


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole and not math.isnan(part) else _NOTHING


def _notes(files: EvaluationFiles) -> Iterator[Text]:
    """Yield what the marks mean, and in words on how many suites a model is better or worse."""
    reference = files.names[0]
    yield Text(
        f"change: to {reference}. ▲ gained, ▼ lost: p < .05 (paired randomisation, Holm over the model's suites, kinds "
        "or groups); without a mark no difference was shown."
    )
    suites = files.comparison[files.comparison["level"] == "suite"]
    for name in files.names[1:]:
        found = suites.loc[suites["model"] == name, "verdict"].value_counts()
        gained, lost, kept = (int(found.get(verdict, 0)) for verdict in ("gained", "lost", "kept"))
        yield Text(
            f"{name}: better than {reference} on {gained} suites, worse on {lost}; no difference shown on {kept}."
        )


def _show_published(screen: Console, files: EvaluationFiles) -> None:
    """Print what others published of the benchmarks that were measured, apart from what was measured."""
    suites = files.table[files.table["level"] == "suite"][["suite", "kind"]].drop_duplicates()
    for suite, kind in suites.itertuples(index=False):
        scores = published(suite, kind)
        if scores:
            title = f"{suite}, {kind}: published, not measured here"
            table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
            table.add_column("model")
            table.add_column("score of 100", justify="right")
            table.add_column("source")
            for score in scores:
                table.add_row(Text(score.model), f"{score.score:.2f}", Text(score.source))
            screen.print(table)


def _show_changes(screen: Console, files: EvaluationFiles, name: str) -> None:
    """Print the languages of every suite that a model gained or lost, significantly."""
    rows = files.comparison[(files.comparison["model"] == name) & (files.comparison["level"] == "language")]
    screen.print(Text.assemble((name, "bold"), f" against {files.names[0]}, languages (p < .05 within the suite):"))
    for (suite, kind), languages in rows.groupby(["suite", "kind"], sort=False):
        moved = languages.sort_values("difference", ascending=False)
        parts = []
        for verdict in ("gained", "lost"):
            its = moved[moved["verdict"] == verdict]
            if len(its):
                listed = ", ".join(f"{row.group} {row.difference:+.3f}" for row in its.itertuples())
                parts.append(f"{len(its)} {verdict}: {listed}")
        kept = int((moved["verdict"] == "kept").sum())
        parts.append(f"{kept} kept" if kept else "none kept")
        screen.print(Text(f"  {suite} ({kind}), {len(languages)}: {'; '.join(parts)}"))
    screen.print()


def _sizes(files: EvaluationFiles) -> Table:
    """Return a row for each model: what it is, how large and how fast."""
    table = Table(box=box.SIMPLE_HEAD, title="Size and speed", title_justify="left")
    for name in ("model", "source", "kind"):
        table.add_column(name, overflow="fold", max_width=26)
    for name in ("seeds", "M parameters", "MB", "dimension", "texts/s"):
        table.add_column(name, justify="right")
    for name in files.names:
        rows = files.models[files.models["name"] == name]
        first = rows.iloc[0]
        table.add_row(
            Text(name), Text(first["source"]), Text(first["kind"]), str(len(rows)),
            _number(first["parameters"] / 1e6, 1), _number(first["megabytes"], 0), _number(first["dimension"], 0),
            _number(rows["texts_per_second"].mean(), 0),
        )  # fmt: skip
    return table


def _number(value: float, digits: int) -> str:
    return _NOTHING if math.isnan(value) else f"{value:,.{digits}f}"
