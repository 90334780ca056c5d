"""The main figure of F2: gains against amounts of data, and the saturating curves through them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from retrofit.analysis.drawing import MARKERS, SERIES, legend_below, panels
from retrofit.analysis.finding_results import DOMAINS, HELD_OUT, SweepResults, pairs_of_each_language
from retrofit.analysis.pages import words
from retrofit.analysis.saturation import Saturation
from retrofit.analysis.verdicts import SIZE, data_scale_fits


def data_scale_figure(results: SweepResults) -> Figure | None:
    """Return a panel for each sweep over amounts of data; None where there is none.

    Args:
        results: of the sweeps of F2.
    """
    sizes_of = {sweep: pairs_of_each_language(results, sweep, SIZE) for sweep in results.sweeps}
    sizes_of = {sweep: sizes for sweep, sizes in sizes_of.items() if sizes}
    if not sizes_of:
        return None
    figure, drawn = panels([3.9] * len(sizes_of))
    for panel, (sweep, sizes) in zip(drawn, sizes_of.items(), strict=True):
        fits = data_scale_fits(results, sweep)
        for domain, colour, marker in zip(HELD_OUT, SERIES, MARKERS, strict=False):
            runs = results.run_gains(sweep, [domain])
            if len(runs):
                panel.plot(runs["point"].map(sizes), runs["gain"], linestyle="none", marker=marker, markersize=4.5,
                           color=colour, alpha=0.75, label=DOMAINS[domain])  # fmt: skip
            if domain in fits and not fits[domain].falls:
                _curve(panel, fits[domain], colour)
        panel.set_xscale("log")
        labels = {f"{n:,.0f}": n for n in sizes.values()}  # of two caps above what there is one
        panel.set_xticks(list(labels.values()), list(labels), rotation=35, ha="right")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_ylabel("gain of nDCG@10")
        panel.set_xlabel("pairs of each language")
        panel.set_title(words(sweep))
        legend_below(panel, depth=56)
    return figure


def _curve(panel: Axes, fit: Saturation, colour: str) -> None:
    """Draw a curve, where it levels off, and the interval of that as far as it was measured."""
    least, most = fit.measured
    amounts = np.geomspace(least, most, 200)
    panel.plot(amounts, fit.at(amounts), color=colour, linewidth=1.4, label=f"fitted {fit.form}")
    if fit.plateau <= most:
        panel.axvline(fit.plateau, color=colour, linewidth=1, linestyle="--",
                      label=f"95% of its asymptote: {fit.plateau:,.0f} pairs")  # fmt: skip
    if fit.low < most:
        panel.axvspan(fit.low, min(fit.high, most), color=colour, alpha=0.15, linewidth=0)
