"""Negatives that a frozen model takes for answers are left out (GISTEmbed, Solatorio 2024)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from retrofit.losses.blocks import over_blocks
from retrofit.losses.info_nce import count_of
from retrofit.losses.step import Objective, StepEmbeddings


def guided_relevance(
    relevance: Tensor, guide_scores: Tensor, margin: float, relative: bool = False, maskable: Tensor | None = None
) -> Tensor:
    """Return relevance with the negatives masked that the guide scores above a query's positive less a margin.

    With a margin of 0 this is GISTEmbed's rule (Solatorio 2024); the margins are those by which NV-Retriever
    mines (Moreira et al. 2024, TopK-MarginPos and TopK-PercPos). Of several positives the lowest score counts. A query
    without a positive keeps its negatives.

    Args:
        relevance: integer ``[queries, passages]``.
        guide_scores: float ``[queries, passages]``.
        margin: below the positive's score ``s``: the limit is ``s - margin``, or where relative ``s - |s| * margin``.
            Below zero only what lies clearly above the positive is masked.
        relative: whether the margin is a share of the positive's score.
        maskable: which passages may be masked, bool ``[passages]``; None for all.

    Returns:
        relevance of the same shape and type.
    """
    lowest = guide_scores.masked_fill(relevance != 1, float("inf")).amin(dim=1, keepdim=True)
    # Without a positive the lowest is infinite and the limit infinite or undefined: nothing lies above either.
    limit = lowest - (lowest.abs() * margin if relative else margin)
    masked = (relevance == -1) & (guide_scores > limit)
    if maskable is not None:
        masked &= maskable
    return torch.where(masked, torch.zeros_like(relevance), relevance)


class Guided(Objective):
    """An objective over the negatives that the step's teacher lets pass.

    Attributes:
        inner: the objective.
        margin: see :func:`guided_relevance`.
        relative: likewise.
        in_batch_only: whether negatives that are no query's positive in this step (given, mined, drawn or queued) stay.
    """

    def __init__(self, inner: Objective, margin: float, relative: bool = False, in_batch_only: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.margin = margin
        self.relative = relative
        self.in_batch_only = in_batch_only

    def forward(self, step: StepEmbeddings) -> Tensor:
        """Return the loss of a step, a scalar."""
        in_batch = (step.relevance == 1).any(dim=0) if self.in_batch_only else None

        def of_queries(block: StepEmbeddings) -> Tensor:
            return guided_relevance(block.relevance, block.teacher_scores, self.margin, self.relative, in_batch)

        with torch.no_grad():  # marks have no gradient, nor has the teacher
            relevance = over_blocks(of_queries, step)
        before, after = (count_of(part, -1) for part in (step.relevance, relevance))
        self.figures = {"masked_by_guide": (before - after) / before.clamp(min=1)}
        loss: Tensor = self.inner(dataclasses.replace(step, relevance=relevance))
        return loss
