"""InfoNCE over a relevance matrix.

The relevance matrix says for every query and passage of a step whether the passage answers the query (``1``), does not
(``-1``) or is left out of that query's sum because it might (``0``). Duplicates, several known positives and labelled
negatives then need no special case in the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def info_nce(scores: Tensor, relevance: Tensor) -> Tensor:
    """Return the mean over all positive entries of the InfoNCE loss (van den Oord et al. 2018, eq. 4).

    A positive competes with the negatives of its own row only: other positives of the row are no part of its
    denominator, so a query with two right answers is not taught to prefer one over the other.

    Args:
        scores: similarities divided by the temperature, float ``[queries, passages]``.
        relevance: ``1`` positive, ``-1`` negative, ``0`` masked; integer ``[queries, passages]``.

    Returns:
        float scalar; zero (with a gradient of zero) if no entry is positive.
    """
    is_positive = relevance == 1
    negatives = scores.masked_fill(relevance != -1, float("-inf")).logsumexp(dim=1, keepdim=True)
    losses = torch.logaddexp(scores, negatives.expand_as(scores)) - scores
    return losses.masked_select(is_positive).sum() / is_positive.sum().clamp(min=1)


class InfoNCE(nn.Module):
    """Contrastive loss of L2-normalised embeddings at a fixed temperature.

    Attributes:
        temperature: divides the cosine similarity; E5 was trained at 0.01 (Wang et al. 2022, section 4.1).
        symmetric_weight: weight, 0 to 1, of the passage-to-query direction against the query-to-passage one.
    """

    def __init__(self, temperature: float, symmetric_weight: float = 0.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.symmetric_weight = symmetric_weight

    def forward(self, queries: Tensor, passages: Tensor, relevance: Tensor) -> Tensor:
        """Return the loss of a step.

        Args:
            queries: float ``[queries, dimension]``, unit length.
            passages: float ``[passages, dimension]``, unit length.
            relevance: integer ``[queries, passages]``, see :func:`info_nce`.
        """
        scores = queries @ passages.T / self.temperature
        loss = info_nce(scores, relevance)
        if self.symmetric_weight > 0:
            backward = info_nce(scores.T, relevance.T)
            loss = (1 - self.symmetric_weight) * loss + self.symmetric_weight * backward
        return loss
