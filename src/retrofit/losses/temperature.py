"""The temperature of a softmax over similarities, fixed or learnt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LOWEST_LEARNT = 0.01
"""CLIP lets the factor on the similarities not grow above 100 (Radford et al. 2021, section 2.5)."""


class Temperature(nn.Module):
    """Divides similarities by a temperature.

    What is learnt is the logarithm of the inverse: a step then changes the temperature by a share of itself, and it
    stays positive. As in CLIP whoever trains it moves it back into its range between two steps, so that it does not
    stick where a clamped value has no gradient.

    Attributes:
        start: the temperature, or the one to start from.
        log_inverse: the parameter, float32 ``[1]``, for FSDP shards no scalar; None where the temperature is fixed.
    """

    def __init__(self, start: float, learn: bool = False) -> None:
        super().__init__()
        self.start = start
        self.log_inverse = nn.Parameter(torch.tensor([-math.log(start)])) if learn else None

    def forward(self, similarities: Tensor) -> Tensor:
        """Return the similarities divided by the temperature, in their shape."""
        if self.log_inverse is None:
            return similarities / self.start
        return similarities * self.log_inverse.exp()

    @torch.no_grad()
    def move_back(self) -> None:
        """Move a learnt temperature that has left the range from ``LOWEST_LEARNT`` to 1 back to its nearer end."""
        if self.log_inverse is not None:
            self.log_inverse.clamp_(0, -math.log(LOWEST_LEARNT))
