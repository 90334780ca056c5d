"""Every variant of what learns: after real steps the adapter, the merged weights and the exported model are one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.losses.info_nce import info_nce
from retrofit.models.adapters import apply_adapter, merged_weights
from retrofit.models.bi_encoder import BiEncoder, pad
from retrofit.models.export import export_sentence_transformer

Load = Callable[..., BiEncoder]
Compose = Callable[..., dict[str, Any]]
TEXTS = ["Host", "お茶", "A much longer text about the password of the bridge.", "קפה"]

# The linear layers of one of the two layers, by (inputs, outputs).
HIDDEN, INNER = 32, 64
SIZES = {
    "attention.self.query": (HIDDEN, HIDDEN),
    "attention.self.key": (HIDDEN, HIDDEN),
    "attention.self.value": (HIDDEN, HIDDEN),
    "attention.output.dense": (HIDDEN, HIDDEN),
    "intermediate.dense": (HIDDEN, INNER),
    "output.dense": (INNER, HIDDEN),
}
ALL = tuple(SIZES)
ATTENTION = ("attention.self.query", "attention.self.value")
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


def lora(
    rank: int, layers: int, names: tuple[str, ...] = ALL, *, magnitudes: bool = False, biases: bool = False
) -> int:
    """The number of weights of low-rank adapters: two matrices a linear layer, and per output a magnitude or bias."""
    sizes = [SIZES[name] for name in names]
    return layers * sum(rank * (inputs + outputs) + (magnitudes + biases) * outputs for inputs, outputs in sizes)


def plain_layers(layers: int) -> int:
    """The number of weights of whole layers: matrices and biases, and two norms."""
    return layers * (sum(inputs * outputs + outputs for inputs, outputs in SIZES.values()) + 2 * 2 * HIDDEN)


def weights_of(
    names: tuple[str, ...], layers: tuple[int, ...] = (0, 1), kinds: tuple[str, ...] = ("weight",)
) -> set[str]:
    return {f"encoder.layer.{layer}.{name}.{kind}" for layer in layers for name in names for kind in kinds}


BOTH = ("weight", "bias")
AROUND = {"embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"} | {
    f"embeddings.LayerNorm.{kind}" for kind in BOTH
}
WORDS = {"embeddings.word_embeddings.weight"}
LAYERS = weights_of((*ALL, *NORMS), kinds=BOTH)
LAST = weights_of((*ALL, *NORMS), (1,), BOTH)

# Overrides, what they change in the plain model, and how many weights learn; None: all that changes.
VARIANTS: dict[str, tuple[list[str], set[str], int | None]] = {
    "lora": ([], weights_of(ALL), lora(16, 2)),
    "rank": (["adapter.config.r=3", "adapter.config.lora_alpha=5"], weights_of(ALL), lora(3, 2)),
    "targets": (["adapter.config.target_modules=[query,value]"], weights_of(ATTENTION), lora(16, 2, ATTENTION)),
    "all linear": (["adapter.config.target_modules=all-linear"], weights_of(ALL), lora(16, 2)),
    "pattern": (
        [r"adapter.config.target_modules='.*\.self\.(query|value)'", "adapter.layers=1"],
        weights_of(ATTENTION, (0,)),
        lora(16, 1, ATTENTION),
    ),
    "dora": (["adapter=dora"], weights_of(ALL), lora(16, 2, magnitudes=True)),
    "rslora": (["adapter.config.use_rslora=true", "adapter.config.lora_alpha=8"], weights_of(ALL), lora(16, 2)),
    "first": (["adapter.layers=1"], weights_of(ALL, (0,)), lora(16, 1)),
    "last": (["adapter.layers=-1", "adapter.config.target_modules=all-linear"], weights_of(ALL, (1,)), lora(16, 1)),
    "list": (["adapter.layers=[1]", "adapter=dora"], weights_of(ALL, (1,)), lora(16, 1, magnitudes=True)),
    "dropout": (["adapter.config.lora_dropout=0.3"], weights_of(ALL), lora(16, 2)),
    "bias": (["adapter.config.bias=lora_only"], weights_of(ALL, kinds=BOTH), lora(16, 2, biases=True)),
    "full": (["adapter=full"], LAYERS | AROUND, None),
    "full, words": (["adapter=full", "adapter.train_embeddings=true"], LAYERS | AROUND | WORDS, None),
    "full, last": (["adapter=full", "adapter.layers=-1"], LAST, plain_layers(1)),
    "full, last and words": (
        ["adapter=full", "adapter.layers=-1", "adapter.train_embeddings=true"], LAST | AROUND | WORDS, None,
    ),
}  # fmt: skip


def adapted(load: Load, compose: Compose, overrides: list[str], **options: Any) -> BiEncoder:
    encoder = load(**options)
    adapter = compose(*overrides)["adapter"]
    torch.manual_seed(0)
    apply_adapter(encoder, instantiate(adapter["config"]), adapter["layers"], adapter["train_embeddings"])
    return encoder


def train(encoder: BiEncoder, steps: int = 4) -> None:
    """A few steps of InfoNCE between two texts each."""
    encoder.train()
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
    relevance = 2 * torch.eye(len(TEXTS), dtype=torch.int8) - 1
    for _ in range(steps):
        queries, passages = (
            encoder(*pad(encoder.tokenize(TEXTS, kind), encoder.tokenizer.pad_token_id))
            for kind in ("query", "passage")
        )
        optimizer.zero_grad()
        info_nce(queries @ passages.T / 0.05, relevance).backward()
        optimizer.step()
    encoder.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_adapter_merged_weights_and_exported_model_are_one(
    load_tiny: Load, train_config: Compose, tmp_path: Path, variant: str
) -> None:
    from sentence_transformers import SentenceTransformer

    overrides, changed, learning = VARIANTS[variant]
    base = load_tiny()
    encoder = adapted(load_tiny, train_config, overrides)
    assert (base.backbone.config.hidden_size, base.backbone.config.intermediate_size) == (HIDDEN, INNER)
    plain = base.backbone.state_dict()
    trainable = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    assert trainable == (sum(plain[name].numel() for name in changed) if learning is None else learning)

    train(encoder)
    merged = merged_weights(encoder)
    moved = {name for name, tensor in plain.items() if not torch.equal(merged[name], tensor)}
    assert moved == changed
    if not changed >= WORDS:
        assert torch.equal(merged["embeddings.word_embeddings.weight"], plain["embeddings.word_embeddings.weight"])

    expected = {kind: encoder.encode(TEXTS, kind) for kind in ("query", "passage")}
    assert np.abs(expected["query"] - base.encode(TEXTS, "query")).max() > 1e-2
    if hasattr(encoder.backbone, "merge_and_unload"):
        encoder.backbone.save_pretrained(str(tmp_path / "adapter"))
        reloaded = load_tiny()
        reloaded.backbone = peft.PeftModel.from_pretrained(reloaded.backbone, str(tmp_path / "adapter")).eval()
        for kind, embeddings in expected.items():
            np.testing.assert_allclose(reloaded.encode(TEXTS, kind), embeddings, atol=1e-5)
    base.backbone.load_state_dict(merged)
    export_sentence_transformer(encoder, merged, tmp_path / "model")
    exported = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    for kind, embeddings in expected.items():
        np.testing.assert_allclose(base.encode(TEXTS, kind), embeddings, atol=1e-5)
        np.testing.assert_allclose(exported.encode(TEXTS, prompt_name=kind), embeddings, atol=1e-5)


@pytest.mark.parametrize(("rank_stabilised", "expected"), [(False, 32 / 16), (True, 32 / math.sqrt(16))])
def test_the_change_is_the_product_of_the_matrices_times_the_scale(
    load_tiny: Load, train_config: Compose, rank_stabilised: bool, expected: float
) -> None:
    overrides = [f"adapter.config.use_rslora={str(rank_stabilised).lower()}"]
    encoder, name = adapted(load_tiny, train_config, overrides), "encoder.layer.1.intermediate.dense"
    train(encoder)
    state = encoder.backbone.state_dict()
    a, b = (state[f"base_model.model.{name}.lora_{matrix}.default.weight"] for matrix in "AB")
    change = merged_weights(encoder)[f"{name}.weight"] - load_tiny().backbone.state_dict()[f"{name}.weight"]
    torch.testing.assert_close(change, expected * b @ a, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("targets", "missing"),
    [("[query,valeu]", "valeu"), ("[q_proj]", "q_proj"), ("encoder", "encoder"), ("[LayerNorm]", "LayerNorm")],
)
def test_a_target_that_the_model_does_not_have_is_named_with_those_it_has(
    load_tiny: Load, train_config: Compose, targets: str, missing: str
) -> None:
    with pytest.raises(UserError) as caught:
        adapted(load_tiny, train_config, [f"adapter.config.target_modules={targets}"])
    message = str(caught.value)
    assert message.startswith(f"adapter.config.target_modules: {missing} matches no linear layer")
    assert "there are dense, key, query, value (encoder.layer.0.attention.self.query, " in message
    assert "\n" not in message


@pytest.mark.parametrize("layers", ["3", "-3", "[2]", "[0,-1]", "0"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_layers_that_the_model_does_not_have_are_named(
    load_tiny: Load, train_config: Compose, adapter: str, layers: str
) -> None:
    with pytest.raises(UserError, match=r"^adapter\.layers=.*: expected "):
        adapted(load_tiny, train_config, [f"adapter={adapter}", f"adapter.layers={layers}"])
