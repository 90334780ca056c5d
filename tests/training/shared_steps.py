"""Trainings of a few steps, as one of several processes carries them out.

    python -m tests.training.shared_steps CHECKPOINT FOLDER CASES

The first process writes the weights that learn after each case, and its losses, to ``FOLDER/<case>.pt``. Started by
torchrun, the processes share every step.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytorch_lightning as pl
import torch

from retrofit.data.batching import BatchContents, PlannedBatches, TokenBatch
from retrofit.data.records import Pair, to_table
from retrofit.data.sampling import Mixture, SamplingPlan
from retrofit.data.selection import strata
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.passage_queue import WithQueue
from retrofit.losses.step import Objective
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.training.callbacks import checkpoint_every
from retrofit.training.datamodule import RetrievalDataModule
from retrofit.training.distributed import leave, trained_weights, world_size
from retrofit.training.lightning_trainer import fit, lightning_trainer
from retrofit.training.module import RetrievalModule

STEPS = 6
WORDS = ["bridge", "clock", "door", "key", "lamp", "mirror", "needle", "oven", "paper", "quilt", "river", "spoon"]


@dataclass(frozen=True)
class Case:
    """A training.

    Attributes:
        name: of the file its results go to.
        strategy: of several processes.
        adapter: ``lora``, or ``full`` for every weight.
        batch_size: pairs a step.
        anchors: texts a step.
        few_texts: whether most steps have one text or two.
        learnt_temperature: whether the loss has a weight of its own.
        queue: whether passages of earlier steps are negatives.
        chunk_tokens: tokens that go through the backbone at once.
        kept_tokens: tokens whose activations are kept.
        resumed: whether it stops after three steps and goes on from the checkpoint of the second.
    """

    name: str
    strategy: str = "ddp"
    adapter: str = "lora"
    batch_size: int = 5
    anchors: int = 5
    few_texts: bool = False
    learnt_temperature: bool = False
    queue: bool = False
    chunk_tokens: int = 64
    kept_tokens: int | None = None
    resumed: bool = False


def objective_of(case: Case) -> Objective:
    """The loss of a training."""
    if case.queue:
        return WithQueue(InfoNCE(0.05, 0.3), 12, 32)
    return InfoNCE(0.1, 0.5, learn_temperature=True) if case.learnt_temperature else InfoNCE(0.05, 0.3)


class FewTexts(torch.utils.data.Dataset[TokenBatch]):
    """Steps of one query, then of a query and an anchor, then as planned, and so on."""

    def __init__(self, whole: PlannedBatches, rank: int = 0, processes: int = 1) -> None:
        self.whole = whole
        self.rank = rank
        self.processes = processes

    def of_process(self, rank: int, processes: int) -> FewTexts:
        return FewTexts(self.whole, rank, processes)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, step: int) -> TokenBatch:
        if step % 3 == 2:
            return self.whole.of_process(self.rank, self.processes)[step]
        batch, anchors = self.whole[step], step % 3
        texts = batch.token_ids[:1] + batch.anchors[:anchors]
        mine = range(self.rank, len(texts), self.processes)
        own = [[texts[i] for i in mine if (i > 0) == anchor] for anchor in (False, True)]
        return TokenBatch(
            own[0], 1, batch.relevance[:1, :0], own[1], anchors, batch.query_ids[:1], batch.passage_ids[:0],
            batch.answers[batch.answers[:, 0] == 0],
        )  # fmt: skip


def planned(encoder: BiEncoder, case: Case) -> PlannedBatches:
    """Steps with hard negatives, random ones and anchors, of texts of one word to nine."""
    generator = np.random.default_rng(0)

    def phrase() -> str:
        return " ".join(generator.choice(WORDS, generator.integers(1, 10)))

    table = to_table(
        [
            Pair(
                f"{phrase()} {n}", (f"{phrase()} of {n}",), "t", "en", "en", "s", f"g{n}", "train", (f"no {phrase()}",)
            )
            for n in range(30)
        ]
    )
    rows = np.arange(len(table))
    contents = BatchContents(given_negatives=1, random_negatives=1, anchors=case.anchors, seed=0)
    plan = SamplingPlan(strata(table, rows), case.batch_size, STEPS, Mixture(), 0)
    return PlannedBatches(table, plan, lambda texts, kind: encoder.tokenize(texts, kind), contents, rows)


class StopAfter(pl.Callback):
    """Ends a training early."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        trainer.should_stop = trainer.global_step == self.step


class Losses(pl.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *rest: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def module_of(checkpoint: Path, case: Case) -> RetrievalModule:
    """The module to train, the same in every process."""
    encoder = BiEncoder.load(checkpoint, "mean", {"query": "query: ", "passage": "passage: "}, 128, dropout=0.0)
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=4, target_modules=["query", "key", "value", "dense"])
    apply_adapter(encoder, lora if case.adapter == "lora" else None)
    return RetrievalModule(
        encoder.train(),
        objective_of(case),
        # Adam would make of the noise around a gradient of zero, such as a key's bias has, a step as long as any other.
        lambda parameters: torch.optim.SGD(parameters, 0.2, momentum=0.9),
        anchor_weight=2.0,
        total_steps=STEPS,
        warmup_fraction=0.2,
        chunk_tokens=case.chunk_tokens,
        kept_tokens=case.kept_tokens,
        kept_tokens=None,
        precision="float32",
        seed=0,
    )


def train(checkpoint: Path, folder: Path, case: Case) -> None:
    """Carry out a training and write what came out."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    config = {
        "trainer": {
            "accelerator": "cpu", "devices": processes, "num_nodes": 1, "progress_bar": False, "keep_checkpoints": 2,
            "strategy": case.strategy if processes > 1 else "auto", "process_group_backend": None,
            "precision": "float32",
        },
        "optimizer": {"clip_norm": 1.0},
    }  # fmt: skip
    losses: list[float] = []
    checkpoints = folder / f"{case.name}_checkpoints"
    for part in range(2 if case.resumed else 1):
        module = module_of(checkpoint, case)
        batches: Any = planned(module.encoder, case)
        seen = Losses()
        stop = [StopAfter(3)] if case.resumed and part == 0 else []
        trainer = lightning_trainer(config, [checkpoint_every(checkpoints, 2), seen, *stop], folder)
        resume = checkpoints / "step=2.ckpt" if part == 1 else None
        fit(trainer, module, RetrievalDataModule(FewTexts(batches) if case.few_texts else batches), resume)
        losses += seen.seen[: 2 if stop else None]
    assert world_size() == processes
    weights = trained_weights(module)
    if trainer.is_global_zero:
        torch.save({"weights": weights, "losses": losses}, folder / f"{case.name}.pt")


def main(checkpoint: str, folder: str, cases: Sequence[dict[str, Any]]) -> None:
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for case in cases:
        train(Path(checkpoint), Path(folder), Case(**case))
    leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
