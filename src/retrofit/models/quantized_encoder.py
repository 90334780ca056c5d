"""The bi-encoder in int8 on a CPU, by OpenVINO: to encode many texts, not to train.

Weights, and what goes into each matrix product, become int8 after training (NNCF, ``ModelType.TRANSFORMER``). The
ranges of the latter are measured on calibration texts, which should be like those that are encoded. All that is not
int8 is float32: in bfloat16 OpenVINO 2026.4 gives wrong embeddings of some shapes on CPUs with AMX (docs/LOG.md,
2026-11-30), and is hardly faster.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from retrofit.artefacts import ArtefactStore, fingerprint
from retrofit.errors import UserError
from retrofit.models.bi_encoder import (
    BiEncoder,
    Kind,
    Pooling,
    Precision,
    chunks_by_length,
    load_tokenizer,
    pad,
    token_ids,
)
from retrofit.models.checkpoints import weights_fingerprint

INT8: Literal["int8"] = "int8"

CODE_VERSION = 1  # raise it whenever the same model and calibration texts would give another graph

_STAGE = "quantized"
_GRAPH = "model.xml"
_PACKAGES = ("openvino", "nncf")

log = logging.getLogger(__name__)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that quantise, by name.

    Raises:
        UserError: one is not installed.
    """
    try:
        return {package: importlib.metadata.version(package) for package in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("precision=int8 needs OpenVINO and NNCF: pip install -e '.[openvino]'") from error


def _block_telemetry() -> None:
    """Make OpenVINO and NNCF send nothing about their use; to be called before they are imported.

    Where no file in the home folder forbids it, they write an identifier beside it and send what they are called with.
    Without the package that sends, both go without.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as the documentation of import says it


class QuantizedEncoder:
    """A bi-encoder as a quantised graph, with its tokenizer, prompts and length limit.

    Attributes:
        tokenizer: a fast tokenizer.
        prompts: what is put before a query and before a passage.
        max_length: tokens after which a text is cut, the special tokens counted.
        dimension: number of components of an embedding.
    """

    def __init__(self, graph: Path, tokenizer: Any, prompts: dict[Kind, str], max_length: int) -> None:
        _block_telemetry()
        import openvino

        self._core = openvino.Core()
        self._graph = self._core.read_model(graph)
        self.dimension: int = self._graph.output(0).partial_shape[1].get_length()
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.max_length = max_length

    @classmethod
    def load(
        cls,
        folder: Path,
        pooling: Pooling,
        prompts: dict[Kind, str],
        max_length: int,
        calibration: Sequence[str],
        kind: Kind,
        store: ArtefactStore,
    ) -> QuantizedEncoder:
        """Return the quantised encoder of a checkpoint folder, quantising it unless the cache has the graph.

        Args:
            folder: as for :meth:`BiEncoder.load`.
            pooling: likewise.
            prompts: likewise.
            max_length: likewise.
            calibration: texts on which the ranges are measured, without prompts; at least one, some hundred do.
            kind: which prompt they get.
            store: the cache.

        Raises:
            UserError: OpenVINO or NNCF is not installed.
        """
        tokenizer = load_tokenizer(folder)
        tokens = token_ids(tokenizer, prompts, calibration, kind, max_length)
        inputs = {
            "code": CODE_VERSION,
            "weights": weights_fingerprint(folder),
            "pooling": pooling,
            "max_length": max_length,
            "calibration": fingerprint(tokens),
            **package_versions(),
        }

        def build(target: Path) -> None:
            log.info("quantising the model on %d texts; the same command finds it in the cache", len(tokens))
            _quantize(BiEncoder.load(folder, pooling, prompts, max_length, attention="eager"), tokens, target)

        return cls(store.get(_STAGE, inputs, build) / _GRAPH, tokenizer, prompts, max_length)

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        token_budget: int,
        precision: Precision,  # noqa: ARG002 -- of an encoder's interface, for others
        label: str,
    ) -> np.ndarray:
        """Return the embeddings of texts, float32 ``[len(texts), dimension]``, unit length, in their order.

        Args:
            texts: queries or passages, without prompts.
            kind: which prompt they get.
            token_budget: tokens, padding counted, that go through the graph at once.
            precision: changes nothing.
            label: where given, what is encoded, for the log.
        """
        if label:
            log.info("%s: %d texts", label, len(texts))
        tokens = token_ids(self.tokenizer, self.prompts, texts, kind, self.max_length)
        embeddings = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for positions in chunks_by_length([len(ids) for ids in tokens], token_budget):
            arrays = _arrays([tokens[position] for position in positions], self.tokenizer)
            embeddings[positions] = self._request.infer(arrays, share_inputs=True)[0]
        return embeddings

    @functools.cached_property
    def _request(self) -> Any:
        """What infers, with as many threads as PyTorch would take; compiled when it is asked for first."""
        options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        return self._core.compile_model(self._graph, "CPU", options).create_infer_request()


def _arrays(token_ids: Sequence[Sequence[int]], tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and attention mask, both int64 ``[texts, longest]``."""
    input_ids, mask = pad(token_ids, tokenizer.pad_token_id)
    return input_ids.numpy(), mask.numpy()


def _quantize(encoder: BiEncoder, calibration: Sequence[Sequence[int]], folder: Path) -> None:
    """Write the quantised graph of an encoder, pooling included, to an empty folder."""
    _block_telemetry()
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    # Of different lengths, so that the mask is part of what is traced.
    example = pad([calibration[0], calibration[0][:-1]], encoder.tokenizer.pad_token_id)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # NNCF draws bars there
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(encoder, example_input=example, input=[[-1, -1], [-1, -1]])
        # One text at a time: the ranges of padding are not those of texts.
        data = nncf.Dataset([_arrays([ids], encoder.tokenizer) for ids in calibration])
        graph = nncf.quantize(graph, data, subset_size=len(calibration), model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(graph, folder / _GRAPH, compress_to_fp16=False)
