"""InfoNCE over a relevance matrix.

The relevance matrix says for every query and passage of a step whether the passage answers the query (``1``), does not
(``-1``) or is left out of that query's sum because it might (``0``). Duplicates, several known positives and labelled
negatives then need no special case in the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrofit.losses.blocks import over_blocks
from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.losses.temperature import Temperature


def info_nce(scores: Tensor, relevance: Tensor, hardness: float = 0.0) -> Tensor:
    """Return the mean over all positive entries of the InfoNCE loss (van den Oord et al. 2018, eq. 4).

    A positive competes with the negatives of its own row only: other positives of the row are no part of its
    denominator, so a query with two right answers is not taught to prefer one over the other.

    Args:
        scores: similarities divided by the temperature, float ``[queries, passages]``.
        relevance: ``1`` positive, ``-1`` negative, ``0`` masked; integer ``[queries, passages]``.
        hardness: beta of the weights of the negatives, see :func:`log_hardness_weights`; 0 weighs all alike.

    Returns:
        float scalar; zero (with a gradient of zero) if no entry is positive.
    """
    return info_nce_terms(scores, relevance, hardness).sum() / count_of(relevance, 1).clamp(min=1)


def info_nce_terms(scores: Tensor, relevance: Tensor, hardness: float = 0.0) -> Tensor:
    """Return the InfoNCE loss of every positive entry, float ``[positives]``, row by row; see :func:`info_nce`."""
    weighted = scores + log_hardness_weights(scores, relevance, hardness) if hardness else scores
    negatives = weighted.masked_fill(relevance != -1, float("-inf")).logsumexp(dim=1, keepdim=True)
    losses = torch.logaddexp(scores, negatives.expand_as(scores)) - scores
    return losses.masked_select(relevance == 1)


def count_of(relevance: Tensor, mark: int) -> Tensor:
    """Return how many entries of a relevance matrix are 1, -1 or 0, int64 scalar."""
    return torch.count_nonzero(relevance == mark)  # ``sum`` would first make a table of int64, eight times as large


def log_hardness_weights(scores: Tensor, relevance: Tensor, hardness: float) -> Tensor:
    """Return the logarithms of the negatives' weights, float ``[queries, passages]``, without a gradient.

    A negative weighs ``exp(hardness * score)``, divided by the mean of that over the negatives of its row: the
    importance weights of Robinson et al. 2021 without their correction for false negatives, which the relevance
    matrix masks. Entries that are no negatives hold no weight to be used.

    Args:
        scores: similarities divided by the temperature, float ``[queries, passages]``.
        relevance: integer ``[queries, passages]``.
        hardness: beta.
    """
    logits = hardness * scores.detach()
    is_negative = relevance == -1
    total = logits.masked_fill(~is_negative, float("-inf")).logsumexp(dim=1, keepdim=True)
    return logits - total + is_negative.sum(dim=1, keepdim=True, dtype=logits.dtype).log()


class InfoNCE(Objective):
    """Contrastive loss of L2-normalised embeddings.

    Attributes:
        temperature: divides the cosine similarity; E5 was trained at 0.01 (Wang et al. 2022, section 4.1).
        symmetric_weight: weight, 0 to 1, of the passage-to-query direction against the query-to-passage one.
        hardness: beta of the weights of the negatives, see :func:`log_hardness_weights`.
    """

    def __init__(
        self,
        temperature: float,
        symmetric_weight: float = 0.0,
        hardness: float = 0.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learn_temperature)
        self.symmetric_weight = symmetric_weight
        self.hardness = hardness

    def forward(self, step: StepEmbeddings) -> Tensor:
        """Return the loss of a step, a scalar."""
        self.figures = {"negatives_per_query": count_of(step.relevance, -1) / len(step.relevance)}
        if self.temperature.log_inverse is not None:
            self.figures["temperature"] = torch.exp(-self.temperature.log_inverse.detach())
        positives = count_of(step.relevance, 1).clamp(min=1)
        loss = over_blocks(self._of_queries, step).sum() / positives
        if self.symmetric_weight > 0:
            backward = over_blocks(self._of_passages, step, of="passages").sum() / positives
            loss = (1 - self.symmetric_weight) * loss + self.symmetric_weight * backward
        return loss

    def _of_queries(self, block: StepEmbeddings) -> Tensor:
        return info_nce_terms(self.temperature(block.similarities), block.relevance, self.hardness)

    def _of_passages(self, block: StepEmbeddings) -> Tensor:
        return info_nce_terms(self.temperature(block.similarities).T, block.relevance.T, self.hardness)
