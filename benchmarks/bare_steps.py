"""Training steps of the embedded model without Lightning, for benchmarks that look at the step alone."""

from __future__ import annotations

import torch

from retrofit.artefacts import default_cache
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.step import StepEmbeddings
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder, Precision
from retrofit.models.embedded_checkpoint import embedded_checkpoint
from training import PROMPTS, TEMPERATURE, adapter_settings


class BareSteps:
    """The model with LoRA, or all of whose layers learn, and its optimiser.

    Attributes:
        encoder: the model.
        max_length: tokens after which a text is cut.
        kept_tokens: tokens whose activations are kept; None keeps all.
        precision: of the matrix products.
    """

    def __init__(
        self, max_length: int, kept_tokens: int | None, precision: Precision = "bfloat16", *, lora: bool = True
    ) -> None:
        folder = embedded_checkpoint(default_cache())
        self.encoder = BiEncoder.load(folder, "mean", PROMPTS, 512, "eager", 0.0)  # type: ignore[arg-type]
        apply_adapter(self.encoder, adapter_settings() if lora else None)
        self.encoder.train()
        self._loss = InfoNCE(TEMPERATURE)
        self.max_length = max_length
        self.kept_tokens = kept_tokens
        self.precision = precision
        learnt = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(learnt, lr=1e-4, fused=True)

    def take(self, pairs: list[list[str]]) -> int:
        """Train on pairs of a query and a passage, and return their tokens."""
        texts = self.encoder.tokenize([query for query, _ in pairs], "query", self.max_length)
        texts += self.encoder.tokenize([passage for _, passage in pairs], "passage", self.max_length)
        chunk_tokens = 4096 if self.max_length <= 64 else 2048
        queries, passages = self.encoder.embed(texts, chunk_tokens, self.kept_tokens, self.precision).chunk(2)
        relevance = torch.full((len(pairs), len(pairs)), -1, dtype=torch.int8).fill_diagonal_(1)
        places = torch.arange(len(pairs))
        answers = torch.stack([places, places], dim=1)
        self._loss(StepEmbeddings(queries, passages, relevance, places, answers)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return sum(map(len, texts))
