"""The encoder in int8: near float32, in the order of the texts, quantised once."""

from __future__ import annotations

import importlib.metadata
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrofit.artefacts import ArtefactStore
from retrofit.errors import UserError
from retrofit.models import quantized_encoder
from retrofit.models.quantized_encoder import QuantizedEncoder
from retrofit.models.search_model import SearchModel

PROMPTS: dict[Any, str] = {"query": "query: ", "passage": "passage: "}
PRECISIONS: tuple[Any, ...] = ("float32", "bfloat16")
WORDS = ["tea", "Kaffee", "お茶", "קפה", "a longer word", "."]


def phrases(count: int) -> list[str]:
    generator = random.Random(0)  # noqa: S311 -- a fixture, not a secret
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tiny: Path) -> SearchModel:
    return SearchModel(tiny, "mean", PROMPTS, 128)


@pytest.fixture(scope="module")
def quantized(model: SearchModel, cache: Path) -> QuantizedEncoder:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    return model.load_quantized(phrases(20), "passage", ArtefactStore(cache))


def test_embeddings_are_near_those_in_float32(quantized: QuantizedEncoder, model: SearchModel) -> None:
    texts = [*phrases(60), "", "word " * 90]
    expected = model.load().encode(texts, "passage", 4096, "float32", label="")
    found = quantized.encode(texts, "passage", 4096, "float32", label="")
    assert (found.dtype, found.shape, quantized.dimension) == (np.float32, (62, 32), 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    cosine = (found * expected).sum(axis=1)
    assert 0.98 < cosine.min() < 0.999999  # as near as float32 itself, nothing would have been quantised
    queries = quantized.encode(texts, "query", 4096, "float32", label="")
    assert np.abs(queries - found).max() > 0.01


def test_what_is_not_int8_is_float32_whatever_is_asked(quantized: QuantizedEncoder) -> None:
    texts = [*phrases(60), "word " * 29]
    found = {precision: quantized.encode(texts, "passage", 4096, precision, label="") for precision in PRECISIONS}
    assert found["float32"].tobytes() == found["bfloat16"].tobytes()
    assert quantized._request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_order_and_chunks_do_not_matter(quantized: QuantizedEncoder) -> None:
    texts = list(dict.fromkeys(phrases(30)))
    one_by_one = np.array([quantized.encode([text], "passage", 1, "float32", label="")[0] for text in texts])
    apart = 1 - one_by_one @ one_by_one.T + 2 * np.eye(len(texts))
    for order in (slice(None), slice(None, None, -1)):
        together = quantized.encode(texts[order], "passage", 100, "float32", label="")[order]
        assert 1 - (together * one_by_one).sum(axis=1).min() < apart.min() / 4
    assert quantized.encode([], "passage", 100, "float32", label="").shape == (0, 32)


def test_it_is_quantised_once_for_the_same_calibration_texts(
    quantized: QuantizedEncoder, model: SearchModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("quantised again")

    monkeypatch.setattr(quantized_encoder, "_quantize", refuse)
    again = model.load_quantized(phrases(20), "passage", ArtefactStore(cache))
    texts = phrases(20)
    expected = quantized.encode(texts, "passage", 200, "float32", label="")
    assert again.encode(texts, "passage", 200, "float32", label="").tobytes() == expected.tobytes()
    with pytest.raises(RuntimeError, match="again"):
        model.load_quantized(phrases(20), "query", ArtefactStore(cache))
    with pytest.raises(RuntimeError, match="again"):
        model.load_quantized(phrases(19), "passage", ArtefactStore(cache))


def test_without_the_packages_the_extra_is_named(tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match=r"precision=int8 needs .*'\.\[openvino\]'"):
        SearchModel(tiny, "mean", PROMPTS, 128).load_quantized(["tea"], "passage", ArtefactStore(cache))


def test_a_model_with_layers_of_its_own_is_refused(tiny: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="precision=int8"):
        SearchModel(tiny, None, None, None).load_quantized(["tea"], "passage", ArtefactStore(cache))
