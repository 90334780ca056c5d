"""What a guide masks, against loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from retrofit.losses.guided import Guided, guided_relevance
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.step import StepEmbeddings, last_figures

Step = Callable[..., StepEmbeddings]


def by_loops(
    relevance: np.ndarray, scores: np.ndarray, margin: float, relative: bool, in_batch_only: bool
) -> np.ndarray:
    masked = relevance.copy()
    for row in range(relevance.shape[0]):
        positives = [scores[row, column] for column in range(relevance.shape[1]) if relevance[row, column] == 1]
        if not positives:
            continue
        limit = min(positives) - (abs(min(positives)) * margin if relative else margin)
        for column in range(relevance.shape[1]):
            in_batch = any(relevance[other, column] == 1 for other in range(relevance.shape[0]))
            if in_batch_only and not in_batch:
                continue
            if relevance[row, column] == -1 and scores[row, column] > limit:
                masked[row, column] = 0
    return masked


@st.composite
def guided_steps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    relevance = draw(arrays(np.int8, shape, elements=st.sampled_from([-1, 0, 1])))
    return relevance, draw(arrays(np.float64, shape, elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])))


@given(guided_steps(), st.sampled_from([-0.25, 0.0, 0.25, 0.5]), st.booleans(), st.booleans())
def test_the_same_is_masked_as_by_loops(
    step: tuple[np.ndarray, np.ndarray], margin: float, relative: bool, in_batch_only: bool
) -> None:
    relevance, scores = step
    maskable = torch.tensor((relevance == 1).any(axis=0)) if in_batch_only else None
    found = guided_relevance(torch.tensor(relevance), torch.tensor(scores), margin, relative, maskable)
    assert found.dtype == torch.int8
    np.testing.assert_array_equal(found.numpy(), by_loops(relevance, scores, margin, relative, in_batch_only))


@pytest.mark.parametrize("positive", [0.5, -0.5])
def test_a_relative_margin_lies_below_the_positive_on_either_side_of_zero(positive: float) -> None:
    scores = torch.tensor([[positive, positive - 0.1, positive - 0.2]])
    found = guided_relevance(torch.tensor([[1, -1, -1]]), scores, 0.3, relative=True)
    assert found.tolist() == [[1, 0, -1]]


@pytest.mark.parametrize("in_batch_only", [False, True])
@pytest.mark.parametrize(("margin", "relative"), [(0.0, False), (0.2, False), (0.3, True)])
def test_loss_and_gradient_are_those_of_the_loops(
    random_step: Step, assert_equals: Any, loop_info_nce: Any, margin: float, relative: bool, in_batch_only: bool
) -> None:
    step = random_step(seed=3)
    relevance = by_loops(step.relevance.numpy(), step.teacher_scores.numpy(), margin, relative, in_batch_only)
    masked = int((relevance != step.relevance.numpy()).sum())
    assert masked > 0

    def reference(step: StepEmbeddings) -> Tensor:
        loss: Tensor = loop_info_nce(dataclasses.replace(step, relevance=torch.tensor(relevance)), 1 / 0.1)
        return loss

    objective = Guided(InfoNCE(0.1), margin, relative, in_batch_only)
    assert_equals(objective, reference, step)
    negatives = int((step.relevance == -1).sum())
    figures = last_figures(objective)
    assert figures["masked_by_guide"] == pytest.approx(masked / negatives)
    assert figures["negatives_per_query"] == pytest.approx((negatives - masked) / len(step.queries))


def test_a_step_without_a_teacher_is_an_error(random_step: Step) -> None:
    step = dataclasses.replace(random_step(), teacher_queries=None)
    with pytest.raises(ValueError, match="no teacher's scores"):
        Guided(InfoNCE(0.1), 0.0)(step)
