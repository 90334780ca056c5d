"""Distillation against loops, loss and gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from retrofit.losses.distillation import Distillation
from retrofit.losses.step import StepEmbeddings
from retrofit.losses.temperature import Temperature

Step = Callable[..., StepEmbeddings]


def loop_kl(step: StepEmbeddings, inverse: Tensor | float, teacher_temperature: float) -> Tensor:
    divergences = []
    for row, query in enumerate(step.queries):
        seen = [column for column, mark in enumerate(step.relevance[row].tolist()) if mark != 0]
        student = [torch.exp((query * step.passages[column]).sum() * inverse) for column in seen]
        teacher = [math.exp(step.teacher_scores[row, column].item() / teacher_temperature) for column in seen]
        terms = []
        for mine, its in zip(student, teacher, strict=True):
            share = its / sum(teacher)
            terms.append(share * (math.log(share) - torch.log(mine / sum(student))))
        divergences.append(torch.stack(terms).sum())
    return torch.stack(divergences).mean()


def loop_margin_mse(step: StepEmbeddings) -> Tensor:
    squares = []
    for row, query in enumerate(step.queries):
        marks = step.relevance[row].tolist()
        for positive in (column for column, mark in enumerate(marks) if mark == 1):
            for negative in (column for column, mark in enumerate(marks) if mark == -1):
                mine = (query * step.passages[positive]).sum() - (query * step.passages[negative]).sum()
                its = step.teacher_scores[row, positive] - step.teacher_scores[row, negative]
                squares.append((mine - its) ** 2)
    return torch.stack(squares).mean()


@pytest.mark.parametrize("teacher_temperature", [0.05, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_kl_is_that_of_the_loops(random_step: Step, assert_equals: Any, teacher_temperature: float, seed: int) -> None:
    objective = Distillation(Temperature(0.1), "kl", teacher_temperature)
    assert_equals(objective, lambda step: loop_kl(step, 1 / 0.1, teacher_temperature), random_step(seed))


def test_kl_teaches_the_temperature(random_step: Step, assert_equals: Any) -> None:
    objective = Distillation(Temperature(0.1, learn=True), "kl", 0.2).double()
    (log_inverse,) = objective.parameters()
    assert_equals(objective, lambda step: loop_kl(step, log_inverse.exp(), 0.2), random_step(), [log_inverse])


@pytest.mark.parametrize("seed", [0, 1])
def test_margin_mse_is_that_of_the_loops(random_step: Step, assert_equals: Any, seed: int) -> None:
    step = random_step(seed)
    step.relevance[0, 3] = 1  # two positives in a row
    assert_equals(Distillation(Temperature(0.1), "margin_mse", 1.0), loop_margin_mse, step)


def test_a_student_with_the_teachers_scores_has_nothing_to_learn(random_step: Step) -> None:
    step = random_step()
    taught = dataclasses.replace(step, teacher_queries=step.queries.detach(), teacher_passages=step.passages.detach())
    for kind in ("kl", "margin_mse"):
        loss = Distillation(Temperature(0.1), kind, 0.1)(taught)  # type: ignore[arg-type]
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert torch.autograd.grad(loss, step.queries)[0].abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
def test_rows_that_say_nothing_cost_nothing(kind: Any) -> None:
    objective = Distillation(Temperature(1.0), kind, 1.0)
    ids, answers = torch.arange(3), torch.empty(0, 2, dtype=torch.int64)
    passages = torch.eye(3)  # a query's components are its scores
    scores = torch.tensor([[50.0, -50.0, 3.0], [1.0, 2.0, 3.0]], requires_grad=True)
    teacher = torch.tensor([[0.5, 0.1, 0.2], [7.0, 8.0, 1.0]])
    relevance = torch.tensor([[1, -1, 0], [0, 0, 0]], dtype=torch.int8)
    step = StepEmbeddings(scores, passages, relevance, ids, answers, teacher, passages)
    alone = objective(StepEmbeddings(scores[:1], passages, relevance[:1], ids, answers, teacher[:1], passages))
    loss = objective(step)
    assert loss.item() == pytest.approx(alone.item())
    assert loss.item() > 0
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()
    assert gradient[0, 2] == 0
    nothing = objective(dataclasses.replace(step, relevance=torch.zeros_like(relevance)))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, scores)[0] == 0).all()
