"""Figures that every sweep has: the training loss of its points, and what they gained against what they forgot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retrofit.analysis.drawing import INK, MARKERS, SERIES, legend_below, on_paper, panels
from retrofit.analysis.finding_results import DOMAINS, ELSEWHERE, RETENTION, TRAINING, SweepResults
from retrofit.analysis.pages import words
from retrofit.sweep_points import point_axes

_LEGEND_ROW = 0.19  # inches


def loss_curves(results: SweepResults, sweep: str) -> Figure | None:
    """Return the training loss of each point of a sweep by step, mean over seeds; None where none was kept.

    Runs end at steps of their own where their batches differ: a step that a seed has no loss of is not drawn.

    Args:
        results: that hold the sweep.
        sweep: its name.
    """
    curves = results.curves[results.curves["sweep"] == sweep]
    if curves.empty:
        return None
    labels = [label for label in results.labels(sweep) if label in set(curves["point"])]
    with on_paper():
        figure, (panel,) = panels([2.6 + _LEGEND_ROW * len(labels)])
        for place, label in enumerate(labels):
            of_point = curves[curves["point"] == label].pivot_table(index="step", columns="seed", values="loss")
            mean = of_point.dropna().mean(axis=1)
            colour, marker = _look(place)
            panel.plot(mean.index, mean, color=colour, linewidth=1.3, marker=marker, markersize=3.5,
                       markevery=max(1, len(mean) // 6), label=short(label))  # fmt: skip
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_xlabel("step")
        panel.set_ylabel("training loss")
        legend_below(panel, depth=36)
    return figure


def gain_and_forgetting(parts: Mapping[str, Sequence[tuple[SweepResults, str, str | None]]]) -> Figure | None:
    """Return runs by their gain where they were trained and their change on what they were not; None without any.

    Args:
        parts: what is drawn alike, by its name in the legend: results, sweep, and point (None for all of its points).
    """
    found = {name: [_places(*part) for part in sources] for name, sources in parts.items()}
    runs = {name: pd.concat(frames) for name, frames in found.items() if sum(map(len, frames))}
    kinds = [kind for kind in (RETENTION, ELSEWHERE) if any(frame[kind].notna().any() for frame in runs.values())]
    if not kinds:
        return None
    with on_paper():
        figure, drawn = panels([2.5] * (len(kinds) - 1) + [2.6 + _LEGEND_ROW * len(runs)])
        for panel, kind in zip(drawn, kinds, strict=True):
            panel.axhline(0, color=INK, linewidth=0.8)
            panel.axvline(0, color=INK, linewidth=0.8)
            for place, (name, frame) in enumerate(runs.items()):
                colour, marker = _look(place)
                panel.plot(frame["gain"], frame[kind], linestyle="none", marker=marker, markersize=5, color=colour,
                           alpha=0.8, label=name)  # fmt: skip
            panel.set_ylabel(f"change, {DOMAINS[kind]}")
            panel.xaxis.set_major_locator(MaxNLocator(5))
        drawn[-1].set_xlabel(f"gain of nDCG@10, {DOMAINS[TRAINING]}")
        legend_below(drawn[-1], depth=36)
    return figure


def short(label: str) -> str:
    """Return a point as a legend has room for it: the values of its axes, and their names where there are several."""
    point = point_axes(label)
    if len(point) < 2:
        return words(next(iter(point.values()), label))
    return ", ".join(f"{words(axis)} {words(value)}" for axis, value in point.items())


def _places(results: SweepResults, sweep: str, point: str | None) -> pd.DataFrame:
    """Return ``gain``, ``retention`` and ``elsewhere`` of each run; what was not measured is missing."""
    keys = ["point", "seed"]
    runs = results.run_gains(sweep, [TRAINING]).set_index(keys)
    for kind in (RETENTION, ELSEWHERE):
        runs[kind] = results.run_gains(sweep, [kind]).set_index(keys)["gain"]
    runs = runs.reset_index()
    return runs if point is None else runs[runs["point"] == point]


def _look(place: int) -> tuple[str, str]:
    """Return colour and marker of a series; past the last colour they pair anew."""
    return SERIES[place % len(SERIES)], MARKERS[(place + place // len(SERIES)) % len(MARKERS)]
