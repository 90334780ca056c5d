"""Sizes read from files are those of the loaded models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.export import export_sentence_transformer
from retrofit.models.model_size import ModelSize, size_of_folder, stored_shapes
from retrofit.models.search_model import SearchModel


def test_a_checkpoint_and_its_export_have_the_weights_of_the_encoder(
    tiny: Path, load_tiny: Callable[..., BiEncoder], tmp_path: Path
) -> None:
    encoder = load_tiny()
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), tmp_path / "model")
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    for folder in (tiny, tmp_path / "model"):
        size = size_of_folder(folder)
        assert (size.parameters, size.dimension) == (weights, 32)
        assert size.megabytes is not None
        # Four bytes a weight, and little beside.
        assert weights * 4e-6 < size.megabytes < weights * 4e-6 + 0.1


def test_further_modules_decide_about_the_dimension(tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, StaticEmbedding, Transformer

    backbone = Transformer(str(tiny), model_kwargs={"add_pooling_layer": False})
    projected = SentenceTransformer(modules=[backbone, Pooling(32, "mean"), Dense(32, 8)], device="cpu")
    projected.save_pretrained(str(tmp_path / "projected"), create_model_card=False)
    size = size_of_folder(tmp_path / "projected")
    assert (size.parameters, size.dimension) == (sum(p.numel() for p in projected.parameters()), 8)
    assert SearchModel.of_folder(tmp_path / "projected").pooling is None

    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    words = torch.randn(tokenizer.get_vocab_size(), 6)
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=words)], device="cpu")
    static.save_pretrained(str(tmp_path / "static"), create_model_card=False)
    model = SearchModel.of_folder(tmp_path / "static")
    assert (model.kind, model.size.parameters, model.size.dimension) == ("static", words.numel(), 6)
    found = model.load().encode(["ab", "c d"], "query", 256, "float32", "")
    mean = np.stack([words[tokenizer.encode(text, add_special_tokens=False).ids].mean(0) for text in ("ab", "c d")])
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)


def test_pickled_weights_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert size_of_folder(tmp_path) == ModelSize(None, None, 0)


def test_weights_are_counted_in_every_module_even_of_one_name_and_whole_numbers_are_none(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    half, position = torch.zeros(2, 3, dtype=torch.bfloat16), torch.arange(9)
    save_file({"linear.weight": half, "positions": position}, str(tmp_path / "model.safetensors"))
    save_file(
        {"linear.weight": torch.zeros(5, 7), "scale": torch.tensor(1.0)}, str(tmp_path / "2_Dense" / "m.safetensors")
    )
    assert size_of_folder(tmp_path).parameters == 2 * 3 + 5 * 7 + 1
    assert stored_shapes(tmp_path / "2_Dense") == {"linear.weight": (5, 7), "scale": ()}
    assert stored_shapes(tmp_path).keys() == {"linear.weight", "scale"}
