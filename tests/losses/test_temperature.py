"""The temperature: fixed it divides; learnt it is a parameter that stays in CLIP's range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.step import StepEmbeddings, last_figures
from retrofit.losses.temperature import Temperature

Step = Callable[..., StepEmbeddings]


def test_a_fixed_temperature_has_nothing_to_learn() -> None:
    temperature = Temperature(0.02)
    assert list(temperature.parameters()) == []
    similarities = torch.tensor([0.3, -0.7])
    assert torch.equal(temperature(similarities), similarities / 0.02)


@pytest.mark.parametrize("start", [0.01, 0.05, 1.0])
def test_the_gradient_is_that_of_the_loops(
    random_step: Step, assert_equals: Any, loop_info_nce: Any, start: float
) -> None:
    objective = InfoNCE(start, learn_temperature=True).double()
    (log_inverse,) = objective.parameters()
    assert_equals(objective, lambda step: loop_info_nce(step, log_inverse.exp()), random_step(), [log_inverse])
    assert last_figures(objective)["temperature"] == pytest.approx(start, rel=1e-6)


@pytest.mark.parametrize(("log_inverse", "factor"), [(7.0, 100.0), (-0.5, 1.0)])
def test_what_leaves_the_range_is_moved_back_and_still_learns(log_inverse: float, factor: float) -> None:
    temperature = Temperature(0.05, learn=True)
    assert temperature.log_inverse is not None
    with torch.no_grad():
        temperature.log_inverse.fill_(log_inverse)
    temperature.move_back()
    scaled = temperature(torch.tensor([1.0]))
    assert scaled.item() == pytest.approx(factor, rel=1e-5)
    scaled.sum().backward()
    assert temperature.log_inverse.grad is not None
    assert temperature.log_inverse.grad.item() == pytest.approx(factor, rel=1e-5)


def test_a_learnt_temperature_falls_where_the_positives_already_win() -> None:
    objective = InfoNCE(0.5, learn_temperature=True)
    vectors = torch.eye(4)
    relevance = 2 * torch.eye(4, dtype=torch.int8) - 1
    step = StepEmbeddings(vectors, vectors, relevance, torch.arange(4), torch.empty(0, 2, dtype=torch.int64))
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    objective.temperature.move_back()
    seen = []
    for _ in range(200):
        optimizer.zero_grad()
        objective(step).backward()
        optimizer.step()
        seen.append(last_figures(objective)["temperature"])
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(0.5)
    assert 0.01 <= seen[-1] < 0.2
