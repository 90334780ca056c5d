"""The main figure of each finding, drawn from the results of its sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from retrofit.analysis.data_scale_figure import data_scale_figure
from retrofit.analysis.drawing import INK, LINE, MARKERS, PAPER, SERIES, SOFT, legend_below, on_paper, panels
from retrofit.analysis.effects import Effects
from retrofit.analysis.figures import signed
from retrofit.analysis.finding_results import (
    BASE,
    DOMAINS,
    HELD_OUT,
    TRAINING,
    UNSEEN,
    Contrast,
    SweepResults,
    numbered,
    valued,
)
from retrofit.analysis.findings import FINDINGS
from retrofit.analysis.pages import group_words, words
from retrofit.analysis.verdicts import (
    DIVERSITY,
    LANGUAGES,
    LONGER,
    TASKS,
    diversity_effects,
    narrow_and_broad,
    point_name,
    read_as,
    steps_of,
)
from retrofit.sweep_points import point_axes

GAIN = "gain of nDCG@10 over the base"
HEAT = LinearSegmentedColormap.from_list("heat", ["#e9f1fb", "#2368c4"])


def finding_figure(finding: str, results: SweepResults) -> Figure | None:
    """Return the main figure of a finding; None where none of its sweeps was measured.

    Args:
        finding: its id.
        results: of its sweeps.
    """
    sweeps = [sweep for sweep in FINDINGS[finding].sweeps if sweep in results.sweeps]
    if not sweeps:
        return None
    with on_paper():
        return DRAWN[finding](results.of(sweeps))


def wording(finding: str) -> str:
    """Return what the main figure of a finding, or of a sweep of another name, shows, for those who do not see it."""
    return LABELS.get(finding, f"Gain over the base of each point of the sweep {words(finding)}, with 95% intervals")


def gains_figure(results: SweepResults, sweep: str) -> Figure:
    """Return the gains of the points of a sweep, a panel for each domain and a mark for each group.

    Args:
        results: that hold the sweep.
        sweep: its name.
    """
    with on_paper():
        return _gains(results, sweep)


def _gains(results: SweepResults, sweep: str) -> Figure:
    labels = results.labels(sweep)
    rows = {domain: results.groups(sweep, [domain]) for domain in DOMAINS}
    rows = {domain: groups for domain, groups in rows.items() if groups}
    figure, drawn = panels([0.45 + len(labels) * (0.13 + 0.12 * len(groups)) for groups in rows.values()])
    for place, (panel, (domain, groups)) in enumerate(zip(drawn, rows.items(), strict=True)):
        contrasts = [[results.gain(sweep, label, group) for label in labels] for group in groups]
        panel.set_title(DOMAINS[domain])
        panel.set_xlabel(GAIN if panel is drawn[-1] else "")
        _intervals(panel, [point_name(label) for label in labels], contrasts, [group_words(g) for g in groups], place)
    return figure


def _negatives(results: SweepResults) -> Figure | None:
    parts: list[tuple[str, list[str], list[list[Contrast | None]], list[str]]] = []
    for sweep in results.sweeps:
        parts += PARTS[sweep](results, sweep)
    if not parts:  # no two points that are compared are there yet
        return None
    heights = [0.62 + len(rows) * (0.14 + 0.1 * len(groups)) for _, rows, _, groups in parts]
    figure, drawn = panels(heights)
    for place, (panel, (title, rows, contrasts, groups)) in enumerate(zip(drawn, parts, strict=True)):
        _intervals(panel, rows, contrasts, groups, place=0, legend=place == 0)
        panel.set_title(title)
    drawn[-1].set_xlabel("difference of nDCG@10")
    return figure


_Part = tuple[str, list[str], list[list[Contrast | None]], list[str]]


def _by_kind(results: SweepResults, sweep: str) -> list[_Part]:
    reference = valued(results, sweep, "in_batch") or BASE
    labels = [label for label in results.labels(sweep) if label != reference]
    rows = [point_name(label) for label in labels]
    return [
        _part(results, sweep, f"by kind, against {_told(reference)}", rows, [(label, reference) for label in labels])
    ]


def _by_number(results: SweepResults, sweep: str) -> list[_Part]:
    labels = results.labels(sweep)
    others = [against for against in results.comparison.loc[results.comparison["sweep"] == sweep, "against"]
              if against != BASE]  # fmt: skip
    reference = others[0] if others else BASE
    labels = [label for label in labels if label != reference]
    rows = [f"{_told(label)} for each query" for label in labels]
    return [_part(results, sweep, f"by number, against {_told(reference)}", rows,
                  [(label, reference) for label in labels])]  # fmt: skip


def _by_batch(results: SweepResults, sweep: str) -> list[_Part]:
    pairs = []
    for label in results.labels(sweep):
        point = point_axes(label)
        beside = ", ".join(f"{axis}={'in_batch' if axis == 'negatives' else value}" for axis, value in point.items())
        if beside != label and beside in results.labels(sweep):
            pairs.append((label, beside))
    pairs.sort(key=lambda pair: point_axes(pair[0]).get("negatives", ""))  # of one kind the batch sizes in a row
    rows = [
        f"{words(point_axes(label)['negatives'])}, batch {point_axes(label).get('batch_size', '')}"
        for label, _ in pairs
    ]
    return [_part(results, sweep, "by batch size, against in batch", rows, pairs)] if pairs else []


PARTS: dict[str, Callable[[SweepResults, str], list[_Part]]] = {
    "negatives": _by_kind,
    "negatives_per_query": _by_number,
    "batch_size": _by_batch,
}


def _part(results: SweepResults, sweep: str, title: str, rows: list[str], pairs: Sequence[tuple[str, str]]) -> _Part:
    groups = results.groups(sweep, HELD_OUT)
    contrasts = [[results.contrast(sweep, label, against, group) for label, against in pairs] for group in groups]
    return title, rows, contrasts, [read_as(group) for group in groups]


def _told(label: str) -> str:
    return words(", ".join(point_axes(label).values()) or label)


def _diversity(results: SweepResults) -> Figure | None:
    tasks, languages = numbered(results, DIVERSITY, TASKS), numbered(results, DIVERSITY, LANGUAGES)
    rows, columns = sorted(set(tasks.values())), sorted(set(languages.values()))
    if not rows or not columns:
        return None
    gains = results.run_gains(DIVERSITY, HELD_OUT).groupby("point")["gain"].mean()
    grid = np.full((len(rows), len(columns)), np.nan)
    for label, gain in gains.items():
        if label in tasks and label in languages:
            grid[rows.index(tasks[label]), columns.index(languages[label])] = gain
    measured = {sweep: diversity_effects(results, sweep) for sweep in (DIVERSITY, LONGER)}
    effects = {sweep: found for sweep, found in measured.items() if found}
    longer = results.groups(LONGER) if narrow_and_broad(results, LONGER) else []
    heights = [1.6 + 0.3 * len(effects)] * bool(effects) + [0.9 + 0.27 * len(longer)] * bool(longer)
    figure, drawn = panels([0.9 + 0.5 * len(rows), *heights])
    _gains_of_cells(drawn[0], grid, rows, columns)
    if effects:
        _effects(drawn[1], list(effects.values()), [f"{steps_of(results, sweep)} steps" for sweep in effects])
    if longer:
        _broad_against_narrow(drawn[-1], results, longer)
    return figure


def _gains_of_cells(panel: Axes, grid: np.ndarray, rows: Sequence[float], columns: Sequence[float]) -> None:
    """Draw the gain of each number of tasks (rows) and of languages (columns); NaN is a cell that was not measured."""
    low, high = np.nanmin(grid), np.nanmax(grid)
    panel.pcolormesh(grid, cmap=HEAT, vmin=low, vmax=high, edgecolors=PAPER, linewidth=1.5)
    for (row, column), gain in np.ndenumerate(grid):
        dark = not np.isnan(gain) and high > low and (gain - low) / (high - low) > 0.7
        panel.annotate("–" if np.isnan(gain) else signed(gain), (column + 0.5, row + 0.5), ha="center", va="center",
                       color="#fefefe" if dark else "#101214" if not np.isnan(gain) else INK)  # fmt: skip
    panel.set_xticks(np.arange(len(columns)) + 0.5, [f"{n:g}" for n in columns])
    panel.set_yticks(np.arange(len(rows)) + 0.5, [f"{n:g}" for n in rows])
    panel.set_xlabel("languages")
    panel.set_ylabel("tasks")
    panel.set_title("gain, all held-out queries")
    panel.grid(visible=False)
    panel.tick_params(length=0)


def _effects(panel: Axes, effects: Sequence[Effects], lengths: list[str]) -> None:
    """Draw the effects of both factors, a mark for each length of training."""
    for number, found in enumerate(effects):
        shift = 0.3 * (number - (len(effects) - 1) / 2)
        for row, effect in enumerate(found.all):
            _interval(panel, row + shift, effect.estimate, effect.low, effect.high, SERIES[number], MARKERS[number],
                      effect.significant)  # fmt: skip
    names = ["tasks", "languages", "tasks over languages", "interaction"]
    ends = [{_ends(effect.name) for effect in of_all} for of_all in zip(*(found.all for found in effects), strict=True)]
    _rows(panel, [name + (found.pop() if len(found) == 1 else "") for name, found in zip(names, ends, strict=True)])
    panel.set_xlabel("effect on nDCG@10, 95% interval")
    _marks(panel, lengths)


def _broad_against_narrow(panel: Axes, results: SweepResults, groups: list[str]) -> None:
    """Draw what the broadest data add to the narrowest, a mark for each length of training."""
    contrasts, steps = [], []
    for sweep in (DIVERSITY, LONGER):
        ends = narrow_and_broad(results, sweep)
        if ends:
            narrow, broad = ends
            contrasts.append([results.contrast(sweep, broad, narrow, group) for group in groups])
            steps.append(f"{steps_of(results, sweep)} steps")
    panel.set_xlabel("broadest minus narrowest")
    _intervals(panel, [group_words(group) for group in groups], contrasts, steps)


def _ends(name: str) -> str:
    return f", {name.split(': ')[1]}" if ": " in name else ""


def _final(results: SweepResults) -> Figure:
    (sweep,) = results.sweeps
    labels = results.labels(sweep)
    first = valued(results, sweep, "lora") or labels[0]
    groups = results.groups(sweep)
    of_first = results.languages[
        (results.languages["sweep"] == sweep)
        & (results.languages["point"] == first)
        & results.languages["domain"].isin(HELD_OUT)
    ].sort_values("gain")
    of_languages = [1.1 + 0.15 * len(of_first)] if len(of_first) else []
    figure, drawn = panels([0.75 + 0.27 * len(groups), *of_languages])
    _base_and_final(drawn[0], results, sweep, labels, groups)
    if len(of_first):
        _gained_and_lost(drawn[1], of_first["language"], of_first["gain"], of_first["domain"])
        drawn[1].set_title(f"each language held out, {point_name(first)}")
    return figure


def _base_and_final(panel: Axes, results: SweepResults, sweep: str, labels: list[str], groups: list[str]) -> None:
    rows = results.results[results.results["sweep"] == sweep]
    means = rows.groupby(["group", "point"])[["base", "value"]].mean()
    for row, group in enumerate(groups):
        present = [label for label in labels if (group, label) in means.index]
        for label in present:
            place = labels.index(label)
            base, value = (float(means.loc[(group, label), column]) for column in ("base", "value"))
            panel.plot([base], [row], marker="|", markersize=9, markeredgewidth=2, color=SOFT)
            gain = results.gain(sweep, label, group)
            sure = gain is not None and (gain.better or gain.worse)
            height = row + 0.24 * (place - (len(labels) - 1) / 2)
            panel.plot([base, value], [height] * 2, color=SERIES[place], linewidth=1.2)
            panel.plot([value], [height], marker=MARKERS[place], markersize=5, color=SERIES[place],
                       markerfacecolor=SERIES[place] if sure else PAPER)  # fmt: skip
    _rows(panel, [group_words(group) for group in groups], zero=False)
    panel.set_xlabel("nDCG@10")
    panel.set_title("base and final; filled: significant")
    keys = [Line2D([], [], linestyle="none", marker="|", markeredgewidth=2, markersize=9, color=SOFT, label="base")]
    keys += [
        Line2D([], [], marker=marker, color=colour, label=point_name(label))
        for label, colour, marker in zip(labels, SERIES, MARKERS, strict=False)
    ]
    panel.figure.legend(handles=keys, loc="outside upper left", ncols=3, columnspacing=1.2)


def _gained_and_lost(panel: Axes, languages: Sequence[str], gains: Sequence[float], domains: Sequence[str]) -> None:
    for row, (gain, domain) in enumerate(zip(gains, domains, strict=True)):
        panel.barh(row, gain, height=0.7, color=SERIES[0] if domain == TRAINING else SERIES[1],
                   hatch="" if domain == TRAINING else "////", edgecolor=PAPER, linewidth=0)  # fmt: skip
    panel.set_yticks(range(len(languages)), list(languages), fontsize=7.5)
    panel.set_ylim(-0.7, len(languages) - 0.3)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.grid(visible=False, axis="y")
    panel.tick_params(length=0)
    panel.set_xlabel("mean gain of nDCG@10")
    handles = [
        Patch(facecolor=SERIES[place], hatch=hatch, edgecolor=PAPER, linewidth=0, label=DOMAINS[domain].split(", ")[1])
        for place, (domain, hatch) in enumerate(((TRAINING, ""), (UNSEEN, "////")))
        if domain in set(domains)
    ]
    legend_below(panel, handles, depth=36)


def _intervals(
    panel: Axes, rows: list[str], contrasts: list[list[Contrast | None]], groups: list[str], place: int = 0,
    legend: bool = True,
) -> None:  # fmt: skip
    """Draw points with intervals, a row for each point and a mark for each group; filled where significant."""
    for number, of_group in enumerate(contrasts):
        shift = 0.5 * (number - (len(contrasts) - 1) / 2) / max(1, len(contrasts) - 0.5)
        look = (place if len(contrasts) == 1 else number) % len(SERIES)
        for row, contrast in enumerate(of_group):
            if contrast:
                _interval(panel, row + shift, contrast.difference, contrast.low, contrast.high, SERIES[look],
                          MARKERS[look], contrast.better or contrast.worse)  # fmt: skip
    _rows(panel, rows)
    if legend:
        _marks(panel, groups)


def _marks(panel: Axes, names: list[str]) -> None:
    """Say below a panel which mark is what, where there are several."""
    if len(names) > 1:
        handles = [
            Line2D([], [], color=SERIES[n % len(SERIES)], marker=MARKERS[n % len(MARKERS)], markersize=4.5, label=name)
            for n, name in enumerate(names)
        ]
        legend_below(panel, handles, depth=36 if panel.get_xlabel() else 20)


def _interval(
    panel: Axes, row: float, middle: float, low: float, high: float, colour: str, marker: str, significant: bool
) -> None:
    panel.plot([low, high], [row, row], color=colour, linewidth=1.6, solid_capstyle="round")
    panel.plot([middle], [row], marker=marker, markersize=5, color=colour,
               markerfacecolor=colour if significant else PAPER, markeredgewidth=1.3)  # fmt: skip


def _rows(panel: Axes, names: list[str], zero: bool = True) -> None:
    """Name the rows of a panel, the first on top."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.45, -0.55)
    panel.grid(visible=False, axis="y")
    panel.tick_params(length=0)
    for row in range(1, len(names)):
        panel.axhline(row - 0.5, color=LINE, linewidth=0.5)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    if zero:
        panel.axvline(0, color=INK, linewidth=0.8)


DRAWN: dict[str, Callable[[SweepResults], Figure | None]] = {
    "F1": lambda results: _gains(results, results.sweeps[0]),
    "F2": data_scale_figure,
    "F3": _negatives,
    "F4": _diversity,
    "F5": _final,
}

LABELS = {
    "F1": "Gain over the base of each source of training pairs, by what it is measured on, with 95% intervals",
    "F2": "Gain against pairs of each language on a logarithmic axis, with the fitted curves and where they level off",
    "F3": "Difference to in-batch negatives by kind, number for each query and batch size, with 95% intervals",
    "F4": "Gain by number of tasks and of languages at equal budget, the effects of both and what both add in longer "
    "training, with 95% intervals",
    "F5": "Base and final score of each group, gain of each language",
}
