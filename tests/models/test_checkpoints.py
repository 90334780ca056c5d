"""Where weights come from: local folders in place of the hub, and the tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import (
    files_fingerprint,
    hub_checkpoint,
    state_fingerprint,
    tiny_checkpoint,
    weights_fingerprint,
)

ARCHITECTURES = {
    "me5_small": "BertModel",
    "me5_base": "XLMRobertaModel",
    "me5_large": "XLMRobertaModel",
    "xlmr_base": "XLMRobertaModel",
}
TEXTS = ["Host", "お茶", "A much longer text about the password of the bridge.", "קפה"]


def small_checkpoint(folder: Path, architecture: str, tokenizer: Path, *, pooler: bool = True) -> Path:
    """Write a random checkpoint of an architecture; the hub's have a pooling layer."""
    import transformers

    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder)
    config_class = getattr(transformers, architecture.replace("Model", "Config"))
    config = config_class(
        vocab_size=260,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        # XLM-RoBERTa counts positions from after the padding index: 514 for 512 tokens.
        max_position_embeddings=514 if architecture == "XLMRobertaModel" else 512,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    getattr(transformers, architecture)(config, add_pooling_layer=pooler).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model", ARCHITECTURES)
@pytest.mark.parametrize("pooler", [True, False], ids=["with pooler", "without pooler"])
def test_every_hub_model_of_the_configuration_loads_from_a_local_folder(
    model: str, pooler: bool, tiny: Path, tmp_path: Path, train_config: Callable[..., dict[str, Any]]
) -> None:
    folder = small_checkpoint(tmp_path / "local copy", ARCHITECTURES[model], tiny, pooler=pooler)
    config = train_config(f"model={model}", f"model.checkpoint.name='{folder}'")["model"]
    assert config["name"] == model
    assert instantiate(config["checkpoint"]) == folder
    encoder = BiEncoder.load(
        instantiate(config["checkpoint"]), config["pooling"], config["prompts"], config["max_length"],
        attention="eager", dropout=config["dropout"],
    )  # fmt: skip
    assert type(encoder.backbone).__name__ == ARCHITECTURES[model]
    assert encoder.dimension == 16
    assert not any("pooler" in name for name, _ in encoder.named_parameters())

    import transformers

    reference = getattr(transformers, ARCHITECTURES[model]).from_pretrained(folder).eval()
    expected = []
    for text in TEXTS:
        ids = torch.tensor([encoder.tokenizer(config["prompts"]["query"] + text)["input_ids"]])
        with torch.inference_mode():
            mean = reference(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0)
        expected.append((mean / mean.norm()).numpy())
    np.testing.assert_allclose(encoder.encode(TEXTS, "query"), expected, atol=1e-5)

    long = encoder.encode(["x" * 2000], "passage")
    assert len(encoder.tokenize(["x" * 2000], "passage")[0]) == 512
    assert np.isfinite(long).all()


def test_pickled_weights_are_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        hub_checkpoint(str(folder))
    message = str(caught.value)
    assert str(folder) in message
    assert "safetensors" in message
    assert "model.checkpoint.name" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-folder/with/slashes", "not a name"])
def test_an_unknown_name_without_network_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        hub_checkpoint(name)
    message = str(caught.value)
    assert message.startswith(f"model.checkpoint.name={name}: ")
    assert "\n" not in message
    assert "model=embedded" in message


def test_an_unknown_name_reaches_the_user_through_the_configuration(
    train_config: Callable[..., dict[str, Any]],
) -> None:
    config = train_config("model=me5_small", "model.checkpoint.name=nobody/no-such-model")
    with pytest.raises(UserError, match=r"^model\.checkpoint\.name=nobody/no-such-model: "):
        instantiate(config["model"]["checkpoint"])


def test_the_tiny_checkpoint_is_the_same_in_every_cache(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first, second = (tiny_checkpoint(tmp_path / name) for name in ("a", "b"))
    assert first != second
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert tiny_checkpoint(tmp_path / "a") == first


def test_seeds_of_the_tiny_checkpoint_differ(tmp_path: Path) -> None:
    prints = {weights_fingerprint(tiny_checkpoint(tmp_path, seed)) for seed in (0, 1)}
    assert len(prints) == 2


def test_the_tiny_tokenizer_reads_any_script(encoder: BiEncoder) -> None:
    for text in ("Schlüssel", "暗証", "קפה", "🔑"):
        ids = encoder.tokenize([text], "query")[0]
        assert encoder.tokenizer.unk_token_id not in ids
        assert encoder.tokenizer.decode(ids, skip_special_tokens=True) == f"query: {text}"


def test_the_fingerprint_of_weights_is_that_of_their_files_alone(tiny: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny, tmp_path / "elsewhere")
    assert weights_fingerprint(copied) == weights_fingerprint(tiny)
    (copied / "config.json").write_text("{}")
    assert weights_fingerprint(copied) == weights_fingerprint(tiny)
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    assert weights_fingerprint(copied) != weights_fingerprint(tiny)


def test_the_fingerprint_of_files_does_not_tell_how_long_making_them_took(tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    (copy / "manifest.json").write_text('{"seconds": 1000.0}', encoding="utf-8")
    assert files_fingerprint(copy) == files_fingerprint(tiny)
    (copy / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert files_fingerprint(copy) != files_fingerprint(tiny)


def test_weights_in_memory_are_told_apart_by_their_values() -> None:
    state = {"a": torch.ones(2, 3), "b": torch.tensor(1)}
    assert state_fingerprint(state) == state_fingerprint({"b": torch.tensor(1), "a": torch.ones(3, 2).T})
    changed = torch.ones(2, 3)
    changed[1, 2] += 1e-6
    assert state_fingerprint({**state, "a": changed}) != state_fingerprint(state)
    assert state_fingerprint({"a": state["a"], "c": state["b"]}) != state_fingerprint(state)
