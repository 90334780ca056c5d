"""The models that search: a bi-encoder by its checkpoint, or any sentence-transformers model as it is."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrofit.artefacts import ArtefactStore
from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.models.bi_encoder import BiEncoder, Kind, Pooling, Precision
from retrofit.models.checkpoints import files_fingerprint, weights_fingerprint
from retrofit.models.embeddings import Encoder
from retrofit.models.model_size import ModelSize, size_of_folder
from retrofit.models.prompts import passage_prompt
from retrofit.models.quantized_encoder import QuantizedEncoder
from retrofit.models.sentence_transformer_folder import bi_encoder_settings, modules_of, prompts_of

_STATIC_BATCH = 1024  # texts

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
        # Word embeddings that are averaged have no limit, and hold next to nothing of a text.
        batch_size = max(1, int(token_budget // longest)) if math.isfinite(longest) else _STATIC_BATCH
        device = self.model.device.type
        autocast = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
        with autocast:
            vectors = self.model.encode(
                list(texts), prompt=self.prompts[kind], batch_size=batch_size,
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
    def of(cls, model: Mapping[str, Any], key: str = "model") -> SearchModel:
        """Return the model that a configuration like ``conf/model`` names, fetched where the cache lacks it.

        Where it names a pooling, what it leaves out besides is what the folder itself says.

        Args:
            model: what the configuration says.
            key: where it says so.

        Raises:
            UserError: it is one that can only be evaluated, cannot be fetched, or names a pooling for a model that has
                its own.
        """
        if "checkpoint" not in model:
            name = model.get("name")
            raise UserError(f"{key}={name}: expected a model with a checkpoint; {name} is for retrofit evaluate alone")
        checkpoint = Path(instantiate(model["checkpoint"])).absolute()  # for workers that stand elsewhere
        stated = {name: model[name] for name in ("pooling", "prompts", "max_length")}
        if stated["pooling"] is not None and None in stated.values():
            own = bi_encoder_settings(checkpoint)
            if own is None:
                raise UserError(
                    f"{key}={model.get('name')}: expected prompts and max_length with pooling={stated['pooling']}, or "
                    "none of them: its folder is not that of a plain bi-encoder, whose own could be taken"
                )
            stated = {name: own[name] if value is None else value for name, value in stated.items()}
        return cls(checkpoint, **stated)

    @classmethod
    def of_folder(cls, folder: Path) -> SearchModel:
        """Return the model of a sentence-transformers folder.

        A plain bi-encoder is used as such, which is faster and gives the same; any other as it is.
        """
        folder = folder.absolute()
        return cls(folder, **(bi_encoder_settings(folder) or {"pooling": None, "prompts": None, "max_length": None}))

    @property
    def kind(self) -> str:
        """``static`` where word embeddings are averaged, else ``bi-encoder``."""
        return "static" if any(name == "StaticEmbedding" for name, _ in modules_of(self.folder)) else "bi-encoder"

    @property
    def size(self) -> ModelSize:
        """How large it is, read from its files."""
        return size_of_folder(self.folder)

    @property
    def used_prompts(self) -> Mapping[Kind, str]:
        """What is put before a query and before a passage, by whoever says so."""
        return prompts_of(self.folder) if self.prompts is None else self.prompts

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on; JSON-like."""
        return {
            "weights": weights_fingerprint(self.folder),
            "files": files_fingerprint(self.folder),  # the tokenizer among them
            "pooling": self.pooling,
            "prompts": None if self.prompts is None else dict(self.prompts),
            "max_length": self.max_length,
        }

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
