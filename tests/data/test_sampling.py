"""The sampling plan: deterministic, proportional, and fair within a stratum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data.sampling import SamplingPlan
from retrofit.data.selection import Stratum

Strata = dict[Stratum, np.ndarray]


def laid_out(sizes: list[int]) -> Strata:
    """Strata of these sizes, whose rows follow one another."""
    starts = np.cumsum([0, *sizes])
    return {
        (f"task {number % 2}", f"language {number}", f"language {number}"): np.arange(start, start + size)
        for number, (start, size) in enumerate(zip(starts, sizes, strict=False))
    }


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda sizes: max(sizes) > 1)
PLANS = st.fixed_dictionaries(
    {
        "strata": SIZES.map(laid_out),
        "batch_size": st.integers(2, 12),
        "steps": st.integers(1, 60),
        "alpha": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        "seed": st.integers(0, 1000),
        "task_weights": st.sampled_from([None, {"task 0": 3.0}, {"task 1": 0.25}]),
    }
)


@given(PLANS, st.data())
@settings(deadline=None)
def test_a_step_is_a_pure_function_of_its_number(arguments: dict, data: st.DataObject) -> None:
    plan, again = SamplingPlan(**arguments), SamplingPlan(**arguments)
    batches = [plan.batch(step) for step in range(len(plan))]
    for step in data.draw(st.permutations(range(len(plan)))):
        asked = again.batch(step)
        assert again.stratum(step) == plan.stratum(step)
        np.testing.assert_array_equal(asked.rows, batches[step].rows)
        np.testing.assert_array_equal(asked.visits, batches[step].visits)


@given(PLANS)
@settings(deadline=None)
def test_strata_get_the_steps_they_are_due(arguments: dict) -> None:
    plan = SamplingPlan(**arguments)
    weights = arguments["task_weights"] or {}
    sizes = {key: len(rows) for key, rows in arguments["strata"].items() if len(rows) > 1}
    mass = {key: weights.get(key[0], 1.0) * size ** arguments["alpha"] for key, size in sizes.items()}
    taken = [plan.stratum(step) for step in range(len(plan))]
    assert len(plan) == arguments["steps"]
    assert set(taken) <= set(sizes)
    for key in sizes:
        due = mass[key] / sum(mass.values()) * arguments["steps"]
        assert abs(taken.count(key) - due) < 1 + 1e-9


@given(PLANS)
@settings(deadline=None)
def test_a_batch_holds_distinct_rows_of_one_stratum(arguments: dict) -> None:
    plan = SamplingPlan(**arguments)
    for step in range(len(plan)):
        batch, members = plan.batch(step), arguments["strata"][plan.stratum(step)]
        np.testing.assert_array_equal(plan.rows(step), members)
        assert len(batch.rows) == len(batch.visits) == min(arguments["batch_size"], len(members))
        assert len(set(batch.rows.tolist())) == len(batch.rows)
        assert set(batch.rows.tolist()) <= set(members.tolist())


@given(PLANS)
@settings(deadline=None)
def test_a_pass_uses_no_pair_twice_and_drops_less_than_a_batch(arguments: dict) -> None:
    plan = SamplingPlan(**arguments)
    passes: dict[tuple[Stratum, int], list[int]] = {}
    for step in range(len(plan)):
        batch = plan.batch(step)
        (visit,) = set(batch.visits.tolist())
        passes.setdefault((plan.stratum(step), visit), []).extend(batch.rows.tolist())
    last = {key: max(visit for other, visit in passes if other == key) for key, _ in passes}
    for (key, visit), rows in passes.items():
        assert len(set(rows)) == len(rows)
        assert visit == 0 or (key, visit - 1) in passes
        members = len(arguments["strata"][key])
        if visit < last[key]:
            assert members - len(rows) < min(arguments["batch_size"], members)


@pytest.mark.parametrize("batch_size", [5, 10])
def test_passes_without_a_remainder_use_every_pair_once(batch_size: int) -> None:
    plan = SamplingPlan(laid_out([20]), batch_size, 3 * 20 // batch_size, 1.0, 0)
    drawn = np.concatenate([plan.batch(step).rows for step in range(len(plan))])
    passes = drawn.reshape(3, 20).tolist()
    assert [sorted(rows) for rows in passes] == [list(range(20))] * 3
    assert len({tuple(rows) for rows in passes}) == 3


def test_a_small_stratum_gives_batches_of_its_own_size() -> None:
    plan = SamplingPlan(laid_out([3, 50]), 8, 20, 0.0, 0)
    sizes = {plan.stratum(step)[1]: len(plan.batch(step).rows) for step in range(20)}
    assert sizes == {"language 0": 3, "language 1": 8}


def test_strata_are_mixed_and_seeds_differ() -> None:
    strata = laid_out([40, 40])
    plans = [SamplingPlan(strata, 8, 20, 1.0, seed) for seed in (0, 1)]
    order = [[plan.stratum(step) for step in range(20)] for plan in plans]
    assert order[0] != sorted(order[0])
    assert order[0] != order[1]
    assert {tuple(plans[0].batch(step).rows) for step in range(20)} != {
        tuple(plans[1].batch(step).rows) for step in range(20)
    }


@pytest.mark.parametrize("sizes", [[], [1], [0, 1, 1]])
def test_no_stratum_with_two_pairs_is_an_error(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="two pairs"):
        SamplingPlan(laid_out(sizes), 4, 10, 0.5, 0)


def test_a_weight_of_zero_leaves_a_task_out() -> None:
    plan = SamplingPlan(laid_out([10, 10]), 4, 9, 0.5, 0, {"task 0": 0.0})
    assert {plan.stratum(step)[0] for step in range(9)} == {"task 1"}
