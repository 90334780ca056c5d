"""Embeddings on disk, cached by content and model: a text is encoded once, whichever run asks for it.

They lie in shards of a few thousand texts under ``<cache>/embeddings/<model and kind>/``. A shard is an artefact:
written aside and renamed, so a killed run goes on with the next one, and a damaged one is noticed and made again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrofit.artefacts import ArtefactStore, fingerprint, is_complete
from retrofit.models.bi_encoder import BiEncoder, Kind
from retrofit.models.precision import EncodingSettings

CODE_VERSION = 1  # raise it whenever the same model and text would give another embedding

IDS = "ids.npy"
VECTORS = "vectors.npy"

_TEXTS_A_SHARD = 8192

log = logging.getLogger(__name__)


class Embeddings:
    """The embeddings of a list of texts, read from shards as they are needed.

    Attributes:
        dimension: number of components.
    """

    def __init__(self, shards: list[np.ndarray], shard_of: np.ndarray, row_of: np.ndarray) -> None:
        """Put together what lies in shards.

        Args:
            shards: memory-mapped float32 arrays ``[texts of the shard, dimension]``.
            shard_of: int32 ``[texts]``, the shard of each text.
            row_of: int32 ``[texts]``, its row in the shard.
        """
        self._shards = shards
        self._shard_of = shard_of
        self._row_of = row_of
        self.dimension = shards[0].shape[1] if shards else 0

    def __len__(self) -> int:
        return len(self._shard_of)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the embeddings of texts by position, float32 ``[len(positions), dimension]``, unit length."""
        found = np.empty((len(positions), self.dimension), dtype=np.float32)
        shard_of = self._shard_of[positions]
        for shard in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == shard)
            found[here] = self._shards[shard][self._row_of[positions[here]]]
        return found


@dataclass(frozen=True)
class EmbeddingStore:
    """The cache of embeddings.

    Attributes:
        cache: root of the cache.
    """

    cache: Path

    def embed(
        self,
        encoder: BiEncoder,
        weights: str,
        kind: Kind,
        ids: np.ndarray,
        texts: Callable[[np.ndarray], list[str]],
        encoding: EncodingSettings,
    ) -> Embeddings:
        """Return the embeddings of texts, encoding those that the cache does not hold.

        Args:
            encoder: the model.
            weights: what identifies its weights.
            kind: which prompt the texts get.
            ids: uint64 ``[texts]``, content hash of each text; equal ids stand for equal texts.
            texts: returns the texts at given positions.
            encoding: how to encode.
        """
        identity = {
            "code": CODE_VERSION,
            "weights": weights,
            "pooling": encoder.pooling,
            "prompt": encoder.prompts[kind],
            "max_length": encoder.max_length,
            "precision": encoding.precision,
        }
        folder = self.cache / "embeddings" / fingerprint(identity)
        wanted, first = np.unique(ids, return_index=True)
        missing = ~np.isin(wanted, _known_ids(folder))
        new, position = wanted[missing], first[missing]
        if len(new):
            log.info("%d of %d %s texts to encode", len(new), len(wanted), kind)
        store = ArtefactStore(folder)
        for start in range(0, len(new), _TEXTS_A_SHARD):
            part = slice(start, start + _TEXTS_A_SHARD)
            label = f"{kind} texts {start} to {min(len(new), start + _TEXTS_A_SHARD)} of {len(new)}"
            _encode_shard(store, encoder, kind, new[part], texts(position[part]), encoding, label)
        return _gathered(folder, ids)


def _encode_shard(
    store: ArtefactStore,
    encoder: BiEncoder,
    kind: Kind,
    ids: np.ndarray,
    texts: list[str],
    encoding: EncodingSettings,
    label: str,
) -> None:
    def build(shard: Path) -> None:
        vectors = encoder.encode(texts, kind, encoding.token_budget, encoding.precision, label=label)
        np.save(shard / IDS, ids)
        np.save(shard / VECTORS, vectors)

    inputs: Mapping[str, Any] = {"ids": fingerprint(ids.tolist())}
    store.get("shards", inputs, build)


def _shards(folder: Path) -> Iterator[Path]:
    """Yield the whole shards of a folder in the order of their names; a damaged one is removed, to be made again."""
    for shard in sorted(folder.glob("shards/*")):
        if shard.name.startswith(".") or not shard.is_dir():
            continue
        if is_complete(shard):
            yield shard
        else:
            log.warning("%s is damaged (a file is missing or has another size); its texts are encoded again", shard)
            shutil.rmtree(shard)


def _known_ids(folder: Path) -> np.ndarray:
    ids = [np.load(shard / IDS, allow_pickle=False) for shard in _shards(folder)]
    return np.concatenate([*ids, np.empty(0, dtype=np.uint64)])


def _gathered(folder: Path, ids: np.ndarray) -> Embeddings:
    """Return the embeddings of ids that all stand in the shards of a folder."""
    vectors, known, shard_of, row_of = [], [], [], []
    for number, shard in enumerate(_shards(folder)):
        its_ids = np.load(shard / IDS, allow_pickle=False)
        vectors.append(np.load(shard / VECTORS, mmap_mode="r", allow_pickle=False))
        known.append(its_ids)
        shard_of.append(np.full(len(its_ids), number, dtype=np.int32))
        row_of.append(np.arange(len(its_ids), dtype=np.int32))
    if not known:
        return Embeddings([], np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))
    all_ids = np.concatenate(known)
    order = np.argsort(all_ids, kind="stable")
    place = order[np.searchsorted(all_ids[order], ids)]
    return Embeddings(vectors, np.concatenate(shard_of)[place], np.concatenate(row_of)[place])
