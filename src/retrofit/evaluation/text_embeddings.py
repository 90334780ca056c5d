"""Embeddings of texts by content: whichever task asks for a text, it is encoded once."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from retrofit.data.records import content_id
from retrofit.models.bi_encoder import Kind
from retrofit.models.embeddings import Encoder
from retrofit.models.precision import EncodingSettings


class TextEmbeddings:
    """A model, and the embeddings of all texts it has been asked for.

    Attributes:
        label: the model's name in log lines.
        encoded_texts: how many texts went through the model.
        seconds: how long that took.
    """

    def __init__(self, encoder: Encoder, settings: EncodingSettings, label: str) -> None:
        self.label = label
        self.encoded_texts = 0
        self.seconds = 0.0
        self._encoder = encoder
        self._settings = settings
        self._row_of: dict[Kind, dict[int, int]] = {"query": {}, "passage": {}}
        self._vectors: dict[Kind, np.ndarray] = {}

    def add(self, texts: Iterable[str], kind: Kind) -> None:
        """Encode those texts of a kind that have not been: many at once are faster, as texts of a length go together.

        Args:
            texts: without prompts.
            kind: which prompt they get.
        """
        row_of = self._row_of[kind]
        distinct = {content_id(text): text for text in texts}
        new = {key: text for key, text in distinct.items() if key not in row_of}
        if not new:
            return
        started = time.perf_counter()
        vectors = self._encoder.encode(
            list(new.values()),
            kind,
            self._settings.token_budget,
            self._settings.precision,
            label=f"{self.label}, {kind}",
        )
        self.seconds += time.perf_counter() - started
        self.encoded_texts += len(new)
        self._vectors[kind] = _grown(self._vectors.get(kind), len(row_of), vectors)
        row_of.update({key: row for row, key in enumerate(new, start=len(row_of))})

    def vectors(self, texts: Iterable[str], kind: Kind) -> np.ndarray:
        """Return the embeddings of texts, float32 ``[texts, dimension]``, unit length, encoding those that are new.

        Raises:
            ValueError: there are no texts.
        """
        wanted = list(texts)
        if not wanted:
            raise ValueError("no texts: there is nothing that says how long their embeddings would be")
        self.add(wanted, kind)
        row_of = self._row_of[kind]
        found: np.ndarray = self._vectors[kind][[row_of[content_id(text)] for text in wanted]]
        return found


def _grown(array: np.ndarray | None, used: int, rows: np.ndarray) -> np.ndarray:
    """Return an array with rows after those in use; it doubles when it is full, so that no row is moved often."""
    needed = used + len(rows)
    if array is None or needed > len(array):
        larger = np.empty((max(needed, 2 * used), rows.shape[1]), dtype=rows.dtype)
        if array is not None:
            larger[:used] = array[:used]
        array = larger
    array[used:needed] = rows
    return array
