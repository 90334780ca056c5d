"""The Lightning module around the bi-encoder."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from retrofit.data.batching import TokenBatch
from retrofit.models.bi_encoder import BiEncoder, Precision

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class RetrievalModule(pl.LightningModule):
    """One step: embed the texts in chunks of similar length, score queries against passages, take the loss.

    Attributes:
        encoder: the bi-encoder; what its backbone lets learn is trained.
        loss: takes query embeddings, passage embeddings and relevance.
        anchor_weight: factor on the mean of ``1 - cosine`` between the anchors' embeddings and the base's.
        chunk_tokens: tokens that go through the backbone at once.
        kept_tokens: tokens of a step whose activations are kept; those of the others are computed twice.
        precision: of the matrix products.
        warmup_fraction: share of all steps over which the learning rate rises from zero.
        seed: of whatever a step draws; every step seeds itself, so a resumed run draws the same dropout masks.
    """

    def __init__(
        self,
        encoder: BiEncoder,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        anchor_weight: float,
        total_steps: int,
        warmup_fraction: float,
        chunk_tokens: int,
        kept_tokens: int | None,
        precision: Precision,
        seed: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.loss = loss
        self.anchor_weight = anchor_weight
        self.chunk_tokens = chunk_tokens
        self.kept_tokens = kept_tokens
        self.precision: Precision = precision
        self.warmup_fraction = warmup_fraction
        self.total_steps = total_steps
        self.seed = seed
        self.strict_loading = False  # a checkpoint holds what was trained; the rest comes from the base
        self._optimizer_factory = optimizer

    def embed(self, token_ids: list[list[int]]) -> Tensor:
        """Return unit-length embeddings ``[texts, dimension]`` of texts given as token ids, in their order."""
        return self.encoder.embed(token_ids, self.chunk_tokens, self.kept_tokens, self.precision)

    def training_step(self, batch: TokenBatch, _batch_index: int) -> Tensor:
        """Return the loss of a step, a scalar."""
        embeddings = self.embed(batch.token_ids + batch.anchors)
        queries, passages, anchors = embeddings.tensor_split((batch.n_queries, len(batch.token_ids)))
        loss: Tensor = self.loss(queries, passages, batch.relevance.to(self.device))
        if batch.anchors:
            loss = loss + self.anchor_weight * self.drift(anchors, batch.anchors)
        return loss

    def drift(self, embeddings: Tensor, token_ids: list[list[int]]) -> Tensor:
        """Return the mean of ``1 - cosine`` to the base's embeddings of the same texts, a scalar.

        Args:
            embeddings: float ``[texts, dimension]``, unit length.
            token_ids: the texts.
        """
        was_training = self.encoder.training
        self.encoder.eval()  # the base is where it is: dropout is for what learns
        with torch.no_grad(), self.encoder.backbone.disable_adapter():
            base = self.embed(token_ids)
        self.encoder.train(was_training)
        return 1 - (embeddings * base).sum(dim=1).mean()

    def on_train_batch_start(self, batch: TokenBatch, batch_idx: int) -> None:
        """Seed every generator from the run's seed and the step, so their states need no place in a checkpoint."""
        seed = self.seed * 1_000_003 + self.global_step
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)  # of the CPU and of every GPU

    def configure_optimizers(self) -> Any:
        """Return the optimiser over what is trainable, with linear warm-up and linear decay to zero, step by step."""
        optimizer = self._optimizer_factory([p for p in self.parameters() if p.requires_grad])
        warmup = max(1, math.ceil(self.warmup_fraction * self.total_steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(0.0, (self.total_steps - step) / max(1, self.total_steps - warmup))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only trainable weights in the checkpoint: megabytes instead of the whole backbone."""
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = _subset(checkpoint["state_dict"], trainable)

    def transfer_batch_to_device(self, batch: TokenBatch, device: torch.device, dataloader_idx: int) -> TokenBatch:
        """Return the batch as it is: token ids are padded, and moved, chunk by chunk."""
        return batch


def _subset(state: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name in names}
