"""The weighted sum over lengths of the embeddings, against loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.matryoshka import Matryoshka, truncated
from retrofit.losses.step import StepEmbeddings

Step = Callable[..., StepEmbeddings]


def cut(vectors: Tensor, dimension: int) -> Tensor:
    """The first components of each vector, one by one, divided by their length."""
    rows = []
    for vector in vectors:
        length = sum(vector[i] ** 2 for i in range(dimension)) ** 0.5
        rows.append(torch.stack([vector[i] / length for i in range(dimension)]))
    return torch.stack(rows)


@pytest.mark.parametrize("weights", [None, [1.0, 0.25, 2.0]])
def test_loss_and_gradient_are_those_of_the_loops(
    random_step: Step, assert_equals: Any, loop_info_nce: Any, weights: list[float] | None
) -> None:
    dimensions = [8, 3, 1]

    def reference(step: StepEmbeddings) -> Tensor:
        losses = []
        for dimension, weight in zip(dimensions, weights or [1.0, 1.0, 1.0], strict=True):
            part = StepEmbeddings(
                cut(step.queries, dimension), cut(step.passages, dimension), step.relevance, step.passage_ids,
                step.answers,
            )  # fmt: skip
            losses.append(weight * loop_info_nce(part, 1 / 0.1))
        return torch.stack(losses).sum()

    assert_equals(Matryoshka(InfoNCE(0.1), dimensions, weights), reference, random_step())


def test_the_whole_length_alone_is_the_inner_objective(random_step: Step) -> None:
    step = random_step()
    assert Matryoshka(InfoNCE(0.1), [8])(step).item() == pytest.approx(InfoNCE(0.1)(step).item(), abs=1e-12)


def test_what_is_cut_has_unit_length_and_the_teacher_is_left_whole(random_step: Step) -> None:
    step = random_step()
    part = truncated(step, 3)
    assert part.queries.shape == (4, 3)
    torch.testing.assert_close(part.passages.norm(dim=1), torch.ones(9, dtype=torch.float64))
    assert part.teacher_passages is step.teacher_passages
