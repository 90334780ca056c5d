"""Which weights learn: LoRA and its relatives through peft, or all of them; and the way back to plain weights."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from retrofit.models.bi_encoder import BiEncoder


def apply_adapter(encoder: BiEncoder, adapter: Any | None) -> None:
    """Make an encoder trainable, in place.

    Args:
        encoder: its backbone is wrapped where there is an adapter.
        adapter: a peft configuration, e.g. ``peft.LoraConfig``: all else is frozen. None trains every weight but the
            word embeddings, which hold most of a multilingual encoder's weights and which short training does not move
            for the better.
    """
    if adapter is None:
        encoder.backbone.requires_grad_(True)
        encoder.backbone.get_input_embeddings().requires_grad_(False)
        return
    import peft

    encoder.backbone = peft.get_peft_model(encoder.backbone, adapter)


def merged_weights(encoder: BiEncoder) -> dict[str, Tensor]:
    """Return the state dict of the plain backbone with the adapter, if any, merged into it; the encoder is unchanged.

    Tensors are float32 on the CPU.
    """
    backbone = copy.deepcopy(encoder.backbone).cpu()
    if hasattr(backbone, "merge_and_unload"):
        backbone = backbone.merge_and_unload(safe_merge=True)
    return {name: weight.detach() for name, weight in backbone.state_dict().items()}


def interpolate(base: dict[str, Tensor], retrofitted: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Return ``base + weight · (retrofitted − base)`` for every tensor (WiSE-FT, Wortsman et al. 2022, eq. 1).

    Args:
        base: weights before training.
        retrofitted: weights after training, same names and shapes.
        weight: 0 gives the base, 1 the retrofitted weights.
    """
    return {
        name: tensor.lerp(retrofitted[name], weight) if tensor.is_floating_point() else tensor
        for name, tensor in base.items()
    }


def plain_backbone(encoder: BiEncoder) -> Any:
    """Return the transformers module under an adapter, or the backbone itself where there is none."""
    backbone = encoder.backbone
    return backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
