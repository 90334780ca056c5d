"""Which weights learn: LoRA and its relatives through peft, or all of them; and the way back to plain weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from retrofit.errors import UserError

if TYPE_CHECKING:
    from retrofit.models.bi_encoder import BiEncoder


def apply_adapter(
    encoder: BiEncoder, adapter: Any | None, layers: int | Sequence[int] | None = None, train_embeddings: bool = False
) -> None:
    """Make an encoder trainable, in place.

    Args:
        encoder: its backbone is wrapped where there is an adapter.
        adapter: a ``peft.LoraConfig``: its matrices (and the biases it asks for) learn and all else is frozen. None
            trains every weight but the word embeddings, which hold most of a multilingual encoder's weights and which
            short training does not move for the better.
        layers: which encoder layers learn: None for all, a number n for the first n, -n for the last n, or their
            numbers from 0. Without an adapter all that lies around the word embeddings is then frozen too, so that no
            gradient goes further down than the lowest of them.
        train_embeddings: whether the word embeddings, and what lies around them, learn; only without an adapter.

    Raises:
        UserError: a target module that the backbone does not have, or layers that it does not have.
    """
    chosen = None if layers is None else _chosen_layers(layers, encoder.backbone.config.num_hidden_layers)
    if adapter is None:
        _train_all(encoder.backbone, chosen, train_embeddings)
        return
    import peft

    targets = _targets(encoder.backbone, adapter.target_modules)
    if chosen is not None:
        # Whole names instead of peft's layers_to_transform, which it ignores where it has whole names already.
        adapter = copy.copy(adapter)
        adapter.target_modules = {name for name in targets if _layer_of(name) in chosen}
        if not adapter.target_modules:
            raise UserError(f"adapter.layers={layers}: none of adapter.config.target_modules lies in these layers")
    encoder.backbone = peft.get_peft_model(encoder.backbone, adapter)


def _train_all(backbone: Any, layers: set[int] | None, embeddings: bool) -> None:
    words = backbone.get_input_embeddings().weight
    word_name = next(name for name, parameter in backbone.named_parameters() if parameter is words)
    # "embeddings.word_embeddings.weight" lies in "embeddings.", with the positions and a norm.
    around = word_name.rsplit(".", 2)[0] + "." if word_name.count(".") > 1 else word_name
    for name, parameter in backbone.named_parameters():
        layer = _layer_of(name)
        if layer is not None:
            parameter.requires_grad_(layers is None or layer in layers)
        elif parameter is words or (layers is not None and name.startswith(around)):
            parameter.requires_grad_(embeddings)
        else:
            parameter.requires_grad_(True)


def _chosen_layers(layers: int | Sequence[int], count: int) -> set[int]:
    numbers = range(count)
    if isinstance(layers, int):
        if not 1 <= abs(layers) <= count:
            raise UserError(f"adapter.layers={layers}: expected 1 to {count} or -{count} to -1, the model's layers")
        return set(numbers[:layers] if layers > 0 else numbers[layers:])
    unknown = sorted(set(layers) - set(numbers))
    if unknown:
        raise UserError(f"adapter.layers={list(layers)}: expected numbers of layers from 0 to {count - 1}")
    return set(layers)


def _layer_of(name: str) -> int | None:
    """Return the number in a dotted name, which is that of the encoder layer; None outside of the layers."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _targets(backbone: nn.Module, targets: str | Collection[str] | None) -> set[str]:
    """Return the whole names of the linear layers that are to be adapted, as peft reads them.

    Args:
        backbone: has them.
        targets: last parts of names, ``all-linear``, or a regular expression of a whole name.

    Raises:
        UserError: a name, or the expression, matches no linear layer.
    """
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if targets == "all-linear":
        return set(linear)
    patterns = [targets] if isinstance(targets, str) else [rf"(.*\.)?{re.escape(end)}" for end in sorted(targets or ())]
    found = [{name for name in linear if re.fullmatch(pattern, name)} for pattern in patterns]
    if not all(found) or not found:
        names = [targets] if isinstance(targets, str) else sorted(targets or ())
        missing = ", ".join(name for name, matches in zip(names, found, strict=True) if not matches) or targets
        ends = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UserError(
            f"adapter.config.target_modules: {missing} matches no linear layer of the model; "
            f"there are {', '.join(ends)} ({', '.join(linear[:12])}{', …' if len(linear) > 12 else ''})"
        )
    return set().union(*found)


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


def plain_backbone(backbone: Any) -> Any:
    """Return the transformers module under an adapter, or the backbone itself where there is none."""
    return backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
