"""A training that has gone astray stops, saves its batch and leaves no checkpoint of it; others are left alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from retrofit.data.batching import PlannedBatches
from retrofit.data.curation.artefact import Curation
from retrofit.data.selection import select
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData
from retrofit.errors import UserError
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.step import StepEmbeddings
from retrofit.models.bi_encoder import BiEncoder
from retrofit.training.callbacks import checkpoint_every
from retrofit.training.checkpoint_files import CheckpointFiles, newest_whole_checkpoint
from retrofit.training.datamodule import RetrievalDataModule
from retrofit.training.divergence import LossLevel, StopOnDivergence
from retrofit.training.module import RetrievalModule
from retrofit.training.retrofit import planned_batches

STEPS = 8
LOSSES = st.lists(st.floats(1e-6, 1e3), max_size=80)


def stops_at(level: LossLevel, losses: list[float]) -> int | None:
    return next((index for index, loss in enumerate(losses) if level.has_left(loss)), None)


@given(LOSSES, st.floats(1.1, 20), st.integers(1, 9), st.integers(1, 5))
def test_it_is_the_rule_applied_to_the_whole_history(
    losses: list[float], factor: float, window: int, patience: int
) -> None:
    high = [
        index >= window
        and loss > factor * statistics.median(losses[index - window : index])
        and loss > statistics.median(losses[:window])
        for index, loss in enumerate(losses)
    ]
    ends = [
        index for index in range(len(losses)) if index + 1 >= patience and all(high[index + 1 - patience : index + 1])
    ]
    expected = ends[0] if ends else None
    assert stops_at(LossLevel(factor, window, patience), losses) == expected


@given(LOSSES, st.integers(0, 80))
def test_a_resumed_run_judges_as_one_that_went_on(losses: list[float], done: int) -> None:
    whole = StopOnDivergence(Path(), None, LossLevel(2.0, 3, 2))  # type: ignore[arg-type]
    first = stops_at(whole.level, losses[:done])
    if first is not None:
        return
    resumed = StopOnDivergence(Path(), None, LossLevel(2.0, 3, 2))  # type: ignore[arg-type]
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert stops_at(resumed.level, losses[done:]) == stops_at(whole.level, losses[done:])


def test_a_steady_loss_of_any_spread_is_left_alone_by_default(train_config: Callable[..., dict[str, Any]]) -> None:
    settings = train_config()["trainer"]["divergence"]
    generator = np.random.default_rng(0)
    for spread in (0.1, 1.0, 3.0, 6.0):
        level = np.exp(generator.normal(-2, spread, 20_000)) * np.linspace(3, 0.01, 20_000)
        assert stops_at(LossLevel(**settings), level.tolist()) is None
    collapsed = [0.1] * 300 + [4.1] * 300  # the logarithm of 64 passages: all texts in one place
    assert stops_at(LossLevel(**settings), collapsed) == 300 + settings["patience"] - 1
    assert stops_at(LossLevel(**{**settings, "factor": None}), collapsed) is None
    harder_negatives = [1.5] * 100 + [0.01] * 300 + [0.5] * 300
    assert stops_at(LossLevel(**settings), harder_negatives) is None


class Spoilt(nn.Module):
    """InfoNCE, of whose loss or gradient something is made at some steps."""

    def __init__(self, spoil: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.plain = InfoNCE(0.05)
        self.spoil = spoil
        self.trainer: Any = None

    def forward(self, step: StepEmbeddings) -> Tensor:
        return self.spoil(self.trainer.global_step + 1, self.plain(step))


@pytest.fixture
def batches(train_config: Callable[..., dict[str, Any]], corpus: Path, encoder: BiEncoder) -> PlannedBatches:
    config = train_config("model=tiny", "batching.batch_size=4", f"batching.steps={STEPS}", "negatives=random")
    source = PairSource.open(corpus)
    rows = select(source.pairs, "train")
    return planned_batches(config, TrainingData(source, Curation(rows, source.pairs.slice(0, 0), {}), rows), encoder)


def fit(
    encoder: BiEncoder, batches: PlannedBatches, folder: Path, spoil: Callable[[int, Tensor], Tensor], level: LossLevel
) -> None:
    """Train from the newest checkpoint in a folder, one checkpoint a step."""
    loss = Spoilt(spoil)
    module = RetrievalModule(
        encoder.train(), loss, lambda p: torch.optim.AdamW(p, lr=1e-4), 0.0, STEPS, 0.2, 256, 0
    )  # fmt: skip
    loss.trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, default_root_dir=folder,
        plugins=[CheckpointFiles(keep=2)],
        callbacks=[StopOnDivergence(folder, batches, level), checkpoint_every(folder / "checkpoints", 1)],
    )  # fmt: skip
    last = newest_whole_checkpoint(folder / "checkpoints")
    loss.trainer.fit(module, datamodule=RetrievalDataModule(batches), ckpt_path=last, weights_only=True)


def loss_nan(step: int, loss: Tensor) -> Tensor:
    return loss * float("nan") if step >= 5 else loss


def loss_infinite(step: int, loss: Tensor) -> Tensor:
    return loss + float("inf") if step >= 5 else loss


def gradient_nan(step: int, loss: Tensor) -> Tensor:
    return loss + (loss * 0).sqrt() if step >= 5 else loss


def loss_high(step: int, loss: Tensor) -> Tensor:
    return loss * 50 if step >= 4 else loss


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (loss_nan, "the loss is nan"),
        (loss_infinite, "the loss is inf"),
        (gradient_nan, "and the norm of its gradient nan"),
        (loss_high, "for 2 steps above 10 times its median, which is now "),
    ],
)
def test_it_stops_saves_the_batch_and_does_so_again(
    load_tiny: Callable[..., BiEncoder], batches: PlannedBatches, tmp_path: Path, spoil: Any, reason: str
) -> None:
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            fit(load_tiny(), batches, tmp_path, spoil, LossLevel(10.0, 3, 2))
        message = str(caught.value)
        assert message.startswith("step 5: ")
        assert reason in message
        assert "\n" not in message
        for named in (str(tmp_path / "failed_batch.json"), "optimizer.optimizer.lr", "trainer.precision"):
            assert named in message
        failed = json.loads((tmp_path / "failed_batch.json").read_text(encoding="utf-8"))
        texts = batches.texts(4)
        assert (failed["queries"], failed["passages"]) == (texts.queries, texts.passages)
        assert failed["relevance"] == texts.relevance.tolist()
        assert failed["step"] == 5
        assert failed["reason"] in message
        assert np.isfinite(float(failed["loss"])) == ("loss is nan" not in reason and "loss is inf" not in reason)
        newest = newest_whole_checkpoint(tmp_path / "checkpoints")
        assert newest == tmp_path / "checkpoints" / "step=4.ckpt"
        stored = torch.load(newest, weights_only=True)["state_dict"]
        assert all(bool(tensor.isfinite().all()) for tensor in stored.values())


def test_a_run_that_is_well_leaves_no_batch(
    load_tiny: Callable[..., BiEncoder], batches: PlannedBatches, tmp_path: Path
) -> None:
    (tmp_path / "failed_batch.json").touch()  # of an attempt before
    fit(load_tiny(), batches, tmp_path, lambda step, loss: loss, LossLevel(10.0, 3, 2))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}
