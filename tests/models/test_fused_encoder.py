"""The fused layers against the backbone's own: the same embeddings and the same gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import ElectraConfig, ElectraModel, XLMRobertaConfig, XLMRobertaModel

from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.fused_encoder import FusedEncoder, NotFusableError, drops_units

Load = Callable[..., BiEncoder]

TEXTS = [
    "Host",
    "お茶",
    "",
    "A much longer text about the password of the bridge, which is written on its back.",
    "Die Adresse des Geräts",
    "Die Adresse der Brücke",
    "The key <pad> of <pad>",
]


@pytest.fixture(params=["bert", "xlm-roberta"])
def encoder(request: pytest.FixtureRequest, load_tiny: Load) -> BiEncoder:
    """A tiny encoder without dropout whose weights are large enough for every part to matter."""
    encoder = load_tiny(dropout=0.0)
    if request.param == "xlm-roberta":
        config = XLMRobertaConfig(
            **{name: getattr(encoder.backbone.config, name) for name in ("vocab_size", "hidden_size", "pad_token_id")},
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=140,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            type_vocab_size=1,
            attn_implementation="eager",
        )
        encoder.backbone = XLMRobertaModel(config, add_pooling_layer=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.backbone.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return encoder.eval()


def adapt(encoder: BiEncoder, **options: Any) -> None:
    """Put LoRA on linear layers, with weights as if it had been trained."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "key", "value", "dense"], **options}
    apply_adapter(encoder, peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def gradients(
    encoder: BiEncoder, *, fused: bool, chunk: int = 10_000, kept: int | None = None, precision: Any = "float32"
) -> dict[str, Any]:
    """Return embeddings and every gradient of a loss that weighs each component of each embedding differently."""
    encoder.fused = fused
    encoder.zero_grad()
    embeddings = encoder.embed(encoder.tokenize(TEXTS, "query"), chunk, kept, precision)
    factors = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(3))
    (embeddings * factors).sum().backward()
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    return {"embeddings": embeddings.detach(), **found}


def is_bias_of_keys(name: str) -> bool:
    """Return whether a gradient is zero but for rounding: a key's bias moves all scores of a query alike."""
    return ".key." in name and name.endswith(".bias")


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.abs().max() > 1e-4 or is_bias_of_keys(name), name
        torch.testing.assert_close(other[name], tensor, atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": ["query", "value"]},
        {"target_modules": ["dense"], "layers_to_transform": [1]},
        {"use_rslora": True},
        {"bias": "all"},
        {"bias": "lora_only", "target_modules": ["query", "value"]},
    ],
)
def test_embeddings_and_gradients_equal_the_backbones_own(encoder: BiEncoder, options: dict[str, Any]) -> None:
    adapt(encoder, **options)
    plain = gradients(encoder, fused=False)
    assert_same(plain, gradients(encoder, fused=True), 2e-5)
    assert_same(plain, gradients(encoder, fused=True, chunk=40, kept=30), 2e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_encoding_equals_the_backbones_own(encoder: BiEncoder, pooling: Any) -> None:
    encoder.pooling = pooling
    fused = encoder.encode(TEXTS, "passage")
    encoder.fused = False
    np.testing.assert_allclose(fused, encoder.encode(TEXTS, "passage"), atol=2e-6)


def test_an_adapter_that_is_switched_off_does_not_count(encoder: BiEncoder) -> None:
    base = encoder.encode(TEXTS, "query")
    adapt(encoder)
    adapted = encoder.encode(TEXTS, "query")
    with encoder.backbone.disable_adapter():
        np.testing.assert_allclose(encoder.encode(TEXTS, "query"), base, atol=2e-6)
    assert np.abs(adapted - base).max() > 1e-2


def test_what_is_trained_or_loaded_counts_at_once(encoder: BiEncoder) -> None:
    before = encoder.encode(TEXTS, "query")
    state = {name: tensor * 1.1 for name, tensor in encoder.backbone.state_dict().items()}
    encoder.backbone.load_state_dict(state)
    after = encoder.encode(TEXTS, "query")
    encoder.fused = False
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, encoder.encode(TEXTS, "query"), atol=2e-6)


@pytest.mark.parametrize("learns", ["lora", "everything"])
def test_bfloat16_gradients_point_where_float32_ones_do(encoder: BiEncoder, learns: str) -> None:
    adapt(encoder) if learns == "lora" else apply_adapter(encoder, None)
    exact = gradients(encoder, fused=True)
    rounded = gradients(encoder, fused=True, precision="bfloat16")
    assert rounded.keys() == exact.keys()
    for name, gradient in rounded.items():
        assert gradient.dtype == torch.float32
        if not is_bias_of_keys(name):
            assert torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0) > 0.98, name


def test_a_small_change_is_not_rounded_away_in_bfloat16(encoder: BiEncoder) -> None:
    adapt(encoder)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-3)  # far below what moves a rounded weight of this size
    base = copy.deepcopy(encoder)
    adapted = FusedEncoder(encoder.backbone, torch.bfloat16, learns=True).weights()
    with base.backbone.disable_adapter():
        without = FusedEncoder(base.backbone, torch.bfloat16, learns=True).weights()
    change = sum(
        (one.projections != other.projections).sum().item() for one, other in zip(adapted, without, strict=True)
    )
    assert change > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "not plain LoRA"),
        ({"modules_to_save": ["LayerNorm"]}, "a norm is a ModulesToSaveWrapper"),
    ],
)
def test_what_is_not_plain_lora_is_left_to_the_backbone(
    encoder: BiEncoder, options: dict[str, Any], reason: str
) -> None:
    adapt(encoder, **options)
    with pytest.raises(NotFusableError, match=reason):
        FusedEncoder(encoder.backbone, torch.float32, learns=True)
    assert gradients(encoder, fused=True)["embeddings"].shape == (len(TEXTS), encoder.dimension)


@pytest.mark.parametrize(
    "options",
    [{}, {"layers": [1]}, {"layers": -1}, {"train_embeddings": True}, {"layers": 1, "train_embeddings": True}],
)
def test_full_fine_tuning_has_the_backbones_own_gradients(encoder: BiEncoder, options: dict[str, Any]) -> None:
    apply_adapter(encoder, None, **options)
    assert FusedEncoder(encoder.backbone, torch.float32, learns=True).learnt()
    plain = gradients(encoder, fused=False)
    assert_same(plain, gradients(encoder, fused=True), 2e-5)
    assert_same(plain, gradients(encoder, fused=True, chunk=40, kept=30), 2e-5)


def test_what_lies_outside_of_embeddings_and_layers_and_learns_is_left_to_the_backbone(encoder: BiEncoder) -> None:
    encoder.backbone.head = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(NotFusableError, match="head learns"):
        FusedEncoder(encoder.backbone, torch.float32, learns=True)
    assert len(FusedEncoder(encoder.backbone, torch.float32, learns=False).weights()) == 2
    assert_same(gradients(encoder, fused=False), gradients(encoder, fused=True), 1e-7)


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("is_decoder", True)])
def test_a_backbone_that_computes_otherwise_is_refused(encoder: BiEncoder, key: str, value: Any) -> None:
    setattr(encoder.backbone.config, key, value)
    with pytest.raises(NotFusableError, match=key):
        FusedEncoder(encoder.backbone, torch.float32, learns=False)


def test_another_kind_of_encoder_is_refused_and_encodes_all_the_same(load_tiny: Load) -> None:
    encoder = load_tiny(max_length=60)
    config = ElectraConfig(
        vocab_size=encoder.backbone.config.vocab_size,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        pad_token_id=encoder.tokenizer.pad_token_id,
    )
    encoder.backbone = ElectraModel(config).eval()
    with pytest.raises(NotFusableError, match="electra"):
        FusedEncoder(encoder.backbone, torch.float32, learns=False)
    together = encoder.encode(TEXTS, "query")
    np.testing.assert_allclose(together[3], encoder.encode(TEXTS[3:4], "query")[0], atol=1e-6)


def test_an_adapter_that_is_not_on_a_layer_leaves_it_as_it_is(encoder: BiEncoder) -> None:
    encoder.backbone = peft.get_peft_model(encoder.backbone, peft.LoraConfig(r=2, target_modules=["query"]))
    encoder.backbone.add_adapter("other", peft.LoraConfig(r=2, target_modules=["value"], init_lora_weights=False))
    encoder.backbone.set_adapter("other")
    fused = encoder.encode(TEXTS, "query")
    encoder.fused = False
    np.testing.assert_allclose(fused, encoder.encode(TEXTS, "query"), atol=2e-6)


def test_recomputing_sees_the_device_of_its_inputs(load_tiny: Load) -> None:
    """So that it restores the generator that drops units there."""
    encoder = load_tiny(dropout=0.1).train()
    adapt(encoder)
    inputs = encoder._chunk_runner("float32").inputs(encoder.tokenize(TEXTS[:1], "query"))
    assert all(isinstance(tensor, torch.Tensor) for tensor in inputs)


def test_dropout_is_left_to_the_backbone(load_tiny: Load) -> None:
    encoder = load_tiny(dropout=0.3)
    adapt(encoder)
    assert not drops_units(encoder.backbone)
    encoder.train()
    assert drops_units(encoder.backbone)
    ids = encoder.tokenize(TEXTS, "query")
    torch.manual_seed(0)
    dropped = encoder.embed(ids, 10_000)
    encoder.fused = False
    torch.manual_seed(0)
    assert encoder.embed(ids, 10_000).equal(dropped)
    assert not encoder.embed(ids, 10_000).equal(dropped)


def test_dropout_of_an_adapter_counts(load_tiny: Load) -> None:
    encoder = load_tiny(dropout=0.0)
    adapt(encoder, lora_dropout=0.1)
    assert drops_units(encoder.train().backbone)
