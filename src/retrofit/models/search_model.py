"""The models that search: a bi-encoder by its checkpoint, or any sentence-transformers model as it is."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from retrofit.artefacts import ArtefactStore
from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.models.bi_encoder import BiEncoder, Kind, Pooling, Precision
from retrofit.models.checkpoints import files_fingerprint, weights_fingerprint
from retrofit.models.embeddings import Encoder
from retrofit.models.prompts import passage_prompt
from retrofit.models.quantized_encoder import QuantizedEncoder

_SETTINGS = ("pooling", "prompts", "max_length")

log = logging.getLogger(__name__)


class SentenceTransformerEncoder:
    """Any sentence-transformers model as it is, with its own pooling, prompts and further layers.

    Attributes:
        model: the ``SentenceTransformer``.
        prompts: what is put before a query and before a passage; empty where the model has none.
    """

    def __init__(self, folder: Path, prompts: Mapping[Kind, str] | None, max_length: int | None) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(folder), device=local_gpu(), trust_remote_code=False)
        if max_length is not None:
            self.model.max_seq_length = max_length
        own = self.model.prompts
        self.prompts: Mapping[Kind, str] = prompts or {
            "query": own.get("query") or "",
            "passage": passage_prompt(own),
        }

    def encode(
        self, texts: Sequence[str], kind: Kind, token_budget: int, precision: Precision, label: str
    ) -> np.ndarray:
        """Return the embeddings of texts, float32 ``[len(texts), dimension]``, unit length.

        Args:
            texts: queries or passages, without prompts.
            kind: which prompt they get.
            token_budget: tokens that go through the model at once.
            precision: of the matrix products.
            label: where given, what is encoded, for the log.
        """
        if label:
            log.info("%s: %d texts", label, len(texts))
        longest = self.model.max_seq_length or 512
        device = self.model.device.type
        autocast = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
        with autocast:
            vectors = self.model.encode(
                list(texts), prompt=self.prompts[kind], batch_size=max(1, token_budget // longest),
                normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False,
            )  # fmt: skip
        found: np.ndarray = vectors.float().cpu().numpy()
        return found


@dataclass(frozen=True)
class SearchModel:
    """A model that searches.

    Attributes:
        folder: its checkpoint.
        pooling: how token vectors become one; None for what a sentence-transformers folder says itself.
        prompts: what is put before a query and before a passage; None likewise.
        max_length: tokens after which a text is cut; None likewise.
    """

    folder: Path
    pooling: Pooling | None
    prompts: dict[Kind, str] | None
    max_length: int | None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> SearchModel:
        """Return the model that a configuration like ``conf/model`` names, fetched where the cache lacks it."""
        checkpoint = Path(instantiate(model["checkpoint"])).absolute()  # for workers that stand elsewhere
        return cls(checkpoint, model["pooling"], model["prompts"], model["max_length"])

    @classmethod
    def of_folder(cls, folder: Path) -> SearchModel:
        """Return the model of a sentence-transformers folder.

        One that ``retrofit train`` wrote stands in its run folder, whose ``config.yaml`` says how to use it as a plain
        bi-encoder, which is faster; any other is used as it is.
        """
        folder = folder.absolute()
        return cls(folder, **(_settings_of_run(folder) or dict.fromkeys(_SETTINGS)))

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on; JSON-like."""
        identity: dict[str, Any] = {
            "weights": weights_fingerprint(self.folder),
            "pooling": self.pooling,
            "prompts": None if self.prompts is None else dict(self.prompts),
            "max_length": self.max_length,
        }
        return identity if self.pooling else {**identity, "files": files_fingerprint(self.folder)}

    def embedding_identity(self, kind: Kind) -> dict[str, Any]:
        """Return what the embeddings of a kind depend on; JSON-like."""
        identity = self.identity
        prompts = identity.pop("prompts")
        return {**identity, "prompt": f"its own for {kind}" if prompts is None else prompts[kind]}

    def load(self, precision: Precision = "float32") -> Encoder:
        """Return its encoder, on the GPU where there is one, with weights of this precision in memory."""
        if self.pooling is None or self.prompts is None or self.max_length is None:
            return SentenceTransformerEncoder(self.folder, self.prompts, self.max_length)
        gpu = local_gpu()
        # On a CPU PyTorch's fused attention in bfloat16 is slower than the plain one, on short texts by a fifth in all.
        attention = "eager" if gpu is None else None
        encoder = BiEncoder.load(self.folder, self.pooling, self.prompts, self.max_length, attention, weights=precision)
        return encoder.to(gpu or "cpu")

    def load_quantized(self, calibration: Sequence[str], kind: Kind, store: ArtefactStore) -> QuantizedEncoder:
        """Return its encoder in int8, on the CPU.

        Args:
            calibration: texts on which the ranges of its activations are measured, at least one.
            kind: which prompt they get.
            store: the cache.

        Raises:
            UserError: the packages that quantise are not installed, or the model is no plain bi-encoder.
        """
        return QuantizedEncoder.load(self.folder, *self.int8_settings(), calibration, kind, store)

    def int8_settings(self) -> tuple[Pooling, dict[Kind, str], int]:
        """Return pooling, prompts and length limit of a model that can become int8.

        Raises:
            UserError: it cannot, being no plain bi-encoder.
        """
        if self.pooling is None or self.prompts is None or self.max_length is None:
            raise UserError(
                f"precision=int8: {self.folder} is not the model of a run of retrofit train; expected one, or a model "
                "whose pooling, prompts and max_length are given (model)"
            )
        return self.pooling, self.prompts, self.max_length


def local_gpu() -> str | None:
    """Return the name of the GPU that this process uses, None where there is none.

    Of several processes on a machine each has the one of its ``LOCAL_RANK``, which torchrun and Lightning set.
    """
    if not torch.cuda.is_available():
        return None
    # A launcher may let each process see its own GPU alone.
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _settings_of_run(folder: Path) -> dict[str, Any] | None:
    """Return what the run that a model folder stands in says of the model; None where it stands in no run."""
    run = folder.parent / "config.yaml"
    if folder.name != "model" or not run.is_file():
        return None
    try:
        config = yaml.safe_load(run.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):  # of another program
        return None
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not model.keys() >= set(_SETTINGS):
        return None
    return {name: model[name] for name in _SETTINGS}
