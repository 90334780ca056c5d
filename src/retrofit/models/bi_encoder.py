"""The bi-encoder: one backbone that embeds queries and passages, told apart by their prompts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from retrofit.errors import UserError
from retrofit.models.fused_encoder import FusedEncoder, NotFusableError, drops_units
from retrofit.models.fused_layers import LayerWeights
from retrofit.models.gradient_cache import Chunk, embed_twice
from retrofit.models.packing import PackedTexts

Kind = Literal["query", "passage"]
Pooling = Literal["mean", "cls"]
Precision = Literal["float32", "bfloat16"]

log = logging.getLogger(__name__)


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one L2-normalised float32 vector a text, ``[texts, dimension]``.

    Args:
        hidden: last hidden states, float ``[texts, tokens, dimension]``.
        attention_mask: 1 for tokens, 0 for padding, integer ``[texts, tokens]``.
        pooling: ``mean`` over the tokens, or the first token (``cls``).
    """
    hidden = hidden.float()
    if pooling == "cls":
        pooled = hidden[:, 0]
    else:
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
    return functional.normalize(pooled, dim=-1)


def pool_packed(hidden: Tensor, packed: PackedTexts, pooling: Pooling) -> Tensor:
    """Return what :func:`pool` returns, of packed texts.

    Args:
        hidden: last hidden states, float ``[tokens, dimension]``.
        packed: where the texts lie.
        pooling: ``mean`` over the tokens, or the first token (``cls``).
    """
    hidden = hidden.float()
    if pooling == "cls":
        pooled = hidden[packed.first_tokens()]
    else:
        sums = hidden.new_zeros((len(packed.lengths), hidden.shape[1])).index_add(0, packed.text_of(), hidden)
        pooled = sums / packed.lengths.unsqueeze(1)
    return functional.normalize(pooled, dim=-1)


def pad(token_ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both int64 ``[texts, longest]``, padded on the right."""
    longest = max(len(ids) for ids in token_ids)
    input_ids = torch.full((len(token_ids), longest), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(token_ids), longest), dtype=torch.int64)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        attention_mask[row, : len(ids)] = 1
    return input_ids, attention_mask


def chunks_by_length(lengths: Sequence[int], token_budget: int, *, padded: bool = True) -> Iterator[list[int]]:
    """Yield the positions of texts in chunks of similar length, longest first.

    A chunk stays within the token budget (a single longer text is a chunk of its own), so its memory is bounded
    whatever the lengths.

    Args:
        lengths: tokens of each text.
        token_budget: tokens of a chunk.
        padded: whether each text counts as its chunk's longest.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    chunk: list[int] = []
    tokens = 0
    for position in order:
        tokens += max(1, lengths[chunk[0] if chunk and padded else position])
        if chunk and tokens > token_budget:
            yield chunk
            chunk, tokens = [], max(1, lengths[position])
        chunk.append(position)
    if chunk:
        yield chunk


def load_tokenizer(folder: Path) -> Any:
    """Return the fast tokenizer of a checkpoint folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, use_fast=True)


def _dropout(folder: Path, probability: float) -> dict[str, float]:
    """Return the settings of a checkpoint that say how often units are dropped, whatever its kind calls them."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    known = [name for name, value in config.to_dict().items() if "dropout" in name and isinstance(value, float | int)]
    if probability and not known:
        raise UserError(f"model.dropout={probability}: a {config.model_type} drops no units; expected 0 or null")
    return dict.fromkeys(known, probability)


def _check_length(backbone: nn.Module, folder: Path, max_length: int) -> None:
    """Raise where texts of the longest allowed length would have tokens that no position is learnt for."""
    positions = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    if isinstance(positions, nn.Embedding):
        # RoBERTa counts from behind the number that stands for padding.
        most = positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1)
        if max_length > most:
            raise UserError(f"model.max_length={max_length}: expected at most {most}, the positions of {folder}")


def token_ids(
    tokenizer: Any, prompts: Mapping[Kind, str], texts: Sequence[str], kind: Kind, max_length: int | None
) -> list[list[int]]:
    """Return the token ids of every text with its prompt, special tokens included, cut at ``max_length`` if given."""
    if not texts:
        return []
    encoded = tokenizer(
        [prompts[kind] + text for text in texts],
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    return list(encoded["input_ids"])


@dataclass(frozen=True)
class Tokenization:
    """How an encoder turns texts into token ids, without its weights: cheap to send to processes that draw batches.

    Attributes:
        tokenizer: a fast tokenizer.
        prompts: what is put before a query and before a passage.
        max_length: tokens after which a text is cut, the special tokens counted.
    """

    tokenizer: Any
    prompts: Mapping[Kind, str]
    max_length: int

    def __call__(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Return the token ids of every text with its prompt, special tokens included."""
        return token_ids(self.tokenizer, self.prompts, texts, kind, self.max_length)


class BiEncoder(nn.Module):
    """A transformers encoder with pooling, prompts and a length limit.

    Attributes:
        backbone: a transformers encoder, possibly wrapped by peft.
        tokenizer: its fast tokenizer.
        pooling: how token vectors become one.
        prompts: what is put before a query and before a passage.
        max_length: tokens after which a text is cut, the special tokens counted.
        fused: whether the fused layers stand in for the backbone's own where they can, which is on a CPU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokenizer: Any,
        pooling: Pooling,
        prompts: dict[Kind, str],
        max_length: int,
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone  # its class is known to transformers and peft alone
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.prompts = prompts
        self.max_length = max_length
        self.fused = True

    @classmethod
    def load(
        cls,
        folder: Path,
        pooling: Pooling,
        prompts: dict[Kind, str],
        max_length: int,
        attention: str | None = None,
        dropout: float | None = None,
        weights: Precision = "float32",
    ) -> BiEncoder:
        """Return the encoder of a checkpoint folder, in evaluation mode.

        Args:
            folder: a transformers checkpoint with safetensors weights and a fast tokenizer.
            pooling: how token vectors become one.
            prompts: what is put before a query and before a passage.
            max_length: tokens after which a text is cut.
            attention: the attention implementation transformers shall use; None leaves the choice to it.
            dropout: probability of dropping a hidden or attention unit in training; None keeps the checkpoint's.
            weights: precision of the weights in memory. In bfloat16 they take half of it and are multiplied as they
                are, whatever precision is asked of ``encode``: for an encoder that only searches. Training needs
                float32.

        Raises:
            UserError: the checkpoint has fewer positions than ``max_length``, or nothing to drop units of.
        """
        from transformers import AutoModel

        changes: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
        if dropout is not None:
            changes |= _dropout(folder, dropout)
        backbone = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=getattr(torch, weights), **changes)
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # a layer over the first token that some classes add: unused, often not even stored
        _check_length(backbone, folder, max_length)
        return cls(backbone.eval(), load_tokenizer(folder), pooling, prompts, max_length)

    @property
    def dimension(self) -> int:
        """Number of components of an embedding."""
        return int(self.backbone.config.hidden_size)

    def tokenization(self, max_length: int | None = None) -> Tokenization:
        """Return how texts become token ids, of a lower length limit where one is given."""
        return Tokenization(self.tokenizer, self.prompts, min(max_length or self.max_length, self.max_length))

    def tokenize(self, texts: Sequence[str], kind: Kind, max_length: int | None = None) -> list[list[int]]:
        """Return the token ids of every text with its prompt, special tokens included."""
        return self.tokenization(max_length)(texts, kind)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit-length float32 embeddings ``[texts, dimension]`` of padded token ids ``[texts, tokens]``."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(hidden, attention_mask, self.pooling)

    def embed(
        self,
        token_ids: Sequence[Sequence[int]],
        chunk_tokens: int,
        kept_tokens: int | None = None,
        precision: Precision = "float32",
    ) -> Tensor:
        """Return unit-length float32 embeddings ``[texts, dimension]`` of texts given as token ids, in their order.

        Gradients flow to what learns and equal those of a single forward pass, whatever the chunks. Activations beyond
        ``kept_tokens`` are not kept but computed again in the backward pass, a chunk at a time, once the gradient of
        the chunk's embeddings is known: gradient caching (Gao et al. 2021), with the same units dropped both times.

        Args:
            token_ids: of each text, at least one text.
            chunk_tokens: tokens that go through the backbone at once.
            kept_tokens: tokens whose activations are kept; None keeps all.
            precision: of the matrix products.
        """
        run = self._chunk_runner(precision)
        lengths = [len(ids) for ids in token_ids]
        chunks = list(chunks_by_length(lengths, chunk_tokens, padded=run.padded))
        texts = [[token_ids[position] for position in positions] for positions in chunks]
        twice, left = 0, sum(lengths)
        while torch.is_grad_enabled() and kept_tokens is not None and left > kept_tokens:
            left -= sum(map(len, texts[twice]))
            twice += 1
        parts = run.embed_twice(texts[:twice]) if twice else []
        parts += [run.embed(chunk) for chunk in texts[twice:]]
        order = torch.tensor([position for positions in chunks for position in positions], device=parts[0].device)
        return torch.cat(parts)[order.argsort()]

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        token_budget: int = 4096,
        precision: Precision = "float32",
        label: str = "",
    ) -> np.ndarray:
        """Return the embeddings of texts, float32 ``[len(texts), dimension]``, unit length, in their order.

        Args:
            texts: queries or passages, without prompts.
            kind: which prompt they get.
            token_budget: tokens that go through the backbone at once.
            precision: of the matrix products; the result is float32 in any case.
            label: where given, progress is logged under it every 20 seconds.
        """
        tokens = self.tokenize(texts, kind)
        embeddings = np.zeros((len(texts), self.dimension), dtype=np.float32)
        was_training = self.training
        self.eval()
        run = self._chunk_runner(precision)
        started = reported = time.monotonic()
        done = 0
        for positions in chunks_by_length([len(ids) for ids in tokens], token_budget, padded=run.padded):
            embeddings[positions] = run.embed([tokens[i] for i in positions]).cpu().numpy()
            done += len(positions)
            now = time.monotonic()
            if label and now - reported > 20:
                rate = done / (now - started)
                left = (len(texts) - done) / rate
                log.info("%s: %d of %d texts, %.0f texts/s, about %.0f s left", label, done, len(texts), rate, left)
                reported = now
        self.train(was_training)
        return embeddings

    def _chunk_runner(self, precision: Precision) -> _FusedRunner | _PlainRunner:
        """Return what embeds a chunk with the weights of now: the fused layers where they can stand in."""
        first = next(self.parameters())
        if self.fused and first.device.type == "cpu" and not drops_units(self.backbone):
            dtype = torch.bfloat16 if precision == "bfloat16" else first.dtype
            try:
                fused = FusedEncoder(self.backbone, dtype, learns=torch.is_grad_enabled())
            except NotFusableError as reason:
                log.debug("the backbone's own layers are used: %s", reason)
            else:
                return _FusedRunner(fused, fused.weights(), self.pooling, self.dimension)
        return _PlainRunner(self, precision)


@dataclass(frozen=True)
class _FusedRunner:
    """Embeds chunks of packed texts."""

    encoder: FusedEncoder
    weights: list[LayerWeights]
    pooling: Pooling
    dimension: int
    padded: ClassVar[bool] = False

    def embed(self, texts: Chunk) -> Tensor:
        packed = PackedTexts.of(texts)
        return pool_packed(self.encoder(packed, self.weights), packed, self.pooling)

    def embed_twice(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        return [embed_twice(self.embed, chunks, self.encoder.learnt(), self.dimension)]


@dataclass(frozen=True)
class _PlainRunner:
    """Embeds chunks of padded texts with the backbone's own forward pass."""

    encoder: BiEncoder
    precision: Precision
    padded: ClassVar[bool] = True

    def embed(self, texts: Chunk) -> Tensor:
        return self(*self.inputs(texts))

    def embed_twice(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        # Checkpoints, for they draw the same units to drop again, and sharded weights are gathered for them again.
        return [checkpoint(self, *self.inputs(chunk), use_reentrant=False) for chunk in chunks]

    def inputs(self, texts: Chunk) -> tuple[Tensor, Tensor]:
        # On the device already: gradient caching restores the generators of those devices that it sees tensors on.
        device = next(self.encoder.parameters()).device
        input_ids, mask = pad(texts, self.encoder.tokenizer.pad_token_id)
        return input_ids.to(device), mask.to(device)

    def __call__(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        first = next(self.encoder.parameters())
        # Weights that are bfloat16 need no autocast, which would look up and cast every operand of every product.
        cast = self.precision == "bfloat16" and first.dtype == torch.float32
        with torch.autocast(first.device.type, torch.bfloat16, enabled=cast):
            embeddings: Tensor = self.encoder(input_ids, mask)
        return embeddings
