"""The Lightning module around the bi-encoder."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from retrofit.data.batching import TokenBatch
from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.losses.temperature import Temperature
from retrofit.models.adapters import plain_backbone
from retrofit.models.bi_encoder import BiEncoder, Precision, chunks_by_length
from retrofit.training.distributed import gathered, largest, shard, summed
from retrofit.training.teacher import Teacher

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


class RetrievalModule(pl.LightningModule):
    """One step: embed the texts in chunks of similar length, score queries against passages, take the loss.

    Several processes share the texts of a step, and each takes the loss of all (:mod:`retrofit.training.distributed`).

    Attributes:
        encoder: the bi-encoder; what its backbone lets learn is trained.
        loss: what of it learns, a temperature, is trained as well.
        anchor_weight: factor on the mean of ``1 - cosine`` between the anchors' embeddings and the base's.
        chunk_tokens: tokens that go through the backbone at once.
        kept_tokens: tokens of a step whose activations are kept; those of the others are computed twice.
        precision: of the matrix products.
        warmup_fraction: share of all steps over which the learning rate rises from zero.
        seed: of whatever a step draws; every step seeds itself in every process, so a resumed run draws the same masks.
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
        kept_tokens: int | None = None,
        precision: Precision = "float32",
        teacher: Teacher | None = None,
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
        self.teacher = teacher
        self.strict_loading = False  # a checkpoint holds what was trained; the rest comes from the base
        self._optimizer_factory = optimizer

    def embed(self, token_ids: list[list[int]], kept_tokens: int | None = None) -> Tensor:
        """Return unit-length embeddings ``[texts, dimension]`` of texts given as token ids, in their order.

        Args:
            token_ids: at least one text.
            kept_tokens: tokens whose activations are kept; None keeps all.
        """
        return self.encoder.embed(token_ids, self.chunk_tokens, kept_tokens, self.precision)

    def embed_share(self, token_ids: list[list[int]]) -> Tensor:
        """Return the embeddings of this process's share of some texts, float ``[texts, dimension]``; may be of none.

        No process goes without a pass through the backbone, for DDP waits for its gradients. Where weights are sharded
        all make equally many passes, and compute all of them again or none, for each pass gathers the weights of all.
        An empty text stands in, whose embedding counts zero times.
        """
        passes = len(list(chunks_by_length([len(ids) for ids in token_ids], self.chunk_tokens)))
        needed, kept = max(1, passes), self.kept_tokens
        if self.device_mesh is not None:
            needed = largest(needed, self.device)
            if kept is not None:
                kept = 0 if largest(sum(map(len, token_ids)), self.device) > kept else None
        nothing = torch.zeros(0, self.encoder.dimension, device=self.device)
        embeddings = self.embed(token_ids, kept) if token_ids else nothing
        for _ in range(needed - passes):
            embeddings = embeddings + 0 * self.embed(self.encoder.tokenize([""], "passage"), kept)
        return embeddings

    def training_step(self, batch: TokenBatch, _batch_index: int) -> Tensor:
        """Return the loss of a step, a scalar: of all processes' texts, in every process."""
        share, anchors = self.embed_share(batch.token_ids + batch.anchors).tensor_split((len(batch.token_ids),))
        texts = gathered(share, sum(batch.relevance.shape))
        queries, passages = texts.tensor_split((batch.n_queries,))
        loss: Tensor = self.loss(self.step_embeddings(queries, passages, batch))
        if batch.n_anchors:
            loss = loss + self.anchor_weight * self.drift(anchors, batch.anchors, batch.n_anchors)
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

    def drift(self, embeddings: Tensor, token_ids: list[list[int]], total: int) -> Tensor:
        """Return the mean of ``1 - cosine`` to the base's embeddings of the same texts, a scalar.

        Args:
            embeddings: float ``[texts, dimension]``, unit length.
            token_ids: the texts.
            total: how many texts all processes have.
        """
        was_training = self.encoder.training
        self.encoder.eval()  # the base is where it is: dropout is for what learns
        with torch.no_grad(), self.encoder.backbone.disable_adapter():
            base = self.embed_share(token_ids)
        self.encoder.train(was_training)
        return 1 - summed((embeddings * base).sum()) / total

    def on_train_batch_start(self, batch: TokenBatch, batch_idx: int) -> None:
        """Seed every generator from seed, step and process, so their states need no place in a checkpoint.

        A learnt temperature that the step before took out of its range is moved back.
        """
        seed = (self.global_rank * 1_000_003 + self.seed) * 1_000_003 + self.global_step
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)  # of the CPU and of every GPU
        for part in self.loss.modules():
            if isinstance(part, Temperature):
                part.move_back()

    def configure_model(self) -> None:
        """Shard the weights over the processes where the trainer's strategy has laid out a mesh of them."""
        if self.device_mesh is None:
            return
        self.encoder.fused = False  # it would take weights from modules that have not gathered them
        backbone = plain_backbone(self.encoder)
        layers = [part for part in backbone.modules() if type(part).__name__ in (backbone._no_split_modules or ())]
        shard(self.encoder, layers, self.device_mesh["data_parallel"])
        if any(parameter.requires_grad for parameter in self.loss.parameters()):
            shard(self.loss, [], self.device_mesh["data_parallel"])

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
