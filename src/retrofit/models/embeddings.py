"""Embeddings on disk, cached by content and model: a text is encoded once, whichever run asks for it.

They lie in shards of a few thousand texts under ``<cache>/embeddings/<model and kind>/``. A shard is an artefact:
written aside and renamed, so a killed run goes on with the next one, and a damaged one is noticed and made again.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retrofit.artefacts import ArtefactStore, fingerprint, is_complete
from retrofit.engine import LOCAL, Engine
from retrofit.models.bi_encoder import Kind, Precision
from retrofit.models.precision import EncodingSettings

CODE_VERSION = 4  # raise it whenever the same model and text would give another embedding

IDS = "ids.npy"
VECTORS = "vectors.npy"

_STAGE = "shards"
_TEXTS_A_SHARD = 8192

log = logging.getLogger(__name__)


class Embeddings:
    """The embeddings of a list of texts, read from shards as they are needed.

    Cheap to send to another process: it maps the shards itself, so it must see them under the same names.

    Attributes:
        dimension: number of components.
    """

    def __init__(self, shards: list[Path], shard_of: np.ndarray, row_of: np.ndarray) -> None:
        """Put together what lies in shards.

        Args:
            shards: files of float32 arrays ``[texts of the shard, dimension]``.
            shard_of: int32 ``[texts]``, the shard of each text.
            row_of: int32 ``[texts]``, its row in the shard.
        """
        self._shards = shards
        self._shard_of = shard_of
        self._row_of = row_of
        self._mapped: dict[int, np.ndarray] = {}
        self.dimension = self._vectors(0).shape[1] if shards else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mapped": {}}

    def __len__(self) -> int:
        return len(self._shard_of)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the embeddings of texts by position, float32 ``[len(positions), dimension]``, unit length."""
        found = np.empty((len(positions), self.dimension), dtype=np.float32)
        shard_of = self._shard_of[positions]
        for shard in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == shard)
            found[here] = self._vectors(shard)[self._row_of[positions[here]]]
        return found

    def _vectors(self, shard: int) -> np.ndarray:
        if shard not in self._mapped:
            self._mapped[shard] = np.load(self._shards[shard], mmap_mode="r", allow_pickle=False)
        return self._mapped[shard]


class Encoder(Protocol):
    """What turns texts into vectors."""

    def encode(
        self, texts: Sequence[str], kind: Kind, token_budget: int, precision: Precision, label: str
    ) -> np.ndarray:
        """Return float32 ``[len(texts), dimension]``, unit length; as ``BiEncoder.encode`` does."""


class Model(Protocol):
    """What embeds texts, without its weights; picklable where an engine works in other processes."""

    @property
    def folder(self) -> Path:
        """Its checkpoint, which has the tokenizer."""

    def embedding_identity(self, kind: Kind) -> dict[str, Any]:
        """Return what the embeddings of a kind depend on; JSON-like."""

    def load(self, precision: Precision) -> Encoder:
        """Return the encoder, with weights that suit the precision of its matrix products."""


@dataclass(frozen=True)
class _Texts:
    """The texts of a shard to be.

    Attributes:
        kind: which prompt they get.
        ids: uint64 ``[texts]``.
        texts: the texts.
        label: which they are, for the log.
    """

    kind: Kind
    ids: np.ndarray
    texts: list[str]
    label: str


@dataclass(frozen=True)
class _Encoding:
    """Encodes the texts of shards, in whichever process.

    Attributes:
        model: loaded there.
        settings: how to encode.
    """

    model: Model
    settings: EncodingSettings

    def __call__(self) -> Callable[[_Texts], tuple[np.ndarray, np.ndarray]]:
        """Return a function from a shard's texts to its ids and vectors, float32 ``[texts, dimension]``."""
        encoder = self.model.load(self.settings.precision)
        budget, precision = self.settings.token_budget, self.settings.precision

        def encode(shard: _Texts) -> tuple[np.ndarray, np.ndarray]:
            return shard.ids, encoder.encode(shard.texts, shard.kind, budget, precision, label=shard.label)

        return encode


@dataclass(frozen=True)
class EmbeddingStore:
    """The cache of embeddings.

    Attributes:
        cache: root of the cache.
    """

    cache: Path

    def embed(
        self,
        model: Model,
        kind: Kind,
        ids: np.ndarray,
        texts: Callable[[np.ndarray], list[str]],
        encoding: EncodingSettings,
        engine: Engine = LOCAL,
    ) -> Embeddings:
        """Return the embeddings of texts, encoding those that the cache does not hold.

        Of several processes that ask the same model, such as those that train together, one encodes at a time: the
        others wait, and find what it has encoded.

        Args:
            model: loaded where there is something to encode.
            kind: which prompt the texts get.
            ids: uint64 ``[texts]``, content hash of each text; equal ids stand for equal texts.
            texts: returns the texts at given positions.
            encoding: how to encode.
            engine: where to encode. The shards are written here, each as it comes.
        """
        identity = {"code": CODE_VERSION, "precision": encoding.precision, **model.embedding_identity(kind)}
        folder = self.cache / "embeddings" / fingerprint(identity)
        wanted, first = np.unique(ids, return_index=True)
        if not np.isin(wanted, _known_ids(folder)).all():
            with ArtefactStore(self.cache).lock(folder):
                missing = ~np.isin(wanted, _known_ids(folder))
                new, position = wanted[missing], first[missing]
                log.info("%d of %d %s texts to encode", len(new), len(wanted), kind)
                _encode(folder, _Encoding(model, encoding), _parts(kind, new, position, texts), engine)
        return _gathered(folder, ids)


def _parts(
    kind: Kind, ids: np.ndarray, positions: np.ndarray, texts: Callable[[np.ndarray], list[str]]
) -> Iterator[_Texts]:
    """Yield the texts of one shard after another."""
    for start in range(0, len(ids), _TEXTS_A_SHARD):
        part = slice(start, start + _TEXTS_A_SHARD)
        label = f"{kind} texts {start} to {min(len(ids), start + _TEXTS_A_SHARD)} of {len(ids)}"
        yield _Texts(kind, ids[part], texts(positions[part]), label)


def _encode(folder: Path, encoding: _Encoding, shards: Iterator[_Texts], engine: Engine) -> None:
    store = ArtefactStore(folder)
    for ids, vectors in engine.map(encoding, shards):
        store.get(_STAGE, _inputs(ids), functools.partial(_write_shard, ids=ids, vectors=vectors))


def _inputs(ids: np.ndarray) -> dict[str, Any]:
    return {"ids": fingerprint(ids.tolist())}


def _write_shard(folder: Path, ids: np.ndarray, vectors: np.ndarray) -> None:
    np.save(folder / IDS, ids)
    np.save(folder / VECTORS, vectors)


def _shards(folder: Path) -> Iterator[Path]:
    """Yield the whole shards of a folder in the order of their names; a damaged one is removed, to be made again."""
    for shard in sorted(folder.glob(f"{_STAGE}/*")):
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
        vectors.append((shard / VECTORS).absolute())
        known.append(its_ids)
        shard_of.append(np.full(len(its_ids), number, dtype=np.int32))
        row_of.append(np.arange(len(its_ids), dtype=np.int32))
    if not known:
        return Embeddings([], np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))
    all_ids = np.concatenate(known)
    order = np.argsort(all_ids, kind="stable")
    place = order[np.searchsorted(all_ids[order], ids)]
    return Embeddings(vectors, np.concatenate(shard_of)[place], np.concatenate(row_of)[place])
