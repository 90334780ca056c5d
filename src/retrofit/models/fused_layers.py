"""The layers of a BERT-like encoder on packed texts, with LoRA folded into the products and a backward pass of its own.

A frozen layer with low-rank adapters needs three things of its backward pass: the gradient of its input, and of every
adapter the two thin matrices. So the forward pass multiplies with ``W + s B A``, computed once a step, where separate
products with A and B would cost more than their arithmetic; the backward pass takes the thin gradients from the inputs
it has kept anyway. Queries, keys and values are one product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrofit.models.packed_attention import attend, attend_backward
from retrofit.models.packing import PackedTexts


class Adapter(NamedTuple):
    """The trained part of a linear layer: its weight is ``base + scale · up @ down`` (Hu et al. 2022, eq. 3).

    Attributes:
        down: float32 ``[rank, in]``, "A".
        up: float32 ``[out, rank]``, "B".
        scale: factor.
    """

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Linear:
    """A linear layer as the encoder's modules have it.

    Attributes:
        module: holds the frozen weight and bias; float32 where there is an adapter.
        adapter: what is learnt, None where the layer is frozen.
    """

    module: nn.Linear
    adapter: Adapter | None

    def weight(self, *, adapted: bool) -> Tensor:
        """Return the weight ``[out, in]``, with or without the adapter.

        Adding in float32 before rounding matters in bfloat16: a small change still moves the share of weights that lie
        near the border between two numbers, where rounded weights would swallow it.
        """
        if self.adapter is None or not adapted:
            return self.module.weight
        return torch.addmm(self.module.weight, self.adapter.up, self.adapter.down, alpha=self.adapter.scale)


@dataclass(frozen=True)
class Layer:
    """The parts of one encoder layer; the names follow its forward pass.

    Attributes:
        query: projection.
        key: projection.
        value: projection.
        attention_output: projection after attention.
        attention_norm: over the sum with the layer's input.
        intermediate: into the wide space, before GELU.
        output: back from it.
        output_norm: over the sum with the attention's outcome.
        heads: attention heads.
    """

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: nn.LayerNorm
    intermediate: Linear
    output: Linear
    output_norm: nn.LayerNorm
    heads: int

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The six linear layers in the order of the forward pass."""
        return self.query, self.key, self.value, self.attention_output, self.intermediate, self.output


class Norm(NamedTuple):
    """A layer norm's numbers."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalised rows, and mean and reciprocal deviation for :meth:`backward`."""
        return torch.native_layer_norm(rows, [rows.shape[-1]], self.weight, self.bias, self.epsilon)

    def backward(self, gradient: Tensor, rows: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Return the gradient of the rows."""
        wanted = [True, False, False]
        shape = [rows.shape[-1]]
        result = torch.ops.aten.native_layer_norm_backward(
            gradient, rows, shape, mean, deviation, self.weight, self.bias, wanted
        )
        return result[0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LayerWeights:
    """A layer's weights as they are multiplied with in this step, in the precision of the products.

    Attributes:
        projections: weight ``[3 · hidden, hidden]`` of queries, keys and values; the queries' part is scaled.
        projections_bias: ``[3 · hidden]``.
        attention_output: weight ``[hidden, hidden]`` and bias.
        attention_norm: see :class:`Layer`.
        intermediate: weight ``[wide, hidden]`` and bias.
        output: weight ``[hidden, wide]`` and bias.
        output_norm: see :class:`Layer`.
        heads: attention heads.
        query_scale: factor that is part of the queries' projection.
        scales: the adapters' factors in the order of ``Layer.linears``; None for a frozen layer.
    """

    projections: Tensor
    projections_bias: Tensor
    attention_output: tuple[Tensor, Tensor]
    attention_norm: Norm
    intermediate: tuple[Tensor, Tensor]
    output: tuple[Tensor, Tensor]
    output_norm: Norm
    heads: int
    query_scale: float
    scales: tuple[float | None, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, layer: Layer, dtype: torch.dtype, *, adapted: bool) -> LayerWeights:
        """Return the weights of a layer, with or without its adapters."""
        hidden = layer.query.module.in_features
        scale = float((hidden // layer.heads) ** -0.5)
        factors = (scale, 1.0, 1.0)
        parts = tuple(zip((layer.query, layer.key, layer.value), factors, strict=True))

        def pair(linear: Linear) -> tuple[Tensor, Tensor]:
            return linear.weight(adapted=adapted).to(dtype), linear.module.bias.to(dtype)

        return cls(
            torch.cat([linear.weight(adapted=adapted) * factor for linear, factor in parts]).to(dtype),
            torch.cat([linear.module.bias * factor for linear, factor in parts]).to(dtype),
            pair(layer.attention_output),
            _norm(layer.attention_norm, dtype),
            pair(layer.intermediate),
            pair(layer.output),
            _norm(layer.output_norm, dtype),
            layer.heads,
            scale,
            tuple(None if linear.adapter is None or not adapted else linear.adapter.scale for linear in layer.linears),
        )


def _norm(module: nn.LayerNorm, dtype: torch.dtype) -> Norm:
    return Norm(module.weight.to(dtype), module.bias.to(dtype), module.eps)


class _Kept(NamedTuple):
    """What a layer's backward pass needs of its forward pass, ``[tokens, …]`` each."""

    inputs: Tensor
    attended: Tensor
    attention_sum: Tensor
    attention_mean: Tensor
    attention_deviation: Tensor
    between: Tensor
    wide: Tensor
    activated: Tensor
    output_sum: Tensor
    output_mean: Tensor
    output_deviation: Tensor


def _forward(inputs: Tensor, weights: LayerWeights, packed: PackedTexts) -> tuple[Tensor, _Kept, list[Tensor]]:
    projections = functional.linear(inputs, weights.projections, weights.projections_bias)
    attended, by_head = attend(projections, packed, weights.heads)
    attention_sum = functional.linear(attended, *weights.attention_output).add_(inputs)
    between, attention_mean, attention_deviation = weights.attention_norm(attention_sum)
    wide = functional.linear(between, *weights.intermediate)
    activated = functional.gelu(wide)
    output_sum = functional.linear(activated, *weights.output).add_(between)
    outputs, output_mean, output_deviation = weights.output_norm(output_sum)
    kept = _Kept(
        inputs,
        attended,
        attention_sum,
        attention_mean,
        attention_deviation,
        between,
        wide,
        activated,
        output_sum,
        output_mean,
        output_deviation,
    )
    return outputs, kept, by_head


class _FusedLayer(torch.autograd.Function):
    """One encoder layer, whose backward pass gives the gradients of its input and its adapters alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: LayerWeights, packed: PackedTexts, *adapters: Tensor | None) -> Any:
        outputs, kept, by_head = _forward(inputs, weights, packed)
        ctx.save_for_backward(*adapters, *kept, *by_head)
        ctx.weights, ctx.packed, ctx.n_adapters = weights, packed, len(adapters)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weights: LayerWeights = ctx.weights
        saved = ctx.saved_tensors
        after = ctx.n_adapters + len(_Kept._fields)
        adapters, kept, by_head = saved[: ctx.n_adapters], _Kept(*saved[ctx.n_adapters : after]), saved[after:]
        thin = _ThinGradients(adapters, weights.scales)

        output_sum = weights.output_norm.backward(
            gradients[0], kept.output_sum, kept.output_mean, kept.output_deviation
        )
        thin.add(5, kept.activated, output_sum)
        wide = torch.ops.aten.gelu_backward(output_sum @ weights.output[0], kept.wide)
        thin.add(4, kept.between, wide)
        between = torch.addmm(output_sum, wide, weights.intermediate[0])
        attention_sum = weights.attention_norm.backward(
            between, kept.attention_sum, kept.attention_mean, kept.attention_deviation
        )
        thin.add(3, kept.attended, attention_sum)
        attended = attention_sum @ weights.attention_output[0]
        projections = attend_backward(attended, by_head, ctx.packed, weights.heads)
        thin.add_projections(kept.inputs, projections, weights.query_scale)
        inputs = None
        if ctx.needs_input_grad[0]:
            inputs = torch.addmm(attention_sum, projections, weights.projections)
        return inputs, None, None, *thin.gradients


class _ThinGradients:
    """Gradients of the adapters of a layer.

    With ``y = x Wᵀ + s (x Aᵀ) Bᵀ``, ``dB = s dyᵀ (x Aᵀ)`` and ``dA = s (dy B)ᵀ x``.

    Attributes:
        gradients: of down and up of every linear layer in turn, in their precision, None for a frozen one.
    """

    def __init__(self, adapters: Sequence[Tensor | None], scales: Sequence[float | None]) -> None:
        self._adapters = adapters
        self._scales = scales
        self.gradients: list[Tensor | None] = [None] * len(adapters)

    def add(self, number: int, inputs: Tensor, gradient: Tensor, factor: float = 1.0) -> None:
        """Set the gradients of a linear layer.

        Args:
            number: of the layer among ``Layer.linears``.
            inputs: ``[tokens, in]``.
            gradient: of its outcome, ``[tokens, out]``.
            factor: by which the outcome was multiplied before it was used.
        """
        down, up, scale = self._adapters[2 * number], self._adapters[2 * number + 1], self._scales[number]
        if down is None or up is None or scale is None:
            return
        dtype = inputs.dtype
        narrow = inputs @ down.to(dtype).T
        narrow_gradient = gradient @ up.to(dtype)
        self.gradients[2 * number] = (narrow_gradient.T @ inputs).to(down.dtype).mul_(scale * factor)
        self.gradients[2 * number + 1] = (gradient.T @ narrow).to(up.dtype).mul_(scale * factor)

    def add_projections(self, inputs: Tensor, gradient: Tensor, query_scale: float) -> None:
        """Set the gradients of queries, keys and values from those of all three side by side."""
        for number, (part, factor) in enumerate(zip(gradient.chunk(3, dim=1), (query_scale, 1.0, 1.0), strict=True)):
            self.add(number, inputs, part, factor)


def adapter_tensors(layer: Layer) -> Iterator[Tensor | None]:
    """Yield down and up of every linear layer of a layer, None twice for a frozen one."""
    for linear in layer.linears:
        yield from (None, None) if linear.adapter is None else (linear.adapter.down, linear.adapter.up)


def run_layer(inputs: Tensor, layer: Layer, weights: LayerWeights, packed: PackedTexts) -> Tensor:
    """Return a layer's outcome ``[tokens, hidden]``.

    Args:
        inputs: ``[tokens, hidden]`` in the precision of the weights.
        layer: whose adapters get gradients.
        weights: its weights in this step.
        packed: where the texts lie.
    """
    if not torch.is_grad_enabled():
        return _forward(inputs, weights, packed)[0]
    arguments = (inputs, weights, packed, *adapter_tensors(layer))
    outputs: Tensor = _FusedLayer.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs
