"""The Lightning module around the bi-encoder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from retrofit.data.batching import TokenBatch
from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.models.bi_encoder import BiEncoder, chunks_by_length, pad
from retrofit.training.teacher import Teacher

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


class RetrievalModule(pl.LightningModule):
    """One step: embed the texts in chunks of similar length, score queries against passages, take the loss.

    Attributes:
        encoder: the bi-encoder; what its backbone lets learn is trained.
        loss: what of it learns, a temperature, is trained as well.
        anchor_weight: factor on the mean of ``1 - cosine`` between the anchors' embeddings and the base's.
        chunk_tokens: tokens, padding counted, that go through the backbone at once.
        warmup_fraction: share of all steps over which the learning rate rises from zero.
        seed: of dropout; every step seeds itself, so a resumed run draws the same masks.
        teacher: what the loss compares the step with; None where it needs none.
    """

    def __init__(
        self,
        encoder: BiEncoder,
        loss: Objective,
        optimizer: OptimizerFactory,
        anchor_weight: float,
        total_steps: int,
        warmup_fraction: float,
        chunk_tokens: int,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.loss = loss
        self.anchor_weight = anchor_weight
        self.chunk_tokens = chunk_tokens
        self.warmup_fraction = warmup_fraction
        self.total_steps = total_steps
        self.seed = seed
        self.teacher = teacher
        self.strict_loading = False  # a checkpoint holds what was trained; the rest comes from the base
        self._optimizer_factory = optimizer

    def embed(self, token_ids: list[list[int]]) -> Tensor:
        """Return unit-length embeddings ``[texts, dimension]`` of texts given as token ids, in their order."""
        lengths = [len(ids) for ids in token_ids]
        pad_token_id = self.encoder.tokenizer.pad_token_id
        parts, order = [], []
        for positions in chunks_by_length(lengths, self.chunk_tokens):
            input_ids, mask = pad([token_ids[i] for i in positions], pad_token_id)
            parts.append(self.encoder(input_ids.to(self.device), mask.to(self.device)))
            order.extend(positions)
        place = torch.empty(len(order), dtype=torch.int64, device=self.device)
        place[torch.tensor(order, device=self.device)] = torch.arange(len(order), device=self.device)
        return torch.cat(parts)[place]

    def training_step(self, batch: TokenBatch, _batch_index: int) -> Tensor:
        """Return the loss of a step, a scalar."""
        embeddings = self.embed(batch.token_ids + batch.anchors)
        queries, passages, anchors = embeddings.tensor_split((batch.n_queries, len(batch.token_ids)))
        with torch.autocast(self.device.type, enabled=False):
            loss: Tensor = self.loss(self.step_embeddings(queries, passages, batch))
            if batch.anchors:
                loss = loss + self.anchor_weight * self.drift(anchors, batch.anchors)
        return loss

    def step_embeddings(self, queries: Tensor, passages: Tensor, batch: TokenBatch) -> StepEmbeddings:
        """Return what the loss sees of a step, on this device.

        Args:
            queries: float ``[queries, dimension]``, unit length.
            passages: float ``[passages, dimension]``, unit length.
            batch: their texts.
        """
        tensors = (batch.relevance, batch.passage_ids, batch.answers)
        step = StepEmbeddings(queries, passages, *(tensor.to(self.device) for tensor in tensors))
        if self.teacher is None:
            return step
        return dataclasses.replace(
            step,
            teacher_queries=self.teacher.queries.of(batch.query_ids).to(self.device),
            teacher_passages=self.teacher.passages.of(batch.passage_ids).to(self.device),
        )

    def drift(self, embeddings: Tensor, token_ids: list[list[int]]) -> Tensor:
        """Return the mean of ``1 - cosine`` to the base's embeddings of the same texts, a scalar.

        Args:
            embeddings: float ``[texts, dimension]``, unit length.
            token_ids: the texts.
        """
        precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.trainer.precision == "bf16-mixed")
        was_training = self.encoder.training
        self.encoder.eval()  # the base is where it is: dropout is for what learns
        with torch.no_grad(), precision, self.encoder.backbone.disable_adapter():
            base = self.embed(token_ids)
        self.encoder.train(was_training)
        return 1 - (embeddings * base).sum(dim=1).mean()

    def on_train_batch_start(self, batch: TokenBatch, batch_idx: int) -> None:
        """Seed dropout from the run's seed and the step."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def configure_optimizers(self) -> Any:
        """Return the optimiser over what is trainable, with linear warm-up and linear decay to zero, step by step."""
        optimizer = self._optimizer_factory(self._parameter_groups())
        warmup = max(1, math.ceil(self.warmup_fraction * self.total_steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(0.0, (self.total_steps - step) / max(1, self.total_steps - warmup))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trainable; a temperature that is learnt has no value that weight decay should pull it to."""
        of_encoder, of_loss = ([p for p in part.parameters() if p.requires_grad] for part in (self.encoder, self.loss))
        groups: list[dict[str, Any]] = [{"params": of_encoder}]
        return [*groups, {"params": of_loss, "weight_decay": 0.0}] if of_loss else groups

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what the training changes in the checkpoint: megabytes instead of the whole backbone."""
        changed = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        changed |= {f"loss.{name}" for name, _ in self.loss.named_buffers()}
        checkpoint["state_dict"] = _subset(checkpoint["state_dict"], changed)

    def transfer_batch_to_device(self, batch: TokenBatch, device: torch.device, dataloader_idx: int) -> TokenBatch:
        """Return the batch as it is: token ids are padded, and moved, chunk by chunk."""
        return batch


def _subset(state: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name in names}
