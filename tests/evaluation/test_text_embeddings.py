"""The store of embeddings: whatever is asked for in whatever order, each text is encoded once and found again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.evaluation.text_embeddings import TextEmbeddings, _grown
from retrofit.models.bi_encoder import Kind, Precision
from retrofit.models.precision import EncodingSettings

SETTINGS = EncodingSettings("bfloat16", 77)


def vector(text: str, kind: Kind) -> list[float]:
    """Four numbers that depend on nothing but the text and its kind."""
    digest = hashlib.sha256(f"{kind}\x1f{text}".encode()).digest()[:4]
    return [byte / 256 for byte in digest]


class Encoder:
    """Notes what it was asked for."""

    def __init__(self) -> None:
        self.encoded: Counter[tuple[str, Kind]] = Counter()
        self.asked: list[tuple[int, Precision, str]] = []
        self.broken = False

    def encode(
        self, texts: Sequence[str], kind: Kind, token_budget: int, precision: Precision, label: str
    ) -> np.ndarray:
        if self.broken:
            raise MemoryError
        self.encoded.update((text, kind) for text in texts)
        self.asked.append((token_budget, precision, label))
        return np.array([vector(text, kind) for text in texts], dtype=np.float32)


KINDS: st.SearchStrategy[Kind] = st.sampled_from(["query", "passage"])
TEXTS = st.lists(st.one_of(st.sampled_from(["", " ", "tea", "Tea", "お茶"]), st.text(max_size=4)), max_size=8)


@given(st.lists(st.tuples(st.booleans(), KINDS, TEXTS), max_size=8))
def test_every_text_has_the_encoder_s_vector_and_is_encoded_once_a_kind(
    calls: list[tuple[bool, Kind, list[str]]],
) -> None:
    encoder = Encoder()
    store = TextEmbeddings(encoder, SETTINGS, "tiny")
    found = []
    for only_add, kind, texts in calls:
        if only_add or not texts:
            store.add(iter(texts), kind)
        else:
            found.append((kind, texts, store.vectors(iter(texts), kind)))
    # Compared at the end: what is added later moves nothing of what was returned.
    for kind, texts, vectors in found:
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [vector(text, kind) for text in texts]
    assert encoder.encoded == Counter({(text, kind) for _, kind, texts in calls for text in texts})
    assert store.encoded_texts == len(encoder.encoded)


def test_the_encoder_gets_the_settings_and_a_label_and_its_time_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder()
    store = TextEmbeddings(encoder, SETTINGS, "tiny")
    clock = iter([10.0, 12.5, 20.0, 20.25])
    monkeypatch.setattr("retrofit.evaluation.text_embeddings.time.perf_counter", lambda: next(clock))
    for kind in ("query", "passage", "query"):
        store.add(["tea"], kind)  # type: ignore[arg-type]
    assert encoder.asked == [(77, "bfloat16", "tiny, query"), (77, "bfloat16", "tiny, passage")]
    assert store.seconds == 2.75


def test_what_could_not_be_encoded_is_encoded_when_it_is_asked_for_again() -> None:
    encoder = Encoder()
    store = TextEmbeddings(encoder, SETTINGS, "tiny")
    store.add(["tea"], "query")
    encoder.broken = True
    with pytest.raises(MemoryError):
        store.add(["milk", "tea"], "query")
    encoder.broken = False
    assert store.vectors(["wine", "milk", "tea"], "query").tolist() == [
        vector(text, "query") for text in ("wine", "milk", "tea")
    ]
    assert store.encoded_texts == 3


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_an_array_keeps_its_rows_and_moves_none_often(sizes: list[int]) -> None:
    rows = np.arange(2 * sum(sizes), dtype=np.float32).reshape(-1, 2)
    array, used, lengths = None, 0, []
    for size in sizes:
        array = _grown(array, used, rows[used : used + size])
        used += size
        assert array[:used].tolist() == rows[:used].tolist()
        if not lengths or len(array) != lengths[-1]:
            lengths.append(len(array))
        assert len(array) <= 2 * used
    assert all(after > 2 * before for before, after in zip(lengths, lengths[2:], strict=False))
