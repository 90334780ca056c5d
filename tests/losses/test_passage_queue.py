"""The queue of earlier passages, against one kept as a list."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from retrofit.losses.guided import Guided
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.passage_queue import WithQueue
from retrofit.losses.step import StepEmbeddings, last_figures

Step = Callable[..., StepEmbeddings]
Kept = list[tuple[int, Tensor, Tensor]]
"""Id, embedding and the teacher's embedding, the oldest first."""


def extended(step: StepEmbeddings, kept: Kept) -> StepEmbeddings:
    """The step with the queued passages behind its own, entry by entry."""
    own = step.passage_ids.tolist()
    others = [entry for entry in kept if entry[0] not in own]
    known = {tuple(pair) for pair in step.answers.tolist()}
    marks = [
        [*row, *(0 if (index, identifier) in known else -1 for identifier, _, _ in others)]
        for index, row in enumerate(step.relevance.tolist())
    ]
    assert step.teacher_passages is not None
    return dataclasses.replace(
        step,
        passages=torch.stack([*step.passages, *(vector for _, vector, _ in others)]),
        relevance=torch.tensor(marks, dtype=torch.int8),
        teacher_passages=torch.stack([*step.teacher_passages, *(vector for _, _, vector in others)]),
    )


def later(kept: Kept, step: StepEmbeddings, size: int) -> Kept:
    own = step.passage_ids.tolist()
    assert step.teacher_passages is not None
    new = list(zip(own, step.passages.detach(), step.teacher_passages, strict=True))
    return [*(entry for entry in kept if entry[0] not in own), *new][-size:]


def steps_of(random_step: Step, count: int = 6) -> list[StepEmbeddings]:
    """Steps that share some passages, and whose queries have answers in earlier steps."""
    steps = [random_step(seed, first_id=100 + 6 * (seed % 4)) for seed in range(count)]
    for seed, step in enumerate(steps):
        earlier = torch.tensor([[0, 101], [2, 107], [3, 100 + 6 * (seed % 4) - 1]])
        steps[seed] = dataclasses.replace(step, answers=torch.cat([step.answers, earlier]))
    return steps


@pytest.mark.parametrize("size", [5, 12, 1000])
def test_every_step_has_the_loss_and_gradient_of_a_list(
    random_step: Step, assert_equals: Any, loop_info_nce: Any, size: int
) -> None:
    objective = WithQueue(InfoNCE(0.1), size, 8, 5).double()
    kept: Kept = []
    for step in steps_of(random_step):
        assert_equals(objective, lambda step: loop_info_nce(extended(step, kept), 1 / 0.1), step)  # noqa: B023
        whole = extended(step, kept)
        figures = last_figures(objective)
        assert figures["queued_passages"] == len(whole.passages) - len(step.passages)
        assert figures["negatives_per_query"] == (whole.relevance == -1).sum().item() / len(step.queries)
        kept = later(kept, step, size)
        filled = int(objective.filled)
        assert objective.passage_ids[:filled].tolist() == [identifier for identifier, _, _ in kept]
        assert filled == len(kept) <= size
        torch.testing.assert_close(objective.passages[:filled], torch.stack([vector for _, vector, _ in kept]))
    assert objective.passages.requires_grad is False


def test_known_answers_in_the_queue_are_masked(random_step: Step) -> None:
    seen: list[Tensor] = []

    class Watched(InfoNCE):
        def forward(self, step: StepEmbeddings) -> Tensor:
            seen.append(step.relevance)
            return super().forward(step)

    objective = WithQueue(Watched(0.1), 50, 8, 5)
    first, second = random_step(0), random_step(1, first_id=200)
    answers = torch.cat([second.answers, torch.tensor([[2, 104], [2, 999]])])
    objective(first)
    objective(dataclasses.replace(second, answers=answers))
    queued = seen[1][:, 9:]
    assert queued.shape == (4, 9)
    assert (queued == 0).nonzero().tolist() == [[2, 4]]


def test_the_guide_sees_the_queue(random_step: Step, assert_equals: Any, loop_info_nce: Any) -> None:
    objective = WithQueue(Guided(InfoNCE(0.1), 0.1), 20, 8, 5).double()
    first, second = random_step(0), random_step(1, first_id=200)
    objective(first)

    def reference(step: StepEmbeddings) -> Tensor:
        whole = extended(step, later([], first, 20))
        for row in range(4):
            for column in range(18):
                limit = whole.teacher_scores[row, row] - 0.1
                if whole.relevance[row, column] == -1 and whole.teacher_scores[row, column] > limit:
                    whole.relevance[row, column] = 0
        assert (whole.relevance[:, 9:] == 0).any()
        loss: Tensor = loop_info_nce(whole, 1 / 0.1)
        return loss

    assert_equals(objective, reference, second)


def test_it_starts_empty_and_grows_in_training_only(random_step: Step) -> None:
    objective, step = WithQueue(InfoNCE(0.1), 20, 8, 5), random_step()
    assert objective(step).item() == InfoNCE(0.1)(step).item()
    assert objective.filled == 9
    objective.eval()
    objective(random_step(1, first_id=500))
    assert objective.filled == 9


def test_its_state_is_what_a_module_stores(random_step: Step) -> None:
    first, second = random_step(0), random_step(1, first_id=200)
    objective, restored = (WithQueue(InfoNCE(0.1), 12, 8, 5) for _ in range(2))
    objective(first)
    restored.load_state_dict(objective.state_dict())
    assert restored(second).item() == objective(second).item()
    assert InfoNCE(0.1)(second).item() < objective(second).item()


def test_a_step_without_a_teacher_needs_none(random_step: Step) -> None:
    objective = WithQueue(InfoNCE(0.1), 12, 8)
    for seed in range(2):
        step = dataclasses.replace(random_step(seed, first_id=100 * seed), teacher_queries=None, teacher_passages=None)
        assert objective(step).isfinite()
    assert last_figures(objective)["queued_passages"] == 9
