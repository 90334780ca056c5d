"""The layers of a BERT-like encoder on packed texts, with LoRA folded into the products and a backward pass of its own.

A frozen layer with low-rank adapters needs three things of its backward pass: the gradient of its input, and of every
adapter the two thin matrices. So the forward pass multiplies with ``W + s B A``, computed once a step, where separate
products with A and B would cost more than their arithmetic; the backward pass takes the thin gradients from the inputs
it has kept anyway. Queries, keys and values are one product. Where weights, biases or norms learn themselves, their
gradients come from the same inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrofit.models.packed_attention import attend, attend_backward, attend_to_encode
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
        module: holds weight and bias; float32 where there is an adapter.
        adapter: what is learnt beside them, if anything.
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

    def backward(
        self, gradient: Tensor, rows: Tensor, mean: Tensor, deviation: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients of the rows, and of weight and bias where they are wanted."""
        shape = [rows.shape[-1]]
        mask = [True, *wanted]
        return torch.ops.aten.native_layer_norm_backward(  # type: ignore[no-any-return]
            gradient, rows, shape, mean, deviation, self.weight, self.bias, mask
        )


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
        scales: the adapters' factors in the order of ``Layer.linears``; None where there is no adapter.
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


def _forward(
    inputs: Tensor, weights: LayerWeights, packed: PackedTexts, learns: bool
) -> tuple[Tensor, _Kept, list[Tensor]]:
    projections = functional.linear(inputs, weights.projections, weights.projections_bias)
    by_head: list[Tensor] = []
    if learns:
        attended, by_head = attend(projections, packed, weights.heads)
    else:
        attended = attend_to_encode(projections, packed, weights.heads)
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
    """One encoder layer, whose backward pass gives the gradients of its input and of what of it learns."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: LayerWeights, packed: PackedTexts, *tensors: Tensor | None) -> Any:
        outputs, kept, by_head = _forward(inputs, weights, packed, learns=True)
        ctx.save_for_backward(*tensors, *kept, *by_head)
        ctx.weights, ctx.packed, ctx.n_tensors = weights, packed, len(tensors)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weights: LayerWeights = ctx.weights
        saved = ctx.saved_tensors
        after = ctx.n_tensors + len(_Kept._fields)
        kept, by_head = _Kept(*saved[ctx.n_tensors : after]), saved[after:]
        learnt = _LearntGradients(saved[: ctx.n_tensors], ctx.needs_input_grad[3:], weights.scales)

        output_sum = learnt.add_norm(
            1, weights.output_norm, gradients[0], kept.output_sum, kept.output_mean, kept.output_deviation
        )
        learnt.add(5, kept.activated, output_sum)
        wide = torch.ops.aten.gelu_backward(output_sum @ weights.output[0], kept.wide)
        learnt.add(4, kept.between, wide)
        between = torch.addmm(output_sum, wide, weights.intermediate[0])
        attention_sum = learnt.add_norm(
            0, weights.attention_norm, between, kept.attention_sum, kept.attention_mean, kept.attention_deviation
        )
        learnt.add(3, kept.attended, attention_sum)
        attended = attention_sum @ weights.attention_output[0]
        projections = attend_backward(attended, by_head, ctx.packed, weights.heads)
        learnt.add_projections(kept.inputs, projections, weights.query_scale)
        inputs = None
        if ctx.needs_input_grad[0]:
            inputs = torch.addmm(attention_sum, projections, weights.projections)
        return inputs, None, None, *learnt.gradients


def layer_tensors(layer: Layer) -> list[Tensor | None]:
    """Return whatever of a layer could learn.

    Returns:
        of every one of ``Layer.linears`` weight, bias, and the adapter's down and up, None twice without an adapter;
        then weight and bias of the norm after attention and of the last.
    """
    tensors: list[Tensor | None] = []
    for linear in layer.linears:
        adapter = (None, None) if linear.adapter is None else (linear.adapter.down, linear.adapter.up)
        tensors += [linear.module.weight, linear.module.bias, *adapter]
    for norm in (layer.attention_norm, layer.output_norm):
        tensors += [norm.weight, norm.bias]
    return tensors


class _LearntGradients:
    """Gradients of what learns of a layer.

    With ``y = x Wᵀ + b``, ``dW = dyᵀ x`` and ``db`` is the sum of ``dy``; an adapter adds ``s (x Aᵀ) Bᵀ`` to ``y``, and
    ``dB = s dyᵀ (x Aᵀ)`` and ``dA = s (dy B)ᵀ x``.

    Attributes:
        gradients: float32, as what learns is, in the order of :func:`layer_tensors`; None for what is frozen.
    """

    _TENSORS_OF_LINEAR = 4
    _LINEARS = 6

    def __init__(
        self, tensors: Sequence[Tensor | None], wanted: Sequence[bool], scales: Sequence[float | None]
    ) -> None:
        self._tensors = tensors
        self._wanted = wanted
        self._scales = scales
        self.gradients: list[Tensor | None] = [None] * len(tensors)

    def add(self, number: int, inputs: Tensor, gradient: Tensor, factor: float = 1.0) -> None:
        """Set the gradients of a linear layer.

        Args:
            number: of the layer among ``Layer.linears``.
            inputs: ``[tokens, in]``.
            gradient: of its outcome, ``[tokens, out]``.
            factor: by which the outcome was multiplied before it was used.
        """
        weight = self._TENSORS_OF_LINEAR * number
        bias, at_down, at_up = weight + 1, weight + 2, weight + 3
        if self._wanted[weight]:
            self._set(weight, gradient.T @ inputs, factor)
        if self._wanted[bias]:
            self._set(bias, gradient.sum(0, dtype=torch.float32), factor)
        down, up, scale = self._tensors[at_down], self._tensors[at_up], self._scales[number]
        if down is None or up is None or scale is None:
            return
        if self._wanted[at_down]:
            self._set(at_down, (gradient @ up.to(inputs.dtype)).T @ inputs, scale * factor)
        if self._wanted[at_up]:
            self._set(at_up, gradient.T @ (inputs @ down.to(inputs.dtype).T), scale * factor)

    def add_projections(self, inputs: Tensor, gradient: Tensor, query_scale: float) -> None:
        """Set the gradients of queries, keys and values from those of all three side by side."""
        for number, (part, factor) in enumerate(zip(gradient.chunk(3, dim=1), (query_scale, 1.0, 1.0), strict=True)):
            self.add(number, inputs, part, factor)

    def add_norm(
        self, number: int, norm: Norm, gradient: Tensor, rows: Tensor, mean: Tensor, deviation: Tensor
    ) -> Tensor:
        """Set the gradients of a norm, 0 for that after attention and 1 for the last, and return that of its rows."""
        weight = self._TENSORS_OF_LINEAR * self._LINEARS + 2 * number
        of_rows, *own = norm.backward(gradient, rows, mean, deviation, self._wanted[weight : weight + 2])
        for position, one in enumerate(own, weight):
            if one is not None:
                self._set(position, one, 1.0)
        return of_rows

    def _set(self, position: int, gradient: Tensor, factor: float) -> None:
        self.gradients[position] = gradient.float().mul_(factor)


def run_layer(inputs: Tensor, layer: Layer, weights: LayerWeights, packed: PackedTexts, learns: bool) -> Tensor:
    """Return a layer's outcome ``[tokens, hidden]``.

    Args:
        inputs: ``[tokens, hidden]`` in the precision of the weights.
        layer: whose tensors get gradients where they learn.
        weights: its weights in this step.
        packed: where the texts lie.
        learns: whether a pass with gradients is to have the same outcome, to the last digit.
    """
    if not torch.is_grad_enabled():
        return _forward(inputs, weights, packed, learns)[0]
    arguments = (inputs, weights, packed, *layer_tensors(layer))
    outputs: Tensor = _FusedLayer.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs
