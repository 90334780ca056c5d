"""Embeddings of which the first components are embeddings too (Kusupati et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from retrofit.losses.step import Objective, StepEmbeddings


def truncated(step: StepEmbeddings, dimension: int) -> StepEmbeddings:
    """Return a step with the first components of its embeddings alone, at unit length again.

    Args:
        step: whole; the teacher's embeddings stay as they are.
        dimension: how many components to keep.
    """
    queries, passages = (functional.normalize(part[:, :dimension], dim=1) for part in (step.queries, step.passages))
    return dataclasses.replace(step, queries=queries, passages=passages)


class Matryoshka(Objective):
    """The weighted sum of an objective over several lengths of the embeddings (Kusupati et al. 2022, eq. 1).

    Attributes:
        inner: the objective.
        weights: by dimension.
    """

    def __init__(self, inner: Objective, dimensions: Sequence[int], weights: Sequence[float] | None = None) -> None:
        """Wrap an objective.

        Args:
            inner: the objective.
            dimensions: numbers of components.
            weights: of each of them; None weighs each 1.
        """
        super().__init__()
        self.inner = inner
        self.weights = dict(zip(dimensions, weights or [1.0] * len(dimensions), strict=True))

    def forward(self, step: StepEmbeddings) -> Tensor:
        """Return the loss of a step, a scalar."""
        losses = [weight * self.inner(truncated(step, dimension)) for dimension, weight in self.weights.items()]
        total: Tensor = sum(losses[1:], start=losses[0])
        return total
