"""Objectives put together from the keys of ``conf/loss``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.losses.distillation import Distillation
from retrofit.losses.guided import guided_relevance
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.matryoshka import truncated
from retrofit.losses.objective import needs_teacher
from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.losses.temperature import Temperature

Compose = Callable[..., dict[str, Any]]
Step = Callable[..., StepEmbeddings]
TEACHER = "model@loss.teacher=tiny"


def composed(compose: Compose, *overrides: str, dimension: int = 8) -> Objective:
    loss = compose(*overrides)["loss"]
    assert needs_teacher(loss) is (loss["teacher"] is not None)
    settings = {name: value for name, value in loss.items() if name != "teacher"}
    built: Objective = instantiate({**settings, "dimension": dimension, "teacher_dimension": 5})
    return built


def test_all_together_is_each_in_its_place(train_config: Compose, random_step: Step, assert_equals: Any) -> None:
    objective = composed(
        train_config, "loss=matryoshka", TEACHER, "loss.dimensions=[8,4]", "loss.dimension_weights=[1,0.5]",
        "loss.guide.margin=0.1", "loss.distillation.kind=kl", "loss.distillation.weight=0.3", "loss.hardness=0.5",
        "loss.queue_size=10", "loss.temperature=0.1", "loss.symmetric_weight=0.2", "loss.learn_temperature=true",
    ).double()  # fmt: skip
    first, second = random_step(0), random_step(1, first_id=200)
    objective(first)
    (log_inverse,) = objective.parameters()
    contrastive = InfoNCE(0.1, 0.2, 0.5, learn_temperature=True).double()
    contrastive.temperature.log_inverse = log_inverse
    distillation = Distillation(contrastive.temperature, "kl", 0.02)

    def reference(step: StepEmbeddings) -> Tensor:
        kept = torch.cat([first.passages[-9:].detach()])
        marks = torch.full((4, 9), -1, dtype=torch.int8)
        assert first.teacher_passages is not None
        assert step.teacher_passages is not None
        whole = dataclasses.replace(
            step,
            passages=torch.cat([step.passages, kept]),
            relevance=torch.cat([step.relevance, marks], dim=1),
            teacher_passages=torch.cat([step.teacher_passages, first.teacher_passages]),
        )
        guided = guided_relevance(whole.relevance, whole.teacher_scores, 0.1)
        assert not torch.equal(guided, whole.relevance)
        total = torch.zeros((), dtype=torch.float64)
        for dimension, weight in ((8, 1.0), (4, 0.5)):
            part = truncated(whole, dimension)
            one = contrastive(dataclasses.replace(part, relevance=guided))
            total = total + weight * (0.7 * one + 0.3 * distillation(part))
        return total

    assert_equals(objective, reference, second, [log_inverse])


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
def test_distillation_alone_and_with_no_weight(train_config: Compose, random_step: Step, kind: Any) -> None:
    keys = (TEACHER, f"loss.distillation.kind={kind}", "loss.temperature=0.1")
    step = random_step()
    alone = composed(train_config, *keys, "loss.distillation.weight=1")(step)
    assert alone.item() == pytest.approx(Distillation(Temperature(0.1), kind, 0.02)(step).item(), abs=1e-9)
    without = composed(train_config, *keys, "loss.distillation.weight=0")(step)
    assert without.item() == pytest.approx(InfoNCE(0.1)(step).item(), abs=1e-9)


def test_the_default_is_plain_info_nce(train_config: Compose, random_step: Step) -> None:
    objective = composed(train_config)
    assert isinstance(objective, InfoNCE)
    assert list(objective.state_dict()) == []


def test_dimensions_beyond_the_models_are_named(train_config: Compose) -> None:
    composed(train_config, "loss=matryoshka", dimension=384)
    with pytest.raises(UserError, match=r"^loss\.dimensions=\[384, 192, 96, 48\]: expected at most 383"):
        composed(train_config, "loss=matryoshka", dimension=383)
