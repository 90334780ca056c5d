"""Texts that are embedded twice: the gradients of one pass, and nothing kept between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.gradient_cache import Chunk, embed_twice

Load = Callable[..., BiEncoder]
CHUNKS: list[Chunk] = [[[1, 2, 3], [4]], [[5, 6]], [[0, 7], [8, 9], [2]]]


class Sums:
    """A model with two tables: a text's embedding is the product of the sums of its tokens' rows.

    Attributes:
        first: float32 ``[10, 4]``.
        second: likewise.
        unused: a weight that no embedding depends on.
        embedded: how many texts were embedded with a gradient, and how many without.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.first, self.second, self.unused = (
            torch.randn(10, 4, generator=generator).requires_grad_() for _ in range(3)
        )
        self.embedded = {True: 0, False: 0}

    @property
    def learnt(self) -> list[Tensor]:
        return [self.first, self.second, self.unused]

    def __call__(self, chunk: Chunk) -> Tensor:
        self.embedded[torch.is_grad_enabled()] += len(chunk)
        return torch.stack([self.first[list(text)].sum(0) * self.second[list(text)].sum(0) for text in chunk])


def test_gradients_are_those_of_one_pass() -> None:
    model = Sums()
    weights = torch.linspace(-1, 1, 24).view(6, 4)
    embeddings = embed_twice(model, CHUNKS, model.learnt, 4)
    assert model.embedded == {True: 0, False: 6}
    found = torch.autograd.grad((embeddings.square() * weights).sum(), model.learnt)
    assert model.embedded == {True: 6, False: 6}
    plain = torch.cat([model(chunk) for chunk in CHUNKS])
    assert torch.equal(embeddings, plain)
    wanted = torch.autograd.grad((plain.square() * weights).sum(), model.learnt[:2])
    for gradient, other in zip(found, wanted, strict=False):
        torch.testing.assert_close(gradient, other)
    assert (found[2] == 0).all()


def test_every_weight_gets_one_gradient_whatever_the_chunks() -> None:
    model, calls = Sums(), []
    model.first.register_post_accumulate_grad_hook(lambda _: calls.append(1))
    embed_twice(model, CHUNKS, model.learnt, 4).sum().backward()  # type: ignore[no-untyped-call]
    assert calls == [1]


def test_where_nothing_learns_there_is_no_gradient() -> None:
    model = Sums()
    assert embed_twice(model, CHUNKS, [], 4).requires_grad is False


@pytest.mark.parametrize("kept_tokens", [None, 0, 40])
def test_an_encoder_keeps_what_it_was_allowed_to(load_tiny: Load, kept_tokens: int | None) -> None:
    encoder = load_tiny(dropout=0.0)
    apply_adapter(encoder, peft.LoraConfig(r=2, target_modules=["query", "dense"], init_lora_weights=False))
    texts = encoder.tokenize([f"text number {number} of a few" for number in range(12)], "query")
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}

    def note(tensor: Any) -> Any:
        # The wide activations: a row for every token that is kept.
        is_wide = tensor.ndim == 2 and tensor.shape[1] == encoder.backbone.config.intermediate_size
        if is_wide and tensor.untyped_storage().data_ptr() not in weights:
            rows.append(len(tensor))
        return tensor

    rows: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        embeddings = encoder.embed(texts, 40, kept_tokens)
    per_token = 2 * encoder.backbone.config.num_hidden_layers  # before and after the activation function
    total = sum(map(len, texts))
    if kept_tokens is None:
        assert sum(rows) == per_token * total
    else:
        assert sum(rows) <= per_token * kept_tokens
        assert bool(rows) is bool(kept_tokens)
    assert embeddings.requires_grad
