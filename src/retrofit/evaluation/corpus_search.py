"""Search a file of one's own with a trained model: passages are encoded once, queries are answered exactly."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrofit.artefacts import ArtefactStore
from retrofit.data.sources.rows import is_encodable
from retrofit.errors import UserError, one_line
from retrofit.models.checkpoints import files_fingerprint, weights_fingerprint
from retrofit.models.prompts import passage_prompt

CODE_VERSION = 1  # raise it whenever the same model and passages would give other embeddings

EMBEDDINGS = "embeddings.npy"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """A passage that can be found.

    Attributes:
        passage_id: its identifier in the file, or its row number.
        text: title and text as the model reads them.
    """

    passage_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage in the answer to a query.

    Attributes:
        rank: 1 is the best.
        score: cosine of the embeddings.
        passage: what was found.
    """

    rank: int
    score: float
    passage: CorpusPassage


class CorpusSearch:
    """A model, the passages of a corpus and their embeddings.

    Attributes:
        model: a ``SentenceTransformer``.
        passages: in the order of the corpus.
        embeddings: float32 ``[passages, dimension]``, unit length.
    """

    def __init__(self, model: Any, passages: Sequence[CorpusPassage], embeddings: np.ndarray) -> None:
        self.model = model
        self.passages = passages
        self.embeddings = embeddings

    @classmethod
    def open(
        cls, folder: Path, passages: Sequence[CorpusPassage], store: ArtefactStore, batch_size: int = 64
    ) -> CorpusSearch:
        """Return a search over passages, encoded now or read from the cache where they were encoded before.

        Args:
            folder: the model, a sentence-transformers folder.
            passages: what to search in, at least one.
            store: the cache.
            batch_size: passages that go through the model at once.

        Raises:
            UserError: the folder is no model.
        """
        model = load_model(folder)
        prompt = passage_prompt(model.prompts)
        if not model.prompts.get("query"):
            log.warning("%s has no 'query' prompt: queries go to the model as they are typed", folder)
        inputs = {
            "version": CODE_VERSION,
            "weights": weights_fingerprint(folder),
            "model_files": files_fingerprint(folder),
            "passages": _content_fingerprint(passages),
            "prompts": {"passage": prompt},
        }

        def build(target: Path) -> None:
            log.info("encoding %d passages; the next search in the same texts finds them in the cache", len(passages))
            np.save(target / EMBEDDINGS, _encode_passages(model, passages, prompt, batch_size))

        path = store.get("corpus_embeddings", inputs, build) / EMBEDDINGS
        return cls(model, passages, np.load(path, mmap_mode="r"))

    def search(self, query: str, top_k: int) -> list[Hit]:
        """Return the passages nearest to a query, the best first; equal scores in the order of the corpus."""
        prompt = self.model.prompts.get("query") or ""
        # The prompt by its text: by name, encode would refuse a model without one.
        vector = self.model.encode([query], prompt=prompt, normalize_embeddings=True, show_progress_bar=False)[0]
        scores = self.embeddings @ vector
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [Hit(rank, float(scores[row]), self.passages[row]) for rank, row in enumerate(best, start=1)]


def check_model_folder(folder: Path) -> None:
    """Return if a local folder has the format of sentence-transformers.

    Raises:
        UserError: there is no such folder, or it is in another format.
    """
    if not folder.is_dir():
        raise UserError(
            f"model_folder={folder}: no such folder; expected a trained model, e.g. the model/ of a run folder"
        )
    if not (folder / "modules.json").is_file():
        inside = folder / "model"
        hint = f"did you mean {inside}?" if (inside / "modules.json").is_file() else "it has no modules.json"
        raise UserError(f"model_folder={folder}: not a sentence-transformers model; {hint}")


def load_model(folder: Path) -> Any:
    """Return the ``SentenceTransformer`` of a local folder; nothing is fetched and no code of the folder is run.

    Raises:
        UserError: there is no such folder, or it is not in the format of sentence-transformers.
    """
    check_model_folder(folder)
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    try:
        return SentenceTransformer(
            str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # a damaged folder fails in as many ways as there are files in it
        log.debug("loading failed", exc_info=True)
        reason = one_line(error)[:200]
        raise UserError(
            f"model_folder={folder}: not a sentence-transformers model that can be loaded ({reason})"
        ) from error


def read_corpus(path: Path, text_field: str = "text", id_field: str = "_id") -> list[CorpusPassage]:
    """Return the passages of a file.

    ``.jsonl`` holds an object a line: a text, optionally a ``title`` that is put before it and an identifier. Any other
    file is text, one passage a line. Both may be gzipped (``.gz``); lines without text are left out.

    Args:
        path: the file.
        text_field: field of the text, JSON Lines only.
        id_field: field of the identifier, JSON Lines only; a row without one is known by its number.

    Raises:
        UserError: the file cannot be read, a row is not what it should be, or there is no passage at all.
    """
    is_jsonl = path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    passages: list[CorpusPassage] = []
    rows: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}, row {number}"
        if is_jsonl:
            passage = _from_json(line, where, str(number), text_field, id_field)
        else:
            passage = CorpusPassage(str(number), line)
        if not passage.text:
            continue
        if passage.passage_id in rows:
            first = rows[passage.passage_id]
            raise UserError(f"{where}, field {id_field!r}: {passage.passage_id!r} names row {first} already (id_field)")
        rows[passage.passage_id] = number
        passages.append(passage)
    if not passages:
        raise UserError(f"corpus={path}: it holds no text; expected one passage a line, or JSON Lines (.jsonl)")
    return passages


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not empty."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, text
    except FileNotFoundError:
        raise UserError(f"corpus={path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number}: not UTF-8 text ({error.reason}); convert the file (corpus)") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"corpus={path}: cannot be read after row {number} ({reason})") from error


def _from_json(line: str, where: str, number: str, text_field: str, id_field: str) -> CorpusPassage:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); expected an object a line (corpus)") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object with the field {text_field!r}, found {_kind(row)}")
    if text_field not in row:
        raise UserError(f"{where}, field {text_field!r}: missing; the row has {sorted(row)[:8]} (text_field)")
    parts = [row.get("title"), row[text_field]] if text_field != "title" else [row[text_field]]
    for field, part in zip(("title", text_field)[-len(parts) :], parts, strict=True):
        if not isinstance(part, str) and not (part is None and field != text_field):
            raise UserError(f"{where}, field {field!r}: expected text, found {_kind(part)}")
        if part and not is_encodable(part):
            raise UserError(f"{where}, field {field!r}: half a surrogate pair, which no UTF-8 text holds")
    passage_id = row.get(id_field, number)
    if isinstance(passage_id, bool) or not isinstance(passage_id, str | int):
        raise UserError(f"{where}, field {id_field!r}: expected text or a whole number, found {_kind(passage_id)}")
    if isinstance(passage_id, str) and not is_encodable(passage_id):
        raise UserError(f"{where}, field {id_field!r}: half a surrogate pair, which no UTF-8 text holds")
    return CorpusPassage(str(passage_id), " ".join(part.strip() for part in parts if part and part.strip()))


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _encode_passages(model: Any, passages: Sequence[CorpusPassage], prompt: str, batch_size: int) -> np.ndarray:
    embeddings: np.ndarray = model.encode(
        [passage.text for passage in passages],
        prompt=prompt,
        batch_size=batch_size,
        normalize_embeddings=True,
        # For a bar on a terminal; a log file would be filled with it.
        show_progress_bar=sys.stderr.isatty() and len(passages) > batch_size,
    )
    return embeddings.astype(np.float32, copy=False)


def _content_fingerprint(passages: Sequence[CorpusPassage]) -> str:
    digest = hashlib.sha256()
    for passage in passages:
        text = passage.text.encode()
        digest.update(len(text).to_bytes(8, "little"))  # so that no two lists of texts run into the same bytes
        digest.update(text)
    return digest.hexdigest()[:16]
