"""The figure of one property of queries: synthetic ones beside real ones."""

from __future__ import annotations

import html
import warnings

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retrofit.analysis.figures import BASE, SEEN, STYLE, svg
from retrofit.analysis.pages import words

_WIDTH = 3.4  # inches: four of them stand side by side, or below each other on a phone
_LABEL_LENGTH = 21


def share_bars(shares: pd.DataFrame, name: str, label: str) -> str:
    """Return bars of the shares of synthetic and real queries that have each value, the first on top.

    Args:
        shares: columns ``value``, ``synthetic``, ``real`` in the order to draw.
        name: of the figure, unique in its page.
        label: what the figure shows, for those who do not see it.
    """
    rows = range(len(shares))
    height = 0.6 + 0.26 * max(1, len(shares))
    with style.context(["default", STYLE]), warnings.catch_warnings():
        # First words are of all scripts. The page's fonts have them; that those of the drawing have not is no matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(_WIDTH, height))
        # Room that is fixed, since the widths of such words are not known here.
        axes = figure.add_axes((0.44, 0.45 / height, 0.52, 1 - 0.5 / height))
        for shift, column, colour in ((-0.2, "real", BASE), (0.2, "synthetic", SEEN)):
            axes.barh([row + shift for row in rows], 100 * shares[column], height=0.38, color=colour)
        # A word may have a dollar sign; it is no formula.
        axes.set_yticks(list(rows), [_cut(words(value)) for value in shares["value"]], parse_math=False, fontsize=8.5)
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlim(0, max(1.0, 105 * float(shares[["synthetic", "real"]].to_numpy().max(initial=0))))
        axes.set_xlabel("% of queries")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        return svg(figure, name, html.escape(label))


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"
