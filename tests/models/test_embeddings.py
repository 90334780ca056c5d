"""Embeddings are made once a text and model, survive kills, and damaged ones are made again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrofit.data.records import content_id
from retrofit.models import embeddings
from retrofit.models.bi_encoder import BiEncoder, Kind, Precision
from retrofit.models.embeddings import Embeddings, EmbeddingStore
from retrofit.models.precision import EncodingSettings

TEXTS = [f"text number {number} about {'lamps' if number % 2 else 'doors'}" for number in range(23)]
ENCODING = EncodingSettings("float32", 256)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_TEXTS_A_SHARD", 5)


@dataclass(frozen=True)
class InMemory:
    """A model that is already loaded."""

    encoder: BiEncoder
    weights: str

    @property
    def folder(self) -> Path:
        raise AssertionError("the texts are searched by similarity")

    def embedding_identity(self, kind: Kind) -> dict[str, Any]:
        return {"weights": self.weights, "prompt": self.encoder.prompts[kind]}

    def load(self, precision: Precision) -> BiEncoder:
        return self.encoder


class Counted:
    """Embeds texts and counts how many the encoder was given."""

    def __init__(self, encoder: BiEncoder, cache: Path, weights: str = "w", fail_after: int | None = None) -> None:
        self.encoder, self.store, self.weights, self.encoded = encoder, EmbeddingStore(cache), weights, 0
        plain = encoder.encode

        def encode(texts: Any, *arguments: Any, **options: Any) -> np.ndarray:
            if fail_after is not None and self.encoded >= fail_after:
                raise KeyboardInterrupt
            self.encoded += len(texts)
            return plain(texts, *arguments, **options)

        encoder.encode = encode  # type: ignore[method-assign, assignment]

    def __call__(self, texts: list[str], kind: Any = "passage") -> Embeddings:
        ids = np.array([content_id(text) for text in texts], dtype=np.uint64)
        return self.store.embed(
            InMemory(self.encoder, self.weights), kind, ids, lambda places: [texts[place] for place in places], ENCODING
        )


@pytest.fixture
def counted(load_tiny: Callable[..., BiEncoder], tmp_path: Path) -> Callable[..., Counted]:
    return lambda **options: Counted(load_tiny(), tmp_path, **options)


def everything(found: Embeddings) -> np.ndarray:
    return found.rows(np.arange(len(found)))


def test_they_are_the_encoders_in_the_order_of_the_texts(counted: Callable[..., Counted], encoder: BiEncoder) -> None:
    found = counted()([*TEXTS, TEXTS[3]])
    expected = encoder.encode([*TEXTS, TEXTS[3]], "passage")
    np.testing.assert_allclose(everything(found), expected, atol=1e-6)
    np.testing.assert_array_equal(found.rows(np.array([3, 0, 3])), everything(found)[[3, 0, 3]])
    assert found.dimension == expected.shape[1]


def test_only_what_is_new_is_encoded(counted: Callable[..., Counted]) -> None:
    embed = counted()
    embed(TEXTS[:12])
    assert embed.encoded == 12
    again = embed(TEXTS)
    assert embed.encoded == len(TEXTS)
    afresh = counted()
    np.testing.assert_array_equal(everything(afresh(TEXTS[::-1])), everything(again)[::-1])
    assert afresh.encoded == 0


@pytest.mark.parametrize("change", [{"weights": "other"}, {"kind": "query"}])
def test_another_model_or_kind_is_another_embedding(counted: Callable[..., Counted], change: dict[str, str]) -> None:
    counted()(TEXTS)
    embed = counted(weights=change.get("weights", "w"))
    embed(TEXTS, change.get("kind", "passage"))
    assert embed.encoded == len(TEXTS)


def test_a_killed_run_goes_on_with_the_next_shard(counted: Callable[..., Counted], encoder: BiEncoder) -> None:
    with pytest.raises(KeyboardInterrupt):
        counted(fail_after=10)(TEXTS)
    embed = counted()
    found = embed(TEXTS)
    assert embed.encoded == len(TEXTS) - 10
    np.testing.assert_allclose(everything(found), encoder.encode(TEXTS, "passage"), atol=1e-6)


def test_of_two_that_ask_at_once_one_waits_for_the_other(
    counted: Callable[..., Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)
    known_ids = embeddings._known_ids

    def seen_together(folder: Path) -> np.ndarray:
        found = known_ids(folder)
        if len(found) == 0 and not together.broken:
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(timeout=1)  # both see that all is missing; the one that looks again is alone
        return found

    monkeypatch.setattr(embeddings, "_known_ids", seen_together)
    both = [counted(), counted()]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda embed: everything(embed(TEXTS)), both))
    assert sorted(embed.encoded for embed in both) == [0, len(TEXTS)]
    np.testing.assert_array_equal(*found)


def test_a_truncated_shard_is_noticed_and_made_again(
    counted: Callable[..., Counted], encoder: BiEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted()(TEXTS)
    vectors = sorted(tmp_path.rglob("vectors.npy"))[1]
    lost = len(np.load(vectors))
    vectors.write_bytes(vectors.read_bytes()[:-100])
    embed = counted()
    found = embed(TEXTS)
    assert embed.encoded == lost
    assert "is damaged" in caplog.text
    np.testing.assert_allclose(everything(found), encoder.encode(TEXTS, "passage"), atol=1e-6)


def test_no_text_is_no_embedding(counted: Callable[..., Counted]) -> None:
    assert len(counted()([])) == 0
