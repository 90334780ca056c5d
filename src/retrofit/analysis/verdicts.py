"""What measured results say about each finding: the rules, and the sentences that are made of the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from retrofit.analysis.comparison import SEEN_GROUP, UNSEEN_GROUP
from retrofit.analysis.effects import Effect, Effects, factorial_effects
from retrofit.analysis.figures import signed
from retrofit.analysis.finding_results import (
    DOMAINS,
    ELSEWHERE,
    HELD_OUT,
    RETENTION,
    SEVERAL,
    TRAINING,
    UNSEEN,
    Contrast,
    SweepResults,
    numbered,
    pairs_of_each_language,
    valued,
)
from retrofit.analysis.findings import FINDINGS, NOT_MEASURED, Check, Verdict
from retrofit.analysis.pages import group_words, words
from retrofit.analysis.saturation import Saturation, saturation
from retrofit.sweep_points import point_axes

HARDLY = 0.5
"""A source gains hardly anything where it surely gains less than this share of what the other does."""

LEVEL = 0.01
"""Two ways to train are level where one is surely worse by less than this, of nDCG@10."""

ENOUGH = 4_000
"""Examples of each language beyond which the paper found little."""

NOT_MINED = ("in_batch", "random", "given")
SIZE, TASKS, LANGUAGES = "pairs_per_language", "n_tasks", "n_languages"
DIVERSITY, LONGER = "diversity", "diversity_longer"


def verdict(finding: str, results: SweepResults | None) -> Verdict:
    """Return what results say about a finding.

    Args:
        finding: its id.
        results: of its sweeps; None where there are none.
    """
    missing = Verdict(NOT_MEASURED, (f"There are no results in experiments/{FINDINGS[finding].folder} yet.",), ())
    if results is None:
        return missing
    present = [sweep for sweep in FINDINGS[finding].sweeps if sweep in results.sweeps]
    measured = [sweep for sweep in present if results.seeds(sweep) >= SEVERAL]
    if present and not measured:
        return Verdict(NOT_MEASURED, ("There is one seed only, which tells no finding from chance.",), ())
    return RULES[finding](results.of(measured)) if measured else missing


def data_scale_fits(results: SweepResults, sweep: str) -> dict[str, Saturation]:
    """Return the curves through the gains of a sweep over amounts of data, by domain of what was held out."""
    sizes = pairs_of_each_language(results, sweep, SIZE)
    fits = {}
    for domain in HELD_OUT:
        runs = results.run_gains(sweep, [domain])
        runs = runs.assign(n=runs["point"].map(sizes)).dropna()
        fit = saturation(runs) if len(runs) else None
        if fit is not None:
            fits[domain] = fit
    return fits


def diversity_effects(results: SweepResults, sweep: str) -> Effects | None:
    """Return what more tasks and more languages do, over all held-out queries."""
    runs = results.run_gains(sweep, HELD_OUT)
    for axis in (TASKS, LANGUAGES):
        runs[axis] = runs["point"].map(numbered(results, sweep, axis))
    runs = runs.dropna()
    return factorial_effects(runs, TASKS, LANGUAGES) if len(runs) else None


def narrow_and_broad(results: SweepResults, sweep: str) -> tuple[str, str] | None:
    """Return the points of the fewest tasks and languages and of the most; None where a sweep lacks one of them."""
    tasks, languages = numbered(results, sweep, TASKS), numbered(results, sweep, LANGUAGES)
    points = {(n, languages[label]): label for label, n in tasks.items() if label in languages}
    if not points:
        return None
    narrow, broad = (points.get((end(n for n, _ in points), end(n for _, n in points))) for end in (min, max))
    return (narrow, broad) if narrow and broad and narrow != broad else None


def steps_of(results: SweepResults, sweep: str) -> int:
    """Return how many steps the runs of a sweep took, the longest of them."""
    return int(results.points.loc[results.points["sweep"] == sweep, "steps"].max())


def told(contrast: Contrast) -> str:
    """Return a contrast in figures: difference, interval, seeds and p."""
    has_interval = math.isfinite(contrast.width)
    interval = f"{signed(contrast.low)} to {signed(contrast.high)}" if has_interval else "no interval"
    seeds = f"up in {contrast.seeds_up} of {contrast.seeds} seed{'s' if contrast.seeds != 1 else ''}"
    p = "from two intervals" if math.isnan(contrast.p) else told_p(contrast.p)
    return f"{signed(contrast.difference)} ({interval}; {seeds}; {p})"


def told_p(p: float) -> str:
    """Return a corrected p-value in words."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def point_name(label: str) -> str:
    """Return a point as it is read: the value of its only axis, or all of them."""
    values = point_axes(label)
    return words(next(iter(values.values()))) if len(values) == 1 else words(label)


def read_as(group: str) -> str:
    """Return a group as it is read."""
    names = {SEEN_GROUP: DOMAINS[TRAINING], UNSEEN_GROUP: DOMAINS[UNSEEN]}
    return names.get(group, group_words(group))


def _data_source(results: SweepResults) -> Verdict:
    (sweep,) = results.sweeps
    synthetic, parallel = valued(results, sweep, "synthetic"), valued(results, sweep, "bitext", "parallel", "opus_100")
    checks, sentences = [], []
    for group in results.groups(sweep, HELD_OUT):
        decisive = group in results.groups(sweep, [TRAINING])
        lifts = results.gain(sweep, synthetic, group) if synthetic else None
        beside = results.gain(sweep, parallel, group) if parallel else None
        over = results.contrast(sweep, synthetic, parallel, group) if synthetic and parallel else None
        checks.append(_check(f"synthetic pairs gain over the base on {read_as(group)}", lifts, decisive=decisive))
        checks.append(_check(f"synthetic pairs gain more than parallel texts on {read_as(group)}", over))
        hardly = None
        if lifts and beside:
            hardly = lifts.better and beside.high < HARDLY * lifts.difference
        figures = f": {told(beside)}" if beside else ""
        checks.append(Check(f"parallel texts surely gain less than half of it on {read_as(group)}{figures}", hardly))
        if lifts and decisive:
            rest = f", parallel texts by {told(beside)}" if beside else ""
            sentences.append(f"Synthetic pairs change the base by {told(lifts)}{rest}, on {read_as(group)}.")
    return _verdict(checks, sentences)


def _data_scale(results: SweepResults) -> Verdict:
    checks, sentences = [], []
    for sweep in results.sweeps:
        sizes = pairs_of_each_language(results, sweep, SIZE)
        points = list(sizes)
        if len(points) < 2:
            continue
        where = f" ({words(sweep)})"
        least, most = points[0], points[-1]
        grown = {group: results.contrast(sweep, most, least, group) for group in results.groups(sweep, HELD_OUT)}
        span = f"{sizes[most]:,.0f} pairs of each language gain more than {sizes[least]:,.0f}"
        checks += [_check(f"{span} on {read_as(group)}{where}", grows) for group, grows in grown.items()]
        told_apart = [grows for grows in grown.values() if grows and grows.seeds >= SEVERAL]
        if told_apart:
            rises = any(grows.better for grows in told_apart)
            decisive = sweep == "data_scale" or len(results.sweeps) == 1
            checks.append(Check(f"{span} on held-out texts of some languages{where}", rises, decisive=decisive))
        for group, grows in grown.items():
            if grows:
                sentences.append(f"From {sizes[least]:,.0f} to {sizes[most]:,.0f} pairs of each language the gain on "
                                 f"{read_as(group)} rises by {told(grows)}{where}.")  # fmt: skip
        fits = data_scale_fits(results, sweep)
        if TRAINING not in fits:
            checks.append(Check(f"the gain levels off{where}: too few amounts to fit a curve", None))
        for domain, fit in fits.items():
            figures, on = told_plateau(fit), f" on {DOMAINS[domain]}{where}"
            checks.append(Check(f"the gain levels off within what was measured{on}: {figures}", fit.reached))
            checks.append(
                Check(
                    f"it does so by about {ENOUGH:,} pairs of each language{on}: {figures}",
                    fit.reached and fit.high <= ENOUGH,
                )
            )
            sentences.append(f"A saturating curve{on} ({fit.form}, R² {fit.explained:.2f}) {figures}.")
    return _verdict(checks, sentences)


def told_plateau(fit: Saturation) -> str:
    """Return where a curve levels off, and how sure that is."""
    if fit.falls:
        return "does not describe gains that fall again"
    return (
        f"reaches 95% of its asymptote of {signed(fit.asymptote)} with {_amount(fit.plateau, fit)} pairs of each "
        f"language (95%: {_amount(fit.low, fit)} to {_amount(fit.high, fit)})"
    )


def _amount(n: float, fit: Saturation) -> str:
    least, most = fit.measured
    if n > 10 * most:  # so far outside of what was measured that the number itself says nothing
        return f"more than {10 * most:,.0f}"
    return f"at most {least:,.0f}" if n <= least else f"{n:,.0f}"


def _negatives(results: SweepResults) -> Verdict:
    sweep = "negatives"
    if sweep not in results.sweeps:
        return _verdict([], [])
    in_batch, teacher = valued(results, sweep, "in_batch"), valued(results, sweep, "teacher")
    # A teacher's negatives are filtered, so it is compared with the same model's filtered ones where there are.
    weaker = valued(results, sweep, "dense_filtered") or valued(results, sweep, "dense")
    others = {valued(results, sweep, kind) for kind in NOT_MINED}
    mined = [label for label in results.labels(sweep) if label not in others]
    checks, sentences = [], []
    for group in results.groups(sweep, HELD_OUT):
        found = [results.contrast(sweep, label, in_batch, group) for label in mined] if in_batch else []
        contrasts = [contrast for contrast in found if contrast]
        if contrasts:
            best = max(contrasts, key=lambda contrast: contrast.difference)
            ups = [point_name(contrast.point) for contrast in contrasts if contrast.better]
            downs = [point_name(contrast.point) for contrast in contrasts if contrast.worse]
            says = f"some mined negatives improve over in-batch ones on {read_as(group)}: the best are "
            says += f"{point_name(best.point)}, {told(best)}"
            decisive = group in results.groups(sweep, [TRAINING])
            checks.append(Check(says, any(contrast.better for contrast in contrasts), decisive=decisive))
            every = f"all {len(contrasts)} kinds do so ({_listed(ups) or 'none'} do)"
            checks.append(Check(f"{every} on {read_as(group)}", len(ups) == len(contrasts)))
            lost = f"; significantly below them: {_listed(downs)}" if downs else ""
            if decisive:
                sentences.append(f"{len(ups)} of {len(contrasts)} kinds of mined negatives improve over in-batch ones; "
                                 f"the best, {point_name(best.point)}, by {told(best)}{lost}.")  # fmt: skip
        stronger = results.contrast(sweep, teacher, weaker, group) if teacher and weaker else None
        checks.append(_check(f"a teacher mines better negatives than the model itself on {read_as(group)}", stronger))
        if stronger and group in results.groups(sweep, [TRAINING]):
            sentences.append(f"Those of a teacher change what the model's own do by {told(stronger)}.")
    return _verdict(checks, sentences)


def _diversity(results: SweepResults) -> Verdict:
    effects = diversity_effects(results, DIVERSITY)
    if effects is None:
        return _verdict([], [])
    over, tasks = effects.first_over_second, effects.first
    checks = [
        Check(f"more tasks add more than more languages: {_told_effect(over)}", _up(over), decisive=True),
        Check(f"more tasks add something: {_told_effect(tasks)}", _up(tasks)),
    ]
    told_effects = _told_effects(results, DIVERSITY, effects, "At equal budget, over all held-out queries,")
    return _verdict(checks, [*told_effects, *_diversity_of_longer_training(results)])


def _diversity_of_longer_training(results: SweepResults) -> list[str]:
    """Return what tasks and languages add where training takes longer: an explanation, not a check."""
    ends = narrow_and_broad(results, LONGER)
    if not ends:
        return []
    narrow, broad = ends
    beside = {group: results.contrast(LONGER, broad, narrow, group) for group in results.groups(LONGER, HELD_OUT)}
    names, steps = f"{point_name(broad)} against {point_name(narrow)}", steps_of(results, LONGER)
    sentences = [
        f"In {steps} steps {names} is at {told(contrast)} on {read_as(group)}."
        for group, contrast in beside.items()
        if contrast
    ]
    effects = diversity_effects(results, LONGER)
    if effects is not None:
        sentences += _told_effects(results, LONGER, effects, f"In {steps} steps")
    return sentences


def _told_effects(results: SweepResults, sweep: str, effects: Effects, where: str) -> list[str]:
    return [
        f"{where} {_span(effects.first, 'tasks')} add {_told_effect(effects.first)}, "
        f"{_span(effects.second, 'languages')} {_told_effect(effects.second)}.",
        f"The difference is {_told_effect(effects.first_over_second)}, the interaction "
        f"{_told_effect(effects.interaction)}, {told_p(effects.p_interaction)} for all its terms "
        f"({results.seeds(sweep)} seeds as blocks, {effects.degrees} degrees of freedom).",
    ]


def _span(effect: Effect, what: str) -> str:
    return f"from {effect.name.split(': ')[1]} {what}"


def _up(effect: Effect) -> bool:
    return effect.significant and effect.estimate > 0


def _told_effect(effect: Effect) -> str:
    return f"{signed(effect.estimate)} ({signed(effect.low)} to {signed(effect.high)}; {told_p(effect.p)})"


def _final(results: SweepResults) -> Verdict:
    (sweep,) = results.sweeps
    lora, full = valued(results, sweep, "lora"), valued(results, sweep, "full")
    point = lora or full or results.labels(sweep)[0]
    checks, sentences = [], []
    for group in results.groups(sweep, HELD_OUT):
        gain = results.gain(sweep, point, group)
        decisive = group in results.groups(sweep, [TRAINING])
        checks.append(_check(f"{point_name(point)} gains over the base on {read_as(group)}", gain, decisive=decisive))
        if gain:
            sentences.append(f"{read_as(group).capitalize()}: the base changes by {told(gain)}.")
    others = [results.gain(sweep, point, group) for group in results.groups(sweep, (RETENTION, ELSEWHERE))]
    measured = [gain for gain in others if gain]
    if measured:
        risen = [read_as(gain.group) for gain in measured if gain.better]
        fallen = [read_as(gain.group) for gain in measured if gain.worse]
        says = f"nothing falls significantly of {len(measured)} groups of retention and elsewhere: "
        says += f"{_listed(fallen) or 'none'} fell"
        checks.append(Check(says, not fallen))
        sentences.append(f"Of {len(measured)} groups it was not trained for, {len(risen)} rise and {len(fallen)} fall "
                         f"significantly{f' ({_listed(fallen)})' if fallen else ''}.")  # fmt: skip
    checks += _against_full(results, sweep, lora, full, sentences)
    checks.append(Check("it does on MMTEB retrieval what models of 7B do: MMTEB was not measured", None))
    sentences.append("Models of 7B and MMTEB were not measured.")
    return _verdict(checks, sentences)


def _against_full(
    results: SweepResults, sweep: str, lora: str | None, full: str | None, sentences: list[str]
) -> list[Check]:
    """Return whether LoRA is as good as training every weight, and add the figures to the sentences.

    What each takes is a question for ``benchmarks/``: runs of a sweep have other work beside them.
    """
    checks = []
    for group in results.groups(sweep, [TRAINING]):
        beside = results.contrast(sweep, lora, full, group) if lora and full else None
        if beside:
            says = f"LoRA is worse than full fine-tuning by less than {LEVEL} on {read_as(group)}: {told(beside)}"
            checks.append(Check(says, False if beside.worse else True if beside.low > -LEVEL else None))
            sentences.append(f"Against full fine-tuning it is at {told(beside)} on {read_as(group)}.")
    return checks or [Check("LoRA is as good as training every weight", None)]


def _check(says: str, contrast: Contrast | None, decisive: bool = False) -> Check:
    if contrast is None or contrast.seeds < SEVERAL:
        return Check(says, None, decisive)
    return Check(f"{says}: {told(contrast)}", contrast.better, decisive)


def _verdict(checks: list[Check], sentences: list[str]) -> Verdict:
    return Verdict.from_checks(checks, sentences or ["What decides it has not been measured."])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


RULES: dict[str, Callable[[SweepResults], Verdict]] = {
    "F1": _data_source,
    "F2": _data_scale,
    "F3": _negatives,
    "F4": _diversity,
    "F5": _final,
}
