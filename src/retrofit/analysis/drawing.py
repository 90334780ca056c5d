"""How figures of sweeps are drawn: once, in the colours of paper, for a page, for a file of its own and as pixels.

A page puts its own ink in place of the paper's, so that it can be light or dark; a file keeps the paper's, since what
shows a file (a README, a slide) knows no style sheet.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from retrofit.analysis.figures import STYLE, WIDTH, svg
from retrofit.artefacts import write_text, written_aside

INK, SOFT, LINE, PAPER = "#1b1f24", "#57606a", "#d5d9df", "#ffffff"
_ON_A_PAGE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--page)"}

SERIES = (
    "#3b7fc4", "#cf6a0c", "#2b9157", "#b5459b", "#8a6d3b", "#0b8f98", "#c43b3b", "#6b6fd6", "#76808a",
)  # fmt: skip
"""Told from each other, and from a light page and a dark one by a contrast of 3 and more."""

MARKERS = "osD^vPX*h"
"""One for each colour: no figure rests on colour alone."""

PAPER_STYLE = STYLE | {
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
}


def on_paper() -> AbstractContextManager[None]:
    """Return the context in which figures are drawn and written: the style of all of them."""
    context: AbstractContextManager[None] = style.context(["default", PAPER_STYLE])
    return context


def panels(heights: Sequence[float], width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels one below the other, as a phone needs them.

    Args:
        heights: of the panels with their labels, inches.
        width: of all of them, inches.
    """
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    grid = figure.subplots(len(heights), 1, height_ratios=list(heights), squeeze=False)
    return figure, [axes for row in grid for axes in row]


def legend_below(panel: Axes, handles: Sequence[Artist] | None = None, depth: float = 20) -> None:
    """Put the legend of a panel under its axis.

    Args:
        panel: that is drawn.
        handles: of the legend; None for all that have a label.
        depth: points that the numbers of the axis, and its label, take up.
    """
    under = offset_copy(panel.transAxes, panel.get_figure(root=True), y=-depth, units="points")
    panel.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.02, 0), bbox_transform=under, handlelength=1.5)


def _settle(figure: Figure) -> None:
    """Lay a figure out once, to four digits: the solver's last ones differ from one time to the next."""
    if figure.get_layout_engine() is None:
        return
    for _ in range(2):  # a legend below a panel moves as the panel shrinks for it
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(side, 4) for side in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


def page_svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an SVG element for a page, in the colours of the page.

    Args:
        figure: of :func:`panels`.
        name: of the figure, unique in its page.
        label: says what it shows to those who do not see it.
    """
    figure.patch.set_visible(False)
    with on_paper():
        _settle(figure)
        text = svg(figure, name, html.escape(label))
    figure.patch.set_visible(True)
    for drawn, wanted in _ON_A_PAGE.items():
        text = text.replace(drawn, wanted)
    return text


def write_figure(figure: Figure, folder: Path, label: str) -> list[Path]:
    """Write ``figure.svg`` and ``figure.png`` into a folder and return their paths; the same figure, the same bytes."""
    with on_paper():
        _settle(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
        text = buffer.getvalue()
        named = text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
        write_text(folder / "figure.svg", "\n".join(line.rstrip() for line in named.splitlines()) + "\n")
        with written_aside(folder / "figure.png") as partial:
            FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=160, metadata={"Software": None})
    return [folder / "figure.svg", folder / "figure.png"]
