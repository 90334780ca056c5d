"""From the keys of ``conf/loss`` to one objective, put together from small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from retrofit.errors import UserError
from retrofit.losses.distillation import Distillation
from retrofit.losses.guided import Guided
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.matryoshka import Matryoshka
from retrofit.losses.passage_queue import WithQueue
from retrofit.losses.step import Objective, StepEmbeddings


class Mixture(Objective):
    """Two objectives, weighted.

    Attributes:
        first: gets the weight ``1 - weight``.
        second: gets ``weight``.
        weight: 0 to 1.
    """

    def __init__(self, first: Objective, second: Objective, weight: float) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.weight = weight

    def forward(self, step: StepEmbeddings) -> Tensor:
        """Return the loss of a step, a scalar."""
        loss: Tensor = (1 - self.weight) * self.first(step) + self.weight * self.second(step)
        return loss


def needs_teacher(loss: Mapping[str, Any]) -> bool:
    """Return whether a configuration like ``conf/loss`` asks for the scores of a teacher."""
    return loss["guide"]["margin"] is not None or loss["distillation"]["kind"] is not None


def check_dimensions(dimensions: Sequence[int] | None, dimension: int) -> None:
    """Return if embeddings of a model can be cut to all of some dimensions.

    Raises:
        UserError: they are shorter than one of them.
    """
    if dimensions is not None and max(dimensions) > dimension:
        raise UserError(f"loss.dimensions={list(dimensions)}: expected at most {dimension}, the model's own")


def objective(
    *,
    temperature: float,
    learn_temperature: bool,
    symmetric_weight: float,
    hardness: float,
    guide: Mapping[str, Any],
    distillation: Mapping[str, Any],
    dimensions: Sequence[int] | None,
    dimension_weights: Sequence[float] | None,
    queue_size: int,
    dimension: int,
    teacher_dimension: int = 0,
) -> Objective:
    """Return the objective that the keys of ``conf/loss`` describe.

    From the inside out: InfoNCE; guided; mixed with distillation, which sees what the guide masks, for that is what the
    teacher's scores tell most about; at several dimensions; over the queue.

    Args:
        temperature: of InfoNCE, and of the model's softmax in distillation.
        learn_temperature: whether it is learnt.
        symmetric_weight: of the passage-to-query direction.
        hardness: beta of the weights of the negatives.
        guide: ``margin`` (None for no guide), ``relative``, ``in_batch_only``: see :class:`Guided`.
        distillation: ``kind`` (None for none), ``weight``, ``teacher_temperature``: see :class:`Distillation`.
        dimensions: lengths of the embeddings that are trained; None for the whole alone.
        dimension_weights: of each of them; None weighs each 1.
        queue_size: how many passages of earlier steps to keep; 0 for none.
        dimension: of the model's embeddings.
        teacher_dimension: of the teacher's embeddings, 0 where there is none.

    Raises:
        UserError: the model's embeddings are shorter than one of the dimensions.
    """
    check_dimensions(dimensions, dimension)
    contrastive = InfoNCE(temperature, symmetric_weight, hardness, learn_temperature)
    whole: Objective = contrastive
    if guide["margin"] is not None:
        whole = Guided(whole, **guide)
    if distillation["kind"] is not None:
        distilled = Distillation(contrastive.temperature, distillation["kind"], distillation["teacher_temperature"])
        whole = Mixture(whole, distilled, distillation["weight"])
    if dimensions is not None:
        whole = Matryoshka(whole, dimensions, dimension_weights)
    if queue_size > 0:
        whole = WithQueue(whole, queue_size, dimension, teacher_dimension)
    return whole
