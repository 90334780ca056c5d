"""Learning the scores of a frozen teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.losses.temperature import Temperature

DistillationKind = Literal["kl", "margin_mse"]


def kl_divergence(scores: Tensor, teacher_scores: Tensor, relevance: Tensor) -> Tensor:
    """Return the mean over queries of the divergence of the student's softmax from the teacher's (Hinton et al. 2015).

    Both are over the passages of the query's row that are not masked, positives and negatives alike.

    Args:
        scores: the student's, divided by its temperature, float ``[queries, passages]``.
        teacher_scores: divided by the teacher's temperature, float ``[queries, passages]``.
        relevance: integer ``[queries, passages]``; 0 is masked.

    Returns:
        float scalar; zero (with a gradient of zero) if everything is masked.
    """
    masked = relevance == 0
    lowest = torch.finfo(scores.dtype).min  # instead of -inf: a row that is masked whole then leaves no NaN behind
    student = scores.masked_fill(masked, lowest).log_softmax(dim=1)
    teacher = teacher_scores.masked_fill(masked, lowest).log_softmax(dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).masked_fill(masked, 0).sum()
    return divergence / (~masked).any(dim=1).sum().clamp(min=1)


def margin_mse(similarities: Tensor, teacher_scores: Tensor, relevance: Tensor) -> Tensor:
    """Return the mean squared error of the margins between positives and negatives (Hofstätter et al. 2020).

    Args:
        similarities: the student's, float ``[queries, passages]``.
        teacher_scores: float ``[queries, passages]``.
        relevance: integer ``[queries, passages]``. Every positive is held against every negative of its row.

    Returns:
        float scalar; zero (with a gradient of zero) if no row has both.
    """
    rows, columns = (relevance == 1).nonzero(as_tuple=True)
    errors = similarities - teacher_scores  # the margins' errors are the differences of these
    differences = errors[rows, columns].unsqueeze(1) - errors[rows]
    is_negative = relevance[rows] == -1
    return differences.square().masked_select(is_negative).sum() / is_negative.sum().clamp(min=1)


class Distillation(Objective):
    """The distance between the model's scores of a step and its teacher's.

    Attributes:
        temperature: divides the model's similarities in ``kl``; shared with the contrastive loss beside it.
        kind: ``kl`` or ``margin_mse``, which compares the similarities as they are.
        teacher_temperature: divides the teacher's similarities in ``kl``.
    """

    def __init__(self, temperature: Temperature, kind: DistillationKind, teacher_temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.kind = kind
        self.teacher_temperature = teacher_temperature

    def forward(self, step: StepEmbeddings) -> Tensor:
        """Return the loss of a step, a scalar."""
        if self.kind == "margin_mse":
            return margin_mse(step.similarities, step.teacher_scores, step.relevance)
        scores = self.temperature(step.similarities)
        return kl_divergence(scores, step.teacher_scores / self.teacher_temperature, step.relevance)
