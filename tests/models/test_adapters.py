"""Adapters: what learns, and that merging and interpolating are what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from retrofit.instantiation import instantiate
from retrofit.models.adapters import apply_adapter, interpolate, merged_weights, plain_backbone
from retrofit.models.bi_encoder import BiEncoder

Load = Callable[..., BiEncoder]
Compose = Callable[..., dict[str, Any]]
TEXTS = ["Host", "お茶", "A much longer text about the password of the bridge.", "קפה"]
ADAPTERS = ["lora", "dora", "full"]


def changed(load: Load, compose: Compose, adapter: str, *overrides: str) -> BiEncoder:
    """A tiny model with an adapter whose trainable weights were moved, as training would."""
    encoder = load()
    torch.manual_seed(0)
    apply_adapter(encoder, instantiate(compose(f"adapter={adapter}", *overrides)["adapter"]["config"]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


def trainable(encoder: BiEncoder) -> set[str]:
    return {name for name, parameter in encoder.backbone.named_parameters() if parameter.requires_grad}


LINEAR = [
    f"encoder.layer.{layer}.{part}"
    for layer in (0, 1)
    for part in (
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "intermediate.dense", "output.dense",
    )
]  # fmt: skip


@pytest.mark.parametrize(("adapter", "kinds"), [("lora", "AB"), ("dora", "ABm")])
def test_a_low_rank_adapter_trains_itself_alone(
    load_tiny: Load, train_config: Compose, adapter: str, kinds: str
) -> None:
    encoder = load_tiny()
    apply_adapter(encoder, instantiate(train_config(f"adapter={adapter}")["adapter"]["config"]))
    suffix = {
        "A": "lora_A.default.weight",
        "B": "lora_B.default.weight",
        "m": "lora_magnitude_vector.default.weight",
    }
    expected = {f"base_model.model.{name}.{suffix[kind]}" for name in LINEAR for kind in kinds}
    assert trainable(encoder) == expected


def test_full_training_trains_all_but_the_word_embeddings(load_tiny: Load, train_config: Compose) -> None:
    encoder = load_tiny()
    config = train_config("adapter=full")["adapter"]["config"]
    assert config is None
    apply_adapter(encoder, instantiate(config))
    names = {name for name, _ in encoder.backbone.named_parameters()}
    assert names - trainable(encoder) == {"embeddings.word_embeddings.weight"}
    assert not any("pooler" in name for name in names)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_fresh_adapter_changes_nothing(load_tiny: Load, train_config: Compose, adapter: str) -> None:
    encoder = load_tiny()
    apply_adapter(encoder, instantiate(train_config(f"adapter={adapter}")["adapter"]["config"]))
    np.testing.assert_allclose(encoder.eval().encode(TEXTS, "query"), load_tiny().encode(TEXTS, "query"), atol=1e-6)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_merged_weights_embed_as_the_adapter_does(load_tiny: Load, train_config: Compose, adapter: str) -> None:
    encoder, plain = changed(load_tiny, train_config, adapter), load_tiny()
    base = plain.encode(TEXTS, "query")
    expected = encoder.encode(TEXTS, "query")
    assert np.abs(expected - base).max() > 1e-2
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}

    weights = merged_weights(encoder)
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in plain.backbone.state_dict().items()
    }
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {torch.float32}
    plain.backbone.load_state_dict(weights)
    np.testing.assert_allclose(plain.encode(TEXTS, "query"), expected, atol=1e-5)

    after = encoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert hasattr(encoder.backbone, "merge_and_unload") == (adapter != "full")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_ends_of_an_interpolation_are_base_and_retrofitted(
    load_tiny: Load, train_config: Compose, adapter: str
) -> None:
    base = load_tiny().backbone.state_dict()
    retrofitted = merged_weights(changed(load_tiny, train_config, adapter))
    for weight, end in ((0.0, base), (1.0, retrofitted)):
        between = interpolate(base, retrofitted, weight)
        assert between.keys() == base.keys()
        assert all(torch.equal(between[name], tensor) for name, tensor in end.items())
    half = interpolate(base, retrofitted, 0.5)
    moved = 0
    for name, tensor in base.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(half[name], (tensor + retrofitted[name]) / 2, atol=1e-6, rtol=0)
            moved += int(not torch.equal(half[name], tensor))
    assert moved >= len(LINEAR)


def test_half_way_is_a_lora_of_half_the_scale(load_tiny: Load, train_config: Compose) -> None:
    base = load_tiny().backbone.state_dict()
    whole = merged_weights(changed(load_tiny, train_config, "lora"))
    halved = merged_weights(changed(load_tiny, train_config, "lora", "adapter.config.lora_alpha=16"))
    half = interpolate(base, whole, 0.5)
    for name in base:
        torch.testing.assert_close(half[name], halved[name], atol=1e-6, rtol=0)
    delta = (half["encoder.layer.0.output.dense.weight"] - base["encoder.layer.0.output.dense.weight"]).abs().max()
    assert delta > 1e-3


def test_interpolation_leaves_its_inputs_alone() -> None:
    base = {"weight": torch.zeros(3), "position_ids": torch.arange(3)}
    retrofitted = {"weight": torch.ones(3), "position_ids": torch.arange(3)}
    between = interpolate(base, retrofitted, 0.25)
    assert between["weight"].tolist() == [0.25] * 3
    assert between["position_ids"].tolist() == [0, 1, 2]
    assert base["weight"].tolist() == [0] * 3
    assert retrofitted["weight"].tolist() == [1] * 3


def test_the_plain_backbone_is_the_transformers_module(load_tiny: Load, train_config: Compose) -> None:
    for adapter in ADAPTERS:
        assert type(plain_backbone(changed(load_tiny, train_config, adapter).backbone)).__name__ == "BertModel"
