"""The exported folder gives sentence-transformers the embeddings we measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrofit.instantiation import instantiate
from retrofit.models.adapters import apply_adapter, merged_weights
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.export import export_sentence_transformer

Load = Callable[..., BiEncoder]
TEXTS = ["Host", "お茶", "A much longer text about the password of the bridge. " * 6, "קפה"]


@pytest.mark.parametrize("adapter", ["lora", "dora", "full"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_exported_model_embeds_as_the_trained_one_does(
    load_tiny: Load, train_config: Callable[..., dict[str, Any]], tmp_path: Path, adapter: str, pooling: str
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = load_tiny(pooling=pooling, max_length=96)
    torch.manual_seed(0)
    apply_adapter(encoder, instantiate(train_config(f"adapter={adapter}")["adapter"]["config"]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    encoder.eval()
    queries, passages = encoder.encode(TEXTS, "query"), encoder.encode(TEXTS, "passage")
    assert np.abs(queries - load_tiny(pooling=pooling, max_length=96).encode(TEXTS, "query")).max() > 1e-2
    assert np.abs(queries - passages).max() > 1e-3

    folder = tmp_path / "model"
    export_sentence_transformer(encoder, merged_weights(encoder), folder)
    model = SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 96
    np.testing.assert_allclose(model.encode_query(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(model.encode_document(TEXTS), passages, atol=1e-5)
    np.testing.assert_allclose(model.encode(TEXTS, prompt_name="passage"), passages, atol=1e-5)
    np.testing.assert_allclose(model.encode([f"query: {text}" for text in TEXTS]), queries, atol=1e-5)

    again = BiEncoder.load(folder, pooling, encoder.prompts, 96)  # type: ignore[arg-type]
    np.testing.assert_allclose(again.encode(TEXTS, "passage"), passages, atol=1e-5)


def test_exporting_twice_replaces_the_folder_and_leaves_nothing_beside_it(load_tiny: Load, tmp_path: Path) -> None:
    encoder = load_tiny()
    weights = encoder.backbone.state_dict()
    folder = tmp_path / "model"
    export_sentence_transformer(encoder, weights, folder)
    first = (folder / "model.safetensors").read_bytes()
    (folder / "left over").touch()
    changed = {name: tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    export_sentence_transformer(encoder, changed, folder)
    assert (folder / "model.safetensors").read_bytes() != first
    assert not (folder / "left over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_exported_folder_names_no_path_of_this_machine(load_tiny: Load, tiny: Path, tmp_path: Path) -> None:
    encoder = load_tiny()
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), tmp_path / "model")
    for path in (tmp_path / "model").rglob("*"):
        if path.suffix in (".json", ".md", ".txt"):
            text = path.read_text(encoding="utf-8")
            assert str(tmp_path) not in text, path
            assert str(tiny) not in text, path
            assert "/tmp" not in text, path  # noqa: S108 -- looked for, not written to
    prompts = json.loads((tmp_path / "model" / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts == {"query": "query: ", "passage": "passage: ", "document": "passage: "}


def test_a_strange_folder_loads_in_a_fresh_process_without_a_warning(load_tiny: Load, tmp_path: Path) -> None:
    encoder = load_tiny()
    folder = tmp_path / "a b"
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), folder)
    code = (
        "import sys; from sentence_transformers import SentenceTransformer as S;"
        "print(S(sys.argv[1], device='cpu').encode_query('Host').shape[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.stdout.strip() == str(encoder.dimension), done.stderr
    assert "newly initialized" not in done.stderr
    assert "MISSING" not in done.stderr
