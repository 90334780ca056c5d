"""What came out of a run, at the terminal: the figures first, then queries to look at, then where things lie."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrofit.analysis.run_files import MODELS
from retrofit.analysis.run_results import Comparison, RunResults, flattened, is_retention

TOP_PASSAGES = 3
PASSAGE_LENGTH = 100


def show_run(run_folder: Path) -> None:
    """Print the results of a finished run to standard output.

    A terminal gets colours; a file or a pipe gets the same as plain text, at least 100 columns wide.

    Args:
        run_folder: of a finished run.

    Raises:
        UserError: one of its files is missing or cannot be read.
    """
    results = RunResults.read(run_folder)
    screen = console()
    for suite in results.suites:
        if not is_retention(suite):
            screen.print(_language_table(results, suite))
    for suite in results.suites:
        _show_suite(screen, results, suite)
    if results.examples:
        _show_examples(screen, results)
    _show_places(screen, run_folder)


def console(*, stderr: bool = False, width: int = 100) -> Console:
    """Return standard output as a console that shows texts as they stand.

    Args:
        stderr: standard error instead.
        width: columns that a file or a pipe gets at least; a terminal has its own.
    """
    # Texts come from a corpus: what looks like markup or an emoji's name in them is to be shown as it stands.
    screen = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not screen.is_terminal:
        screen.width = max(width, shutil.get_terminal_size().columns)
    return screen


def _language_table(results: Comparison, suite: str) -> Table:
    table = Table(title=f"{suite}: nDCG@10 by language", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("language")
    for name in ("base", "retrofitted", "change", "queries"):
        table.add_column(name, justify="right")
    languages = results.languages(suite).sort_values("seen", ascending=False, kind="stable")
    both_kinds = languages["seen"].nunique() > 1
    before: bool | None = None
    for row in languages.itertuples():
        if both_kinds and row.seen != before:
            if before is not None:
                table.add_section()
            group = languages[languages["seen"] == row.seen]
            name = f"{'trained on' if row.seen else 'not trained on'}, mean of {len(group)}"
            table.add_row(
                Text(name), f"{group['base'].mean():.4f}", f"{group['retrofitted'].mean():.4f}",
                _change(group["gain"].mean()), str(group["n_queries"].sum()), style="bold",
            )  # fmt: skip
            before = row.seen
        table.add_row(
            Text(f"{'  ' if both_kinds else ''}{row.language}"),
            f"{row.base:.4f}", f"{row.retrofitted:.4f}", _change(row.gain), str(row.n_queries),
        )  # fmt: skip
    return table


def _show_suite(console: Console, results: Comparison, suite: str) -> None:
    mean = results.suite_mean(suite)
    console.print(
        Text.assemble(
            (suite, "bold"), f"  {mean['base']:.4f} → {mean['retrofitted']:.4f}  ", _change(mean["gain"]),
            "  what must not be forgotten" if is_retention(suite) else "",
        )
    )  # fmt: skip
    tasks = [Text.assemble(f"{row.task} ", _change(row.gain)) for row in results.tasks(suite).itertuples()]
    console.print(Text.assemble("  by task: ", Text(", ").join(tasks)))


def _show_examples(console: Console, results: RunResults) -> None:
    console.print()
    console.print(Text("Queries to look at (✓ marks a right answer)", style="bold"))
    for example in results.examples:
        console.print()
        console.print(
            Text.assemble(
                f"{example['kind']}, {example['task']}, {example['language']}: ",
                (flattened(example["query"], PASSAGE_LENGTH), "bold"),
            )
        )
        for model in MODELS:
            console.print(f"  {model}, nDCG@10 {example['ndcg_at_10'][model]:.4f}")
            for rank, passage in enumerate(example["passages"][model][:TOP_PASSAGES], start=1):
                mark = ("✓ ", "green") if passage["relevant"] else "  "
                line = Text.assemble(f"    {rank} ", mark, flattened(passage["text"], PASSAGE_LENGTH))
                console.print(line, soft_wrap=True)


def _show_places(console: Console, run_folder: Path) -> None:
    model = run_folder / "model"
    console.print()
    for name, place in (("run folder", run_folder), ("report", run_folder / "report.html"), ("model", model)):
        # Never broken over two lines: a path is there to be copied.
        console.print(Text(f"{name.ljust(10)}  {place}"), soft_wrap=True)
    console.print(Text(f"try it      retrofit search {shlex.quote(str(model))} FILE"), soft_wrap=True)


def _change(value: float) -> Text:
    style = "green" if value >= 0.00005 else "red" if value <= -0.00005 else ""
    return Text(f"{value:+.4f}", style=style)
