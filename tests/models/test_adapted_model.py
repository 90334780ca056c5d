"""An adapter merged into its base in memory: the two ends, what lies between, and which bases it fits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import PROMPTS

from retrofit.errors import UserError
from retrofit.models.adapted_model import AdaptedModel
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.search_model import SearchModel

TEXTS = ["Host", "お茶", "A much longer text about the password of the bridge.", "קפה"]
RANK, ALPHA = 2, 8
LAYER = "encoder.layer.1.intermediate.dense"
WEIGHTS = "adapter_model.safetensors"
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}, "biases": {"bias": "lora_only"},
}  # fmt: skip


def moved(encoder: BiEncoder, **variant: Any) -> BiEncoder:
    """The encoder with an adapter whose weights are as if it had been trained."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["query", "dense"], **variant)
    apply_adapter(encoder, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += parameter.requires_grad * 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


@pytest.fixture
def base(tiny: Path) -> SearchModel:
    return SearchModel(tiny, "mean", PROMPTS, 128)


@pytest.fixture
def adapter(load_tiny: Callable[..., BiEncoder], tmp_path: Path) -> Path:
    moved(load_tiny()).backbone.save_pretrained(str(tmp_path / "run" / "adapter"))
    return tmp_path / "run" / "adapter"


@pytest.mark.parametrize("variant", VARIANTS)
def test_weight_0_is_the_base_and_1_the_adapter(
    variant: str, base: SearchModel, load_tiny: Callable[..., BiEncoder], tmp_path: Path
) -> None:
    adapted = moved(load_tiny(), **VARIANTS[variant])
    adapted.backbone.save_pretrained(str(tmp_path / "adapter"))
    none, whole = (AdaptedModel(base, tmp_path / "adapter", weight) for weight in (0, 1))
    whole.check()
    for kind in ("query", "passage"):
        plain, expected = load_tiny().encode(TEXTS, kind), adapted.encode(TEXTS, kind)  # type: ignore[arg-type]
        assert np.abs(expected - plain).max() > 1e-2
        np.testing.assert_allclose(whole.load().encode(TEXTS, kind), expected, atol=1e-5)  # type: ignore[arg-type]
        np.testing.assert_array_equal(none.load().encode(TEXTS, kind), plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_between_them_a_part_of_the_product_is_added(base: SearchModel, adapter: Path, weight: float) -> None:
    stored = load_file(str(adapter / WEIGHTS))
    down, up = (stored[f"base_model.model.{LAYER}.lora_{part}.weight"].double() for part in "AB")
    plain = load_file(str(base.folder / "model.safetensors"))
    found = AdaptedModel(base, adapter, weight).load().backbone.state_dict()
    expected = plain[f"{LAYER}.weight"].double() + weight * ALPHA / RANK * up @ down
    torch.testing.assert_close(found[f"{LAYER}.weight"].double(), expected, atol=1e-6, rtol=0)
    untouched = [name for name in plain if not name.endswith(("query.weight", "dense.weight"))]
    assert all(torch.equal(found[name], plain[name]) for name in untouched)
    assert found.keys() == plain.keys()


def test_it_is_as_large_as_its_base_and_has_its_prompts(base: SearchModel, adapter: Path) -> None:
    model = AdaptedModel(base, adapter, 0.5)
    encoder = model.load()
    assert model.size == base.size
    assert model.size.parameters == sum(parameter.numel() for parameter in encoder.parameters())
    assert model.used_prompts == encoder.prompts == PROMPTS
    assert not encoder.backbone.training


def test_its_identity_is_that_of_all_its_embeddings_depend_on(base: SearchModel, adapter: Path, tmp_path: Path) -> None:
    model = AdaptedModel(base, adapter, 0.5)
    elsewhere = shutil.copytree(adapter, tmp_path / "elsewhere")
    assert replace(model, adapter=elsewhere).identity == model.identity
    weights = load_file(str(elsewhere / WEIGHTS))
    save_file({name: 2 * tensor for name, tensor in weights.items()}, str(elsewhere / WEIGHTS))
    otherwise = [
        model,
        replace(model, weight=0.25),
        replace(model, base=replace(base, max_length=4)),
        replace(model, adapter=elsewhere),
    ]
    scaled = shutil.copytree(adapter, tmp_path / "scaled")
    config = (scaled / "adapter_config.json").read_text(encoding="utf-8")
    assert f'"lora_alpha": {ALPHA}' in config
    config = config.replace(f'"lora_alpha": {ALPHA}', '"lora_alpha": 1')
    (scaled / "adapter_config.json").write_text(config, encoding="utf-8")
    otherwise.append(replace(model, adapter=scaled))
    assert len({str(each.identity) for each in otherwise}) == len(otherwise)


def test_the_base_may_put_the_name_of_its_model_before_those_of_its_layers(
    base: SearchModel, adapter: Path, tmp_path: Path
) -> None:
    named = shutil.copytree(base.folder, tmp_path / "named")
    weights = load_file(str(named / "model.safetensors"))
    save_file({f"bert.{name}": tensor for name, tensor in weights.items()}, str(named / "model.safetensors"))
    AdaptedModel(replace(base, folder=named), adapter, 1).check()


@pytest.mark.parametrize(
    ("part", "shape", "expected"),
    [
        ("A", (RANK, 16), rf"A\.weight of {LAYER} is \[2, 16\], the base has \[64, 32\]"),
        ("B", (48, RANK), rf"B\.weight of {LAYER} is \[48, 2\], the base has \[64, 32\]"),
        ("A", (RANK + 1, 32), None),  # the rank is the adapter's own
    ],
)
def test_an_adapter_of_layers_of_another_width_is_refused(
    base: SearchModel, adapter: Path, part: str, shape: tuple[int, int], expected: str | None
) -> None:
    weights = load_file(str(adapter / WEIGHTS))
    weights[f"base_model.model.{LAYER}.lora_{part}.weight"] = torch.zeros(shape)
    save_file(weights, str(adapter / WEIGHTS))
    model = AdaptedModel(base, adapter, 1)
    if expected is None:
        model.check()
        return
    with pytest.raises(UserError, match=rf"^models: run/adapter is no adapter of {base.folder.name}: {expected}$"):
        model.check()
