"""Which precision the matrix products of this machine run best in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from retrofit.models.bi_encoder import Precision


def resolve_precision(precision: Precision | Literal["auto"], device: str = "cpu") -> Precision:
    """Return the precision itself, or for ``auto`` bfloat16 where the device computes in it and float32 elsewhere.

    A CPU without bfloat16 instructions emulates them, which is slower than float32.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


@dataclass(frozen=True)
class EncodingSettings:
    """How texts are encoded.

    Attributes:
        precision: of the matrix products.
        token_budget: tokens, padding counted, that go through the backbone at once.
    """

    precision: Precision = "float32"
    token_budget: int = 4096

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> EncodingSettings:
        """Return what the keys ``precision`` and ``token_budget`` of a configuration ask for."""
        return cls(resolve_precision(config["precision"]), config["token_budget"])
