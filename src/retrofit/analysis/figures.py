"""Figures of a run as SVG elements to be put into a page: they take their colours and their font from the page.

Everything is drawn on ``Figure`` objects of our own, never through pyplot, and the same results give the same bytes.
"""

from __future__ import annotations

import io
import re
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Drawn in these colours, then replaced by the page's custom properties, so that a page can be light or dark.
PAGE_COLOURS = {
    "#010203": "var(--ink)",
    "#010204": "var(--line)",
    "#010205": "var(--base)",
    "#010206": "var(--seen)",
    "#010207": "var(--unseen)",
}
INK, LINE, BASE, SEEN, UNSEEN = PAGE_COLOURS

WIDTH = 4.2  # inches: one column of a page, and still readable on a phone

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's font
    "svg.hashsalt": "retrofit",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
}


def language_bars(languages: pd.DataFrame, name: str) -> str:
    """Return bars before and after for each language, the largest gain on top.

    Args:
        languages: columns ``language``, ``base``, ``retrofitted``, ``gain``, ``seen``, in the order to draw.
        name: of the figure, unique in its page.
    """
    both_kinds = languages["seen"].nunique() > 1
    labels = [
        f"{row.language} (unseen)" if both_kinds and not row.seen else str(row.language)
        for row in languages.itertuples()
    ]
    # Colours tell something only where there are languages of both kinds.
    colours = [SEEN if row.seen or not both_kinds else UNSEEN for row in languages.itertuples()]
    rows = range(len(languages))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 0.55 + 0.3 * len(languages)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh([row - 0.19 for row in rows], languages["base"], height=0.36, color=BASE)
        axes.barh([row + 0.19 for row in rows], languages["retrofitted"], height=0.36, color=colours)
        for row, (_, values) in zip(rows, languages.iterrows(), strict=True):
            end = max(values["base"], values["retrofitted"])
            axes.annotate(
                signed(values["gain"], 3),
                (end, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(list(rows), labels)
        axes.set_ylim(len(languages) - 0.4, -0.6)
        axes.set_xlim(0, 1.14 * max(0.01, float(languages[["base", "retrofitted"]].to_numpy().max())))
        axes.set_xlabel("nDCG@10")
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        return svg(figure, name, "nDCG@10 of each language before and after the retrofit")


def interpolation_curve(candidates: pd.DataFrame, name: str) -> str:
    """Return gain against retention on the validation split for each interpolation weight, the choice marked.

    Args:
        candidates: columns ``weight``, ``gain``, ``retention``, ``chosen``.
        name: of the figure, unique in its page.
    """
    ordered = candidates.sort_values("weight")
    retention, gain = [0.0, *ordered["retention"]], [0.0, *ordered["gain"]]
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.plot(retention, gain, color=SEEN, linewidth=1.4, marker="o", markersize=4)
        chosen = ordered[ordered["chosen"]]
        axes.plot(
            chosen["retention"], chosen["gain"], linestyle="none", marker="o", markersize=11,
            markerfacecolor="none", markeredgecolor=UNSEEN, markeredgewidth=2,
        )  # fmt: skip
        for label, x, y in zip(["base", *(f"{w:g}" for w in ordered["weight"])], retention, gain, strict=True):
            axes.annotate(label, (x, y), xytext=(7, 6), textcoords="offset points", fontsize=8)
        axes.margins(0.18)
        axes.set_xlabel("retention: change on what must not be forgotten")
        axes.set_ylabel("gain of nDCG@10")
        return svg(figure, name, "Gain against retention for each interpolation weight")


def loss_curve(curve: pd.DataFrame, name: str) -> str:
    """Return the training loss by step.

    Args:
        curve: columns ``step`` and ``loss``.
        name: of the figure, unique in its page.
    """
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
        axes = figure.add_subplot()
        # A run of a few steps leaves a point or two: markers keep them visible.
        marker = "o" if len(curve) < 12 else None
        axes.plot(curve["step"], curve["loss"], color=SEEN, linewidth=1.4, marker=marker, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        return svg(figure, name, "Training loss by step")


def count_bars(counts: dict[str, int], what: str, name: str) -> str:
    """Return horizontal bars of counts, in the order given, the first on top.

    Args:
        counts: by label.
        what: is counted; names the axis.
        name: of the figure, unique in its page.
    """
    rows = range(len(counts))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 0.55 + 0.22 * max(1, len(counts))), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(list(rows), list(counts.values()), height=0.7, color=SEEN)
        for row, count in zip(rows, counts.values(), strict=True):
            axes.annotate(
                f"{count:,}", (count, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(list(rows), list(counts))
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.set_xlim(0, 1.2 * max(1, *counts.values(), 0))
        axes.set_xlabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        return svg(figure, name, f"Number of {what}")


def length_histogram(bins: list[str], queries: list[int], passages: list[int], name: str) -> str:
    """Return the shares of queries and passages in each bin of lengths, side by side.

    Args:
        bins: names of the bins.
        queries: how many queries are in each.
        passages: how many passages are in each.
        name: of the figure, unique in its page.
    """
    places = range(len(bins))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for shift, counts, colour in ((-0.2, queries, BASE), (0.2, passages, SEEN)):
            shares = [100 * count / max(1, sum(counts)) for count in counts]
            axes.bar([place + shift for place in places], shares, width=0.38, color=colour)
        axes.set_xticks(list(places), bins, rotation=40, ha="right")
        axes.set_xlabel("tokens")
        axes.set_ylabel("% of texts")
        axes.grid(visible=False, axis="x")
        axes.tick_params(length=0)
        return svg(figure, name, "Lengths of queries and passages in tokens")


def signed(value: float, digits: int = 4) -> str:
    """Return a number with its sign, a real minus; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as SVG for a page: accessible by its label, and with identifiers of its own."""
    buffer = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # Inside a page the namespaces are known, and identifiers must not meet those of another figure.
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|font-family: [^;]*; ", "", text, flags=re.DOTALL)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    for drawn, wanted in PAGE_COLOURS.items():
        text = text.replace(drawn, wanted)
    return text
