"""The sampling plan: deterministic, proportional, and fair within a stratum."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.sampling import Homogeneous, Mixture, SamplingPlan, steps_of_passes
from retrofit.data.selection import Stratum

Strata = dict[Stratum, np.ndarray]


def laid_out(sizes: list[int]) -> Strata:
    """Strata of these sizes, whose rows follow one another; every second one shares task and every third languages."""
    starts = np.cumsum([0, *sizes])
    return {
        (f"task {number % 2}", f"language {number // 2}", f"language {number // 2}"): np.arange(start, start + size)
        for number, (start, size) in enumerate(zip(starts, sizes, strict=False))
    }


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda sizes: max(sizes) > 1)
MIXTURES = st.builds(
    Mixture,
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([{}, {"task 0": 3.0}, {"task 1": 0.25}]),
    st.sampled_from(get_args(Homogeneous)),
)
PLANS = st.fixed_dictionaries(
    {
        "strata": SIZES.map(laid_out),
        "batch_size": st.integers(2, 12),
        "steps": st.integers(1, 60),
        "mixture": MIXTURES,
        "seed": st.integers(0, 1000),
    }
)


def stratum_of(strata: Strata, row: int) -> Stratum:
    (key,) = (key for key, rows in strata.items() if row in rows)
    return key


def shares_by_hand(mixture: Mixture, sizes: dict[Stratum, int]) -> dict[Stratum, float]:
    """Each stratum's share, computed the long way from the formula of the docstring."""
    tasks = sorted({key[0] for key in sizes})
    mass = {}
    for task in tasks:
        pairs = sum(size for key, size in sizes.items() if key[0] == task)
        mass[task] = mixture.task_weights.get(task, 1.0) * pairs**mixture.alpha_task
    shares = {}
    for key, size in sizes.items():
        within = sum(other**mixture.alpha_language for name, other in sizes.items() if name[0] == key[0])
        shares[key] = mass[key[0]] / sum(mass.values()) * size**mixture.alpha_language / within
    return shares


@given(PLANS, st.data())
def test_a_step_is_a_pure_function_of_its_number(arguments: dict, data: st.DataObject) -> None:
    plan, again = SamplingPlan(**arguments), SamplingPlan(**arguments)
    batches = [plan.batch(step) for step in range(len(plan))]
    for step in data.draw(st.permutations(range(len(plan)))):
        asked = again.batch(step)
        np.testing.assert_array_equal(asked.rows, batches[step].rows)
        np.testing.assert_array_equal(asked.visits, batches[step].visits)


@given(PLANS)
def test_a_batch_holds_distinct_rows_that_share_what_they_should(arguments: dict) -> None:
    plan, strata, mixture = SamplingPlan(**arguments), arguments["strata"], arguments["mixture"]
    assert len(plan) == arguments["steps"]
    for step in range(len(plan)):
        batch = plan.batch(step)
        assert len(batch.rows) == len(batch.visits)
        assert len(set(batch.rows.tolist())) == len(batch.rows) <= arguments["batch_size"]
        keys = [stratum_of(strata, row) for row in batch.rows.tolist()]
        assert all(len(strata[key]) > 1 for key in keys)
        assert len({key[0] for key in keys}) == 1 or mixture.homogeneous in ("language", "mixed")
        assert len({key[1:] for key in keys}) == 1 or mixture.homogeneous in ("task", "mixed")
        if mixture.homogeneous == "both":
            assert len(batch.rows) == min(arguments["batch_size"], len(strata[keys[0]]))


@given(SIZES.map(laid_out), MIXTURES, st.integers(0, 100))
def test_shares_follow_the_formula(strata: Strata, mixture: Mixture, seed: int) -> None:
    sizes = {key: len(rows) for key, rows in strata.items() if len(rows)}
    shares = mixture.shares(sizes)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == pytest.approx(shares_by_hand(mixture, sizes))


@given(PLANS)
def test_strata_get_the_draws_they_are_due(arguments: dict) -> None:
    """Realised proportions are the asked ones to within what whole steps, and whole draws, allow."""
    plan, strata, mixture = SamplingPlan(**arguments), arguments["strata"], arguments["mixture"]
    sizes = {key: len(rows) for key, rows in strata.items() if len(rows) > 1}
    shares = shares_by_hand(mixture, sizes)
    steps_of: Counter[Stratum] = Counter()
    draws: Counter[Stratum] = Counter()
    for step in range(len(plan)):
        rows = plan.batch(step).rows.tolist()
        steps_of[mixture.batch_key(stratum_of(strata, rows[0]))] += 1
        draws.update(stratum_of(strata, row) for row in rows)
    due = Counter[Stratum]()
    for key, share in shares.items():
        due[mixture.batch_key(key)] += share  # type: ignore[assignment]
    for group, share in due.items():
        assert abs(steps_of[group] - share * len(plan)) < 1 + 1e-9
    for key, share in shares.items():
        group = mixture.batch_key(key)
        members = [other for other in sizes if mixture.batch_key(other) == group]
        size = min(arguments["batch_size"], sum(sizes[other] for other in members))
        expected = share / due[group] * steps_of[group] * size
        # A pair that a batch would hold twice, where a pass ends in it, is left out: at most one pass less.
        passes = expected // sizes[key] + 1
        assert draws[key] < expected + 1 + 1e-9
        if len(members) == 1 or expected < sizes[key]:
            assert draws[key] > expected - 1 - 1e-9
        else:
            assert draws[key] > expected - 1 - passes * size


@given(PLANS)
def test_no_pair_is_used_twice_before_the_others_are_used_once(arguments: dict) -> None:
    plan, strata = SamplingPlan(**arguments), arguments["strata"]
    drawn: set[tuple[int, int]] = set()
    newest: Counter[Stratum] = Counter()
    for step in range(len(plan)):
        batch = plan.batch(step)
        for row, visit in zip(batch.rows.tolist(), batch.visits.tolist(), strict=True):
            assert (row, visit) not in drawn
            drawn.add((row, visit))
            key = stratum_of(strata, row)
            assert visit in (newest[key], newest[key] + 1) or arguments["mixture"].homogeneous != "both"
            newest[key] = max(visit, newest[key])
    if arguments["mixture"].homogeneous == "both":
        for key, last in newest.items():
            for visit in range(last):
                assert all((row, visit) in drawn for row in strata[key].tolist())


@pytest.mark.parametrize("batch_size", [2, 3, 6, 12, 15, 20])
def test_every_pass_uses_every_pair_once(batch_size: int) -> None:
    plan = SamplingPlan(laid_out([20]), batch_size, 3 * 20 // batch_size, Mixture(), 0)
    drawn = np.concatenate([plan.batch(step).rows for step in range(len(plan))])
    passes = drawn.reshape(3, 20).tolist()
    assert [sorted(rows) for rows in passes] == [list(range(20))] * 3
    assert len({tuple(rows) for rows in passes}) == 3


def test_a_mixed_pass_uses_every_pair_once() -> None:
    plan = SamplingPlan(laid_out([12, 4, 8]), 4, 6, Mixture(1.0, 1.0, {}, "mixed"), 3)
    drawn = np.concatenate([plan.batch(step).rows for step in range(len(plan))])
    assert sorted(drawn.tolist()) == list(range(24))
    assert drawn.tolist() != sorted(drawn.tolist())


def test_a_small_stratum_gives_batches_of_its_own_size() -> None:
    strata = laid_out([3, 50])
    plan = SamplingPlan(strata, 8, 20, Mixture(0.0, 0.0), 0)
    sizes = {stratum_of(strata, plan.batch(step).rows[0])[0]: len(plan.batch(step).rows) for step in range(20)}
    assert sizes == {"task 0": 3, "task 1": 8}


@given(PLANS, st.sampled_from([0.1, 1.0, 2.5, 40.0]))
def test_a_pass_draws_as_many_pairs_as_there_are(arguments: dict, passes: float) -> None:
    strata, size, mixture = arguments["strata"], arguments["batch_size"], arguments["mixture"]
    steps = steps_of_passes(strata, size, passes, mixture)
    plan = SamplingPlan(**arguments | {"steps": steps})
    # A batch of several strata may hold a pair twice, and leaves it out: so by what is asked for.
    drawn = sum(plan._group(step)._size for step in range(steps))
    pairs = sum(len(rows) for rows in strata.values() if len(rows) > 1)
    assert steps >= 1
    # Steps are whole, and each group has a whole number of them.
    assert abs(drawn - passes * pairs) <= size * (len(strata) + 1)


def test_where_strata_are_small_more_steps_make_a_pass() -> None:
    assert steps_of_passes(laid_out([64] * 10), 64, 1, Mixture()) == 10
    assert steps_of_passes(laid_out([16] * 10), 64, 1, Mixture()) == 10
    assert steps_of_passes(laid_out([16] * 8), 64, 1, Mixture(homogeneous="mixed")) == 2
    with pytest.raises(ValueError, match="two pairs"):
        steps_of_passes(laid_out([1, 1]), 4, 1, Mixture())


def test_strata_are_mixed_and_seeds_differ() -> None:
    strata = laid_out([40, 40])
    plans = [SamplingPlan(strata, 8, 20, Mixture(1.0, 1.0), seed) for seed in (0, 1)]
    order = [[stratum_of(strata, plan.batch(step).rows[0]) for step in range(20)] for plan in plans]
    assert order[0] != sorted(order[0])
    assert order[0] != order[1]
    assert {tuple(plans[0].batch(step).rows) for step in range(20)} != {
        tuple(plans[1].batch(step).rows) for step in range(20)
    }


@pytest.mark.parametrize("sizes", [[], [1], [0, 1, 1]])
def test_no_stratum_with_two_pairs_is_an_error(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="two pairs"):
        SamplingPlan(laid_out(sizes), 4, 10, Mixture(), 0)


def test_a_weight_of_zero_leaves_a_task_out() -> None:
    strata = laid_out([10, 10])
    plan = SamplingPlan(strata, 4, 9, Mixture(task_weights={"task 0": 0.0}), 0)
    assert {stratum_of(strata, row)[0] for step in range(9) for row in plan.batch(step).rows} == {"task 1"}


@given(PLANS, st.integers(0, 60))
def test_a_sample_is_of_what_the_batch_is_drawn_from(arguments: dict, count: int) -> None:
    plan, strata, mixture = SamplingPlan(**arguments), arguments["strata"], arguments["mixture"]
    group = mixture.batch_key(stratum_of(strata, plan.batch(0).rows[0]))
    pool = {row for key, rows in strata.items() if len(rows) > 1 and mixture.batch_key(key) == group for row in rows}
    sample = plan.sample(0, count, np.random.default_rng(0)).tolist()
    assert len(set(sample)) == len(sample) == min(count, len(pool))
    assert set(sample) <= pool


def test_a_plan_of_many_pairs_takes_their_row_numbers_and_little_more() -> None:
    import tracemalloc

    strata = laid_out([200_000, 100_000])
    tracemalloc.start()
    plan = SamplingPlan(strata, 64, 300_000 // 64, Mixture(homogeneous="mixed"), 0)
    plan.batch(len(plan) - 1)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 300_000 * 16 + 500_000
