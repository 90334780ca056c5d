"""The convolutional encoder against a plain loop; and the real wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.sentencepiece_files import sentencepiece_model

from retrofit.artefacts import default_cache
from retrofit.errors import UserError
from retrofit.models.sentencepiece_tokenizer import unigram_tokenizer
from retrofit.models.universal_sentence_encoder import (
    ConvolutionalEncoder,
    ConvolutionalNetwork,
    UniversalSentenceEncoder,
)

D, C, HIDDEN = 6, 4, 5  # sizes of a small one


def small_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    arrays = {f"q{block + 1}": torch.randint(0, 64, (2, D), generator=generator).byte() for block in range(17)}
    arrays |= {"scale": random(17).abs() / 20, "lo": random(17), "eps": torch.tensor(1e-6)}
    for n in (2, 3, 5):
        arrays |= {f"proj{n}": random(D, C), f"proj_b{n}": random(C), f"ln_g{n}": random(C), f"ln_b{n}": random(C)}
        for layer in "12":
            arrays |= {f"w{layer}_{n}": random(n * C, C) / 4, f"b{layer}_{n}": random(C)}
    wide = D + 3 * C
    arrays |= {"ln_g": random(wide), "ln_b": random(wide), "cnn_W": random(wide, D) / 4, "cnn_b": random(D)}
    arrays |= {"d0": random(D, HIDDEN), "d1": random(HIDDEN, HIDDEN), "p1": random(D, HIDDEN)}
    return arrays | {"d2": random(HIDDEN, D), "d3": random(D, D), "p3": random(HIDDEN, D)}


def naive(arrays: dict[str, torch.Tensor], pieces: list[int]) -> np.ndarray:
    """The embedding of one text, piece by piece in double precision."""
    a = {name: array.double().numpy() for name, array in arrays.items()}

    def normed(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + a["eps"]) * scale + shift

    words = [a[f"q{t % 17 + 1}"][t // 17] * a["scale"][t % 17] + a["lo"][t % 17] for t in pieces]
    joined = {
        name: np.concatenate([a[f"{name}{n}"] for n in (2, 3, 5)], axis=-1)
        for name in ("proj", "proj_b", "ln_g", "ln_b")
    }
    hidden = [normed(word @ joined["proj"] + joined["proj_b"], joined["ln_g"], joined["ln_b"]) for word in words]
    features = [[word] for word in words]
    for branch, (n, left) in enumerate(((2, 0), (3, 1), (5, 2))):
        x = [row[branch * C : (branch + 1) * C] for row in hidden]
        for layer in "12":
            around = [np.zeros(C)] * left + x + [np.zeros(C)] * n
            windows = [np.concatenate(around[place : place + n]) for place in range(len(x))]
            x = [
                old + np.maximum(window @ a[f"w{layer}_{n}"] + a[f"b{layer}_{n}"], 0)
                for old, window in zip(x, windows, strict=True)
            ]
        for row, found in zip(features, x, strict=True):
            row.append(found)
    total = sum(normed(np.concatenate(row), a["ln_g"], a["ln_b"]) @ a["cnn_W"] + a["cnn_b"] for row in features)
    mean = total / np.sqrt(len(pieces))
    first = np.maximum(mean @ a["p1"] + np.maximum(mean @ a["d0"], 0) @ a["d1"], 0)
    second = np.tanh(first @ a["p3"] + np.maximum(first @ a["d2"], 0) @ a["d3"])
    return second / np.linalg.norm(second)


def test_texts_of_a_chunk_are_embedded_as_each_by_itself() -> None:
    arrays, tokenizer = small_weights(), unigram_tokenizer(sentencepiece_model())
    encoder = ConvolutionalEncoder(ConvolutionalNetwork(arrays), tokenizer)
    texts = ["abc", "", "ab ab c b a", "cc", "z"]
    expected = [naive(arrays, tokenizer.encode(text).ids) for text in texts]
    for budget in (4, 1000):
        found = encoder.encode(texts, "query", budget, "float32", "")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.embedded
def test_the_wheel_finds_translations() -> None:
    model = UniversalSentenceEncoder(default_cache())
    assert (model.size.parameters, model.size.dimension) == (68_927_232, 512)
    encoder = model.load()
    english = ["The cat runs through the garden.", "How do I reset my password?", "Turn off the kitchen light."]
    german = [
        "Die Katze läuft durch den Garten.",
        "Wie setze ich mein Passwort zurück?",
        "Schalte das Küchenlicht aus.",
    ]
    scores = (
        encoder.encode(english, "query", 256, "float32", "") @ encoder.encode(german, "passage", 256, "float32", "").T
    )
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]
    assert scores.diagonal().min() > 0.5


@pytest.mark.parametrize("name", ["weights.npz", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"not what it was", b"{}", b"PK\x03\x04 and no more"])
def test_a_damaged_file_of_the_cache_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    np.savez(tmp_path / "weights.npz", **{key: array.numpy() for key, array in small_weights().items()})
    unigram_tokenizer(sentencepiece_model()).save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(UniversalSentenceEncoder, "folder", tmp_path)
    model = UniversalSentenceEncoder(tmp_path)
    assert model.load().encode(["ab"], "query", 9, "float32", "").shape == (1, D)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^[^\n]*{tmp_path.name}/{name}: damaged[^\n]*delete[^\n]*$"):
        model.load()
    if name == "weights.npz":
        with pytest.raises(UserError, match="damaged"):
            _ = model.size


def test_weights_that_lack_one_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {key: array.numpy() for key, array in small_weights().items() if key != "d3"}
    np.savez(tmp_path / "weights.npz", **arrays)
    unigram_tokenizer(sentencepiece_model()).save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(UniversalSentenceEncoder, "folder", tmp_path)
    with pytest.raises(UserError, match="damaged"):
        UniversalSentenceEncoder(tmp_path).load()
