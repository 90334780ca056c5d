"""Which precision the matrix products of this machine run best in."""

from __future__ import annotations

from typing import Literal

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
