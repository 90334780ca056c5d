"""Finds the parts of a BERT-like encoder and runs them on packed texts, several times as fast as its own modules do.

It knows BERT and RoBERTa, XLM-RoBERTa and CamemBERT, which is what nearly all small multilingual encoders are. Whatever
else a backbone is, or has learn, it says so and the backbone's own forward pass is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retrofit.models.adapters import plain_backbone
from retrofit.models.fused_layers import Adapter, Layer, LayerWeights, Linear, layer_tensors, run_layer
from retrofit.models.packing import PackedTexts

_COUNTS_POSITIONS_AFTER_PADDING = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}
"""By model type: whether a text's first position is the number after the padding token's instead of 0."""


class NotFusableError(Exception):
    """A backbone that the fused layers cannot stand in for, and why."""


class FusedEncoder:
    """The layers of a backbone, multiplied in one precision.

    It refers to the backbone's modules and has no weights of its own, so what is trained or loaded there counts here.

    Attributes:
        backbone: a transformers encoder, possibly wrapped by peft.
        dtype: of the activations and products.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype, *, learns: bool) -> None:
        """Find the parts.

        Args:
            backbone: the encoder.
            dtype: of the activations and products.
            learns: whether gradients are wanted.

        Raises:
            NotFusableError: the backbone is of another kind, its adapter is not plain LoRA, or something learns that is
                no part of the embeddings and layers.
        """
        self.backbone = backbone
        self.dtype = dtype
        self._learns = learns
        plain: Any = plain_backbone(backbone)
        _check_kind(plain)
        self._embeddings: nn.Module = plain.embeddings
        self._layers = [_layer(module, plain.config.num_attention_heads) for module in plain.encoder.layer]
        counts_after_padding = _COUNTS_POSITIONS_AFTER_PADDING[plain.config.model_type]
        self._padding: int | None = plain.config.pad_token_id if counts_after_padding else None
        if learns:
            self._check_learnt()

    def weights(self) -> list[LayerWeights]:
        """Return the weights of all layers as they are now, with the adapters unless they are switched off."""
        adapted = not _adapters_are_off(self.backbone)
        return [LayerWeights.of(layer, self.dtype, adapted=adapted) for layer in self._layers]

    def learnt(self) -> list[Tensor]:
        """Return what gets gradients: weights or adapters of the layers, and of the embeddings, that learn."""
        of_layers = [tensor for layer in self._layers for tensor in layer_tensors(layer) if tensor is not None]
        return [tensor for tensor in (*self._embeddings.parameters(), *of_layers) if tensor.requires_grad]

    def __call__(self, packed: PackedTexts, weights: list[LayerWeights]) -> Tensor:
        """Return the last hidden states ``[tokens, hidden]`` in ``dtype``.

        Args:
            packed: the texts.
            weights: of all layers, see :meth:`weights`.
        """
        embedded = self._embeddings(input_ids=packed.input_ids[None], position_ids=self._positions(packed)[None])
        hidden: Tensor = embedded[0].to(self.dtype)
        for layer, its_weights in zip(self._layers, weights, strict=True):
            hidden = run_layer(hidden, layer, its_weights, packed, self._learns)
        return hidden

    def _positions(self, packed: PackedTexts) -> Tensor:
        """Return the position of every token as the backbone counts them, int64 ``[tokens]``."""
        if self._padding is None:
            return packed.positions
        # RoBERTa and its kin count from the number after the padding token's, and leave out that token itself, which a
        # text may spell out.
        counts = packed.input_ids != self._padding
        running = counts.cumsum(0)
        before = (running - counts.long())[packed.first_tokens()]
        return (running - before[packed.text_of()]) * counts + self._padding

    def _check_learnt(self) -> None:
        known = {id(tensor) for tensor in self.learnt()}
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad and id(parameter) not in known:
                raise NotFusableError(f"{name} learns")


def drops_units(backbone: nn.Module) -> bool:
    """Return whether dropout is at work, in the backbone or its adapters: the fused layers have none."""
    return any(module.training and module.p > 0 for module in backbone.modules() if isinstance(module, nn.Dropout))


def _adapters_are_off(backbone: nn.Module) -> bool:
    # Asked of every module by name: importing peft's class would load peft for an encoder that has no adapter, and
    # transformers' own models have a method that is called the same.
    return any(getattr(module, "disable_adapters", False) is True for module in backbone.modules())


def _check_kind(plain: Any) -> None:
    config = getattr(plain, "config", None)
    kind = getattr(config, "model_type", None)
    if kind not in _COUNTS_POSITIONS_AFTER_PADDING:
        raise NotFusableError(f"a {kind} encoder is none of {', '.join(_COUNTS_POSITIONS_AFTER_PADDING)}")
    expected = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
    for key, value in expected.items():
        if getattr(config, key, value) != value:
            raise NotFusableError(f"{key} is {getattr(config, key)}, not {value}")


def _layer(module: Any, heads: int) -> Layer:
    attention = module.attention
    return Layer(
        query=_linear(attention.self.query),
        key=_linear(attention.self.key),
        value=_linear(attention.self.value),
        attention_output=_linear(attention.output.dense),
        attention_norm=_norm(attention.output.LayerNorm),
        intermediate=_linear(module.intermediate.dense),
        output=_linear(module.output.dense),
        output_norm=_norm(module.output.LayerNorm),
        heads=heads,
    )


def _norm(module: Any) -> nn.LayerNorm:
    if type(module) is not nn.LayerNorm:
        raise NotFusableError(f"a norm is a {type(module).__name__}")
    return module


def _linear(module: Any) -> Linear:
    if type(module) is nn.Linear:
        return Linear(module, None)
    from peft.tuners.lora import Linear as LoraLinear

    if type(module) is not LoraLinear or len(module.active_adapters) != 1:
        raise NotFusableError(f"a linear layer is a {type(module).__name__}, or has not one adapter")
    (name,) = module.active_adapters
    if name not in module.lora_A:
        return Linear(module.base_layer, None)
    if module.merged or name in module.lora_variant or module.lora_bias.get(name) or module.fan_in_fan_out:
        raise NotFusableError("the adapter is not plain LoRA")
    adapter = Adapter(module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name])
    return Linear(module.base_layer, adapter)
