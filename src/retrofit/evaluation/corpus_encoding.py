"""A corpus turned into one memory-mapped array of embeddings, in blocks, so that a stop costs a block at most."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np

from retrofit.artefacts import MANIFEST, ArtefactStore, is_complete, write_json
from retrofit.errors import UserError, one_line
from retrofit.evaluation.corpus_search import check_model_folder
from retrofit.evaluation.corpus_texts import IDS, CheckedCorpus, Corpus, new_array
from retrofit.models.bi_encoder import Kind
from retrofit.models.embeddings import CODE_VERSION, VECTORS, Encoder
from retrofit.models.precision import EncodingSettings
from retrofit.models.quantized_encoder import INT8, package_versions
from retrofit.models.search_model import SearchModel

StoredType = Literal["float32", "float16"]

_TEXTS_AT_ONCE = 1024
_SECONDS_BETWEEN_LINES = 20
_CALIBRATION_TEXTS = 200

log = logging.getLogger(__name__)

Progress = Callable[[int], None]
"""Told how many more texts are done."""


@dataclass(frozen=True)
class Encoding:
    """How a corpus is encoded.

    Attributes:
        model: what encodes.
        kind: which prompt the texts get.
        settings: precision and texts at once.
        dimensions: the first so many components are kept; None keeps all.
        dtype: of what is stored.
        block_texts: texts that are encoded between two states from which a killed process can go on.
        int8: whether the matrix products are int8, and all else of the precision of the settings.
    """

    model: SearchModel
    kind: Kind
    settings: EncodingSettings
    dimensions: int | None
    dtype: StoredType
    block_texts: int = 8192
    int8: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors of given texts depend on; JSON-like.

        Raises:
            UserError: the packages that int8 needs are not installed.
        """
        identity: dict[str, Any] = {
            "code": CODE_VERSION,
            "model": self.model.identity,
            "kind": self.kind,
            "precision": INT8 if self.int8 else self.settings.precision,
            "token_budget": self.settings.token_budget,
            "dimensions": self.dimensions,
            "dtype": self.dtype,
            "block_texts": self.block_texts,
        }
        if self.int8:
            beside = {"all_else": self.settings.precision, "calibration_texts": _CALIBRATION_TEXTS}
            identity["int8"] = {**beside, **package_versions()}
        return identity

    def load(self, checked: CheckedCorpus, store: ArtefactStore) -> Encoder:
        """Return the encoder; one in int8 has its ranges from texts of the corpus.

        Raises:
            UserError: the model cannot be had in int8, or a file of the corpus changed.
        """
        if not self.int8:
            return self.model.load(self.settings.precision)
        return self.model.load_quantized(checked.spread(_CALIBRATION_TEXTS), self.kind, store)

    def encode(self, encoder: Encoder, texts: list[str]) -> np.ndarray:
        """Return the vectors of texts as they are stored, ``[len(texts), dimension]``, unit length.

        Raises:
            UserError: the model has fewer dimensions than are asked for.
        """
        vectors = encoder.encode(texts, self.kind, self.settings.token_budget, self.settings.precision, label="")
        if self.dimensions is not None:
            if self.dimensions > vectors.shape[1]:
                raise UserError(f"dimensions={self.dimensions}: expected at most the model's {vectors.shape[1]}")
            vectors = vectors[:, : self.dimensions]
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(self.dtype, copy=False)


def encode_from_configuration(config: Mapping[str, Any]) -> Path:
    """Encode the corpus of a resolved configuration of ``retrofit encode`` and return the folder of the result.

    Raises:
        UserError: the model, the input or the output is not what it should be.
    """
    if config["model_folder"] is None:
        model = SearchModel.of(config["model"])
    else:
        folder = Path(config["model_folder"]).expanduser()
        check_model_folder(folder)
        model = SearchModel.of_folder(folder)
    if int8 := config["precision"] == INT8:
        model.int8_settings()  # what cannot become int8 is refused before the corpus is read
    settings = EncodingSettings.of({**config, "precision": "auto"} if int8 else config)
    encoding = Encoding(
        model, config["kind"], settings, config["dimensions"], config["dtype"], config["block_texts"], int8
    )
    corpus = Corpus.find(config["input"], config["format"], config["text_field"], config["id_field"], config["kind"])
    output = Path(config["output"]).expanduser().absolute()
    encode_corpus(corpus, encoding, output, ArtefactStore(Path(config["paths"]["cache"])))
    return output


def encode_corpus(corpus: Corpus, encoding: Encoding, output: Path, store: ArtefactStore) -> None:
    """Write the embeddings of a corpus to a folder, taking up what an interrupted call left.

    The folder holds ``vectors.npy``, ``[texts, dimension]`` in the order of the corpus; ``ids.txt``, an identifier a
    line; and ``manifest.json``. Until it is complete, it lies beside its place under a name that starts with a dot.
    Equal texts are encoded once, the first time. What is in memory does not depend on how many texts there are.

    Args:
        corpus: the texts.
        encoding: how to encode.
        output: the folder.
        store: the cache, which keeps what was found out about the corpus.

    Raises:
        UserError: a row cannot be used, the model cannot be loaded, the folder holds something else or cannot be
            written, or another process is writing it.
    """
    request = {"input": corpus.identity, **encoding.identity}
    if _is_finished(output, request):
        return
    checked = CheckedCorpus.check(corpus, store)
    encoder = _loaded(encoding, checked, store)
    dimension = encoding.encode(encoder, ["."]).shape[1]
    partial = _partial(output)
    with _alone(output):
        if _is_finished(output, request):  # another process may have been faster
            return
        with _writing(output):
            partial.mkdir(exist_ok=True)
            vectors, done = _opened(partial, (len(checked), dimension), encoding.dtype, request)
        for stop in _encode_blocks(checked, encoding, encoder, vectors, done):
            with _writing(output):
                vectors.flush()
                _write_manifest(partial, [VECTORS], {"inputs": request, "done": stop})
        with _writing(output):
            _complete(checked, partial, request)
            partial.rename(output)
    log.info("%d texts, %d of them different: %s", len(checked), checked.n_different, output)


def _is_finished(output: Path, request: Mapping[str, Any]) -> bool:
    """Return whether the result is there already.

    Raises:
        UserError: the folder of the result, or what an interrupted call left of it, holds something else.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output}: is a file; expected a folder")
    if output.exists() and any(output.iterdir()):
        _check_same(output, request)
        if not is_complete(output):
            raise UserError(
                f"output={output}: damaged (a file is missing or has another size); delete it and try again"
            )
        log.info("%s is complete; delete the folder to encode again", output)
        return True
    if (_partial(output) / MANIFEST).exists():
        _check_same(_partial(output), request)
    return False


def _partial(output: Path) -> Path:
    """Return where the result lies until it is complete."""
    return output.with_name(f".{output.name}.partial")


def _loaded(encoding: Encoding, checked: CheckedCorpus, store: ArtefactStore) -> Encoder:
    try:
        return encoding.load(checked, store)
    except UserError:
        raise
    except Exception as error:  # a damaged folder fails in as many ways as there are files in it
        log.debug("loading failed", exc_info=True)
        reason = one_line(error)[:200]
        raise UserError(
            f"{encoding.model.folder}: not a model that can be loaded ({reason}); model_folder or model names another"
        ) from error


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep other processes from writing the same result.

    Raises:
        UserError: another process is writing it.
    """
    path = output.with_name(f".{output.name}.lock")
    lock = filelock.FileLock(path, timeout=0)
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise UserError(f"output={output}: another process is writing it") from error
    try:
        yield
        path.unlink(missing_ok=True)  # no one needs it any more: the result is there
    finally:
        lock.release()


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Say of an error of the operating system that the result cannot be written.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({error.strerror or error})") from error


def _encode_blocks(
    checked: CheckedCorpus, encoding: Encoding, encoder: Encoder, vectors: np.memmap, done: int
) -> Iterator[int]:
    """Fill an array block by block, from where it is done on, and yield after each how many texts are done."""
    texts = checked.texts_from(done)
    with _progress(len(checked), done) as progress:
        for start in range(done, len(checked), encoding.block_texts):
            stop = min(start + encoding.block_texts, len(checked))
            block = [next(texts) for _ in range(start, stop)]
            first = checked.first[start:stop]
            new = np.flatnonzero(first == np.arange(start, stop))
            progress(len(block) - len(new))
            for rows in _by_length(new, block):
                vectors[start + rows] = encoding.encode(encoder, [block[row] for row in rows])
                progress(len(rows))
            vectors[start:stop] = vectors[first]
            yield stop


def _opened(
    folder: Path, shape: tuple[int, int], dtype: StoredType, request: Mapping[str, Any]
) -> tuple[np.memmap, int]:
    """Return the array to write to and how many of its rows are done."""
    path = folder / VECTORS
    done = _manifest(folder).get("done", 0)
    if done and is_complete(folder):
        log.info("going on after %d of %d texts", done, shape[0])
        return np.lib.format.open_memmap(path, "r+"), done
    if done:
        log.warning("%s is damaged (it is missing or has another size); its texts are encoded again", path)
    # Before the array: a manifest that says more is done than is would be believed.
    write_json(folder / MANIFEST, {"inputs": request, "done": 0})
    return new_array(path, shape, dtype), 0


def _by_length(rows: np.ndarray, block: list[str]) -> Iterator[np.ndarray]:
    """Yield the rows of a block in parts of similar length, the longest first."""
    order = rows[np.argsort([-len(block[row]) for row in rows], kind="stable")]
    for start in range(0, len(order), _TEXTS_AT_ONCE):
        yield order[start : start + _TEXTS_AT_ONCE]


def _complete(checked: CheckedCorpus, folder: Path, request: Mapping[str, Any]) -> None:
    shutil.copyfile(checked.ids, folder / IDS)
    count, dimension = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False).shape
    found = {"texts": count, "different_texts": checked.n_different, "dimension": dimension}
    _write_manifest(folder, [IDS, VECTORS], {"inputs": request, "done": count, **found})


def _write_manifest(folder: Path, files: list[str], content: Mapping[str, Any]) -> None:
    sizes = {name: (folder / name).stat().st_size for name in files}
    write_json(folder / MANIFEST, {**content, "files": sizes})


def _check_same(folder: Path, request: Mapping[str, Any]) -> None:
    """Return if a folder holds what a request asks for, whole or in part.

    Raises:
        UserError: it holds something else.
    """
    found = _manifest(folder).get("inputs", {})
    if other := [key for key in request if found.get(key) != request[key]]:
        raise UserError(
            f"output={folder}: exists and holds something else (another {', '.join(other)}); "
            "delete it or name another folder"
        )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


@contextlib.contextmanager
def _progress(total: int, done: int) -> Iterator[Progress]:
    """Yield what is told of the texts that are done: it shows a bar on a terminal, and lines anywhere else."""
    if not sys.stderr.isatty():
        yield _lines(total, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    rate = TextColumn("{task.fields[rate]:.0f} texts/s")
    with Bar(BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("texts", total=total, completed=done, rate=0.0)
        started, first = time.monotonic(), done

        def show(number: int) -> None:
            nonlocal done
            done += number
            bar.update(task, advance=number, rate=(done - first) / max(time.monotonic() - started, 1e-3))

        yield show


def _lines(total: int, done: int) -> Progress:
    started = said = time.monotonic()
    first = done

    def say(number: int) -> None:
        nonlocal done, said
        done += number
        now = time.monotonic()
        if now - said > _SECONDS_BETWEEN_LINES:
            said = now
            rate = (done - first) / (now - started)
            left = (total - done) / rate
            log.info("%d of %d texts, %.0f texts/s, about %.0f s left", done, total, rate, left)

    return say
