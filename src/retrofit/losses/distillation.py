"""Learning the scores of a frozen teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from retrofit.losses.blocks import over_blocks
from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.losses.temperature import Temperature

DistillationKind = Literal["kl", "margin_mse"]


def kl_divergence(scores: Tensor, teacher_scores: Tensor, relevance: Tensor) -> Tensor:
    """Return the divergence of the student's softmax from the teacher's (Hinton et al. 2015), summed over queries.

    Both are over the passages of the query's row that are not masked, positives and negatives alike.

    Args:
        scores: the student's, divided by its temperature, float ``[queries, passages]``.
        teacher_scores: divided by the teacher's temperature, float ``[queries, passages]``.
        relevance: integer ``[queries, passages]``; 0 is masked.

    Returns:
        float scalar; zero (with a gradient of zero) if everything is masked.
    """
    masked = relevance == 0
    student, teacher = (part.masked_fill(masked, float("-inf")).log_softmax(dim=1) for part in (scores, teacher_scores))
    return functional.kl_div(student, teacher, reduction="none", log_target=True).masked_fill(masked, 0).sum()


def squared_margin_errors(similarities: Tensor, teacher_scores: Tensor, relevance: Tensor) -> Tensor:
    """Return the squared errors of the margins between positives and negatives (Hofstätter et al. 2020), summed.

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
    return differences.square().masked_select(relevance[rows] == -1).sum()


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
        """Return the loss of a step, a scalar: the mean over its queries or margins."""
        if self.kind == "margin_mse":
            total, counted = over_blocks(self._of_margins, step).sum(), over_blocks(_margins, step).sum()
        else:
            total, counted = over_blocks(self._of_queries, step).sum(), (step.relevance != 0).any(dim=1).sum()
        return total / counted.clamp(min=1)

    def _of_margins(self, block: StepEmbeddings) -> Tensor:
        return squared_margin_errors(block.similarities, block.teacher_scores, block.relevance).reshape(1)

    def _of_queries(self, block: StepEmbeddings) -> Tensor:
        scores = self.temperature(block.similarities)
        return kl_divergence(scores, block.teacher_scores / self.teacher_temperature, block.relevance).reshape(1)


@torch.no_grad()
def _margins(block: StepEmbeddings) -> Tensor:
    """Return how often a positive stands beside a negative in the row of each query, int64 ``[queries]``."""
    return (block.relevance == 1).sum(dim=1) * (block.relevance == -1).sum(dim=1)
