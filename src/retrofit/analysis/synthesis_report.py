"""What was synthesised and how far it is from real queries, as one HTML file and at the terminal.

Reads ``synthesis.json``, ``bias_distances.csv`` and ``bias_shares.csv`` of a folder: the first, or the other two, or
all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from retrofit.analysis.pages import render, words
from retrofit.analysis.run_results import flattened
from retrofit.analysis.synthesis_figures import share_bars
from retrofit.analysis.terminal import console
from retrofit.artefacts import write_text
from retrofit.errors import UserError

PAGE = "report.html"
ACCOUNT = "synthesis.json"
SHARES = "bias_shares.csv"
DISTANCES = "bias_distances.csv"

ALL = "all"
"""The property that stands for the mean over all."""

FIRST_WORDS_DRAWN = 12
"""Bars of the figures of first words; the file has more of them."""

EXAMPLES_SHOWN = 5
SHOWN = 100

Content = TypeVar("Content")


@dataclass(frozen=True)
class SynthesisResults:
    """The files of a folder.

    Attributes:
        folder: the folder.
        account: ``synthesis.json``; None where there is none.
        distances: ``bias_distances.csv``; empty where there is none.
        shares: ``bias_shares.csv``; empty where there is none.
    """

    folder: Path
    account: dict[str, Any] | None
    distances: pd.DataFrame
    shares: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> SynthesisResults:
        """Return what a folder holds.

        Raises:
            UserError: there is neither an account nor a bias in it, or one cannot be read.
        """
        account, distances = folder / ACCOUNT, folder / DISTANCES
        if not account.exists() and not distances.exists():
            raise UserError(f"{folder}: neither {ACCOUNT} nor {DISTANCES}; expected a folder of synthetic queries")
        numbers = ["distance", "noise", "synthetic_queries", "real_queries"]
        nothing = pd.DataFrame(columns=["language", "property", "value", *numbers, "synthetic", "real"])
        return cls(
            folder=folder,
            account=_read(account, _account) if account.exists() else None,
            distances=_read(distances, lambda path: _table(path, numbers)) if distances.exists() else nothing,
            shares=_read(folder / SHARES, lambda path: _table(path, ["synthetic", "real"]))
            if distances.exists()
            else nothing,
        )

    @property
    def properties(self) -> list[str]:
        """The properties that were compared, the mean over them first."""
        compared = self.distances.loc[self.distances["distance"].notna(), "property"]
        return sorted(dict.fromkeys(compared), key=lambda name: name != ALL)

    @property
    def languages(self) -> list[dict[str, Any]]:
        """The languages that were compared, the most distant first, with ``distances`` and ``noise`` by property."""
        compared = self.distances[self.distances["distance"].notna()]
        rows = []
        for language, group in compared.groupby("language"):
            by_property = group.set_index("property")
            figures = {name: by_property[name].to_dict() for name in ("distance", "noise")}
            rows.append({"language": language, **figures} | _sizes(group.iloc[0]))
        return sorted(rows, key=lambda row: (-row["distance"][ALL], row["language"]))

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """The languages that had too few queries to be compared."""
        too_few = self.distances[self.distances["distance"].isna()]
        return [{"language": row["language"]} | _sizes(row) for _, row in too_few.iterrows()]


def write_synthesis_report(folder: Path) -> Path:
    """Write ``report.html`` into a folder of synthetic queries and return its path; the same files give the same bytes.

    Args:
        folder: holds ``synthesis.json``, or ``bias_distances.csv`` and ``bias_shares.csv``, or all three.

    Raises:
        UserError: it holds neither, or one of them cannot be read.
    """
    results = SynthesisResults.read(folder)
    page = render(
        "synthesis_report.html.j2",
        account=results.account,
        funnel=funnel(results.account) if results.account else [],
        properties=results.properties,
        languages=[
            row | {"figures": _figures(results.shares, row["language"], number)}
            for number, row in enumerate(results.languages)
        ],
        left_out=results.left_out,
    )
    write_text(folder / PAGE, page)
    return folder / PAGE


def show_synthesis(folder: Path) -> None:
    """Print what was synthesised and how far it is from real queries to standard output.

    Args:
        folder: as for ``write_synthesis_report``.

    Raises:
        UserError: as there.
    """
    results, screen = SynthesisResults.read(folder), console()
    if results.account:
        screen.print(_funnel_table(results.account))
        for line in _account_lines(results.account):
            screen.print(Text(line), soft_wrap=True)
    if results.languages:
        screen.print(_distance_table(results))
    if results.left_out:
        few = ", ".join(
            f"{row['language']} ({row['synthetic_queries']} synthetic, {row['real_queries']} real)"
            for row in results.left_out
        )
        screen.print(Text(f"too few queries to compare: {few}"), soft_wrap=True)
    screen.print(Text(f"in {folder}"), soft_wrap=True)


def funnel(account: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for and what became of it, step by step.

    Args:
        account: the content of ``synthesis.json``.

    Returns:
        Rows of ``step``, ``lost`` there (None for a step that only counts), ``left`` after it, and its ``share`` of the
        requests.
    """
    asked = sum(account["requests"].values())
    left = asked
    rows: list[dict[str, Any]] = [{"step": "requests", "lost": None, "left": asked}]
    for step, losses in (("written", account["failures"]), ("kept", account["rejected"])):
        for reason, count in losses.items():
            left -= count
            rows.append({"step": words(reason), "lost": count, "left": left})
        # As counted where it was done, not as it ought to be: what does not add up is to be seen.
        left = account[step]
        rows.append({"step": step, "lost": None, "left": left})
    return [row | {"share": row["left"] / asked if asked else 0.0} for row in rows]


def _figures(shares: pd.DataFrame, language: str, number: int) -> list[dict[str, Any]]:
    """Return a language's distributions, a figure for each property."""
    figures = []
    for name, rows in shares[shares["language"] == language].groupby("property", sort=False):
        if name == "first_word":
            rows = _folded(rows)
        label = f"{words(name)}, {language}: shares of synthetic and of real queries"
        drawn = share_bars(rows, f"bias{number}-{name}", label)
        figures.append({"property": name, "svg": Markup(drawn)})  # noqa: S704 -- texts in it are escaped
    return figures


def _folded(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the most frequent first words, all others added to the last row."""
    if len(rows) <= FIRST_WORDS_DRAWN + 1:
        return rows
    rest = rows.iloc[FIRST_WORDS_DRAWN:]
    sums = {"synthetic": rest["synthetic"].sum(), "real": rest["real"].sum()}
    return pd.concat([rows.iloc[:FIRST_WORDS_DRAWN], rest.iloc[-1:].assign(**sums)])


def _funnel_table(account: Mapping[str, Any]) -> Table:
    title = f"{account['generator']}: {account['passages']} passages"
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("step")
    for name in ("lost", "left", "of requests"):
        table.add_column(name, justify="right")
    for row in funnel(account):
        counts = row["lost"] is None
        table.add_row(
            Text(f"{'' if counts else '  '}{row['step']}"), "" if counts else str(row["lost"]), str(row["left"]),
            f"{100 * row['share']:.1f}%", style="bold" if counts else "",
        )  # fmt: skip
    return table


def _account_lines(account: Mapping[str, Any]) -> list[str]:
    lines = [f"requests: {_sentence(account['requests'])}"]
    lines += [f"pairs: {_sentence(account[name])}" for name in ("pairs_by_language", "pairs_by_task") if account[name]]
    lines.append("seconds: " + ", ".join(f"{words(stage)} {value:g}" for stage, value in account["seconds"].items()))
    for example in account["examples"][:EXAMPLES_SHOWN]:
        lines.append(f"{example['language']}, {words(example['task'])}, {_fate(example)}:")
        lines += [f"  {kind}: {flattened(example[kind], SHOWN)}" for kind in ("query", "passage")]
    return lines


def _fate(example: Mapping[str, Any]) -> str:
    return "kept" if example["kept"] else f"rejected ({words(example['reason'])})"


def _distance_table(results: SynthesisResults) -> Table:
    table = Table(
        title="distance of synthetic from real queries / of real ones from each other",
        box=box.SIMPLE_HEAD, title_justify="left",
    )  # fmt: skip
    table.add_column("language")
    for name in (*results.properties, "synthetic", "real"):
        table.add_column(words(name), justify="right")
    for row in results.languages:
        cells = [f"{row['distance'][name]:.2f}/{row['noise'][name]:.2f}" for name in results.properties]
        table.add_row(Text(row["language"]), *cells, str(row["synthetic_queries"]), str(row["real_queries"]))
    return table


def _sizes(row: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(row[name]) for name in ("synthetic_queries", "real_queries")}


def _sentence(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {words(name)}" for name, count in counts.items())


def _read(path: Path, reader: Callable[[Path], Content]) -> Content:
    try:
        return reader(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing, although {DISTANCES} is there") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {flattened(str(error), 200)}") from error


def _account(path: Path) -> dict[str, Any]:
    account = json.loads(path.read_text(encoding="utf-8"))
    needed = ("passages", "requests", "written", "failures", "rejected", "kept", "pairs_by_language", "pairs_by_task")
    missing = [name for name in (*needed, "seconds", "generator", "examples") if name not in account]
    if missing:
        raise ValueError(f"no key {missing[0]!r}")
    return dict(account)


def _table(path: Path, numbers: list[str]) -> pd.DataFrame:
    # Strings as they stand: pandas would take the language ``nan`` or the word ``null`` for a missing value.
    texts = dict.fromkeys(("language", "property", "value"), str)
    frame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in numbers})
    missing = [name for name in ("language", "property", *numbers) if name not in frame.columns]
    if missing:
        raise ValueError(f"no column {missing[0]!r}")
    return frame.astype(dict.fromkeys(numbers, float))
