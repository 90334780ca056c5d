"""Every objective trains, and a resumed training ends where an uninterrupted one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer

from retrofit.commands.application import configuration_folder
from retrofit.data.curation.artefact import Curation
from retrofit.data.selection import select
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData
from retrofit.instantiation import instantiate
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.training.callbacks import CURVE_COLUMNS, TrainingCurve, checkpoint_every
from retrofit.training.configuration import check
from retrofit.training.datamodule import RetrievalDataModule
from retrofit.training.module import RetrievalModule
from retrofit.training.retrofit import objective_of, planned_batches
from retrofit.training.teacher import Teacher

STEPS = 6
OPTIONS = sorted(path.stem for path in (configuration_folder() / "loss").glob("*.yaml"))
ON_TINY = {
    "matryoshka": ["loss.dimensions=[32,8]"],
    "guided": ["model@loss.teacher=tiny"],
    "distilled": ["model@loss.teacher=tiny"],
    "margin_mse": ["model@loss.teacher=tiny"],
    "queue": ["loss.queue_size=30"],
}
FIGURES = {
    "learnt_temperature": {"temperature"},
    "guided": {"masked_by_guide"},
    "queue": {"queued_passages"},
}
ALL = [
    "loss=guided", "model@loss.teacher=tiny", "loss.distillation.kind=kl", "loss.dimensions=[32,16]",
    "loss.queue_size=30", "loss.learn_temperature=true", "loss.hardness=0.5", "loss.symmetric_weight=0.5",
]  # fmt: skip


def newest(checkpoints: Path) -> Path:
    """The checkpoint of the most steps, all of them below ten."""
    return max(checkpoints.glob("step=*.ckpt"))


@dataclass(frozen=True)
class Training:
    """Trainings of the tiny model on the tiny corpus.

    Attributes:
        compose: composes conf/train.yaml.
        load: loads the tiny model.
        corpus: the data source.
        cache: of checkpoints and embeddings.
    """

    compose: Callable[..., dict[str, Any]]
    load: Callable[..., BiEncoder]
    corpus: Path
    cache: Path

    def fit(self, folder: Path, *overrides: str, stop: int | None = None, resume: bool = False) -> RetrievalModule:
        """Train for ``STEPS`` steps, from the newest checkpoint of the folder if asked, or until a step."""
        config = self.compose(
            "model=tiny", "negatives=random", "batching.batch_size=4", f"batching.steps={STEPS}",
            f"paths.cache={self.cache}", *overrides,
        )  # fmt: skip
        check(config)
        source = PairSource.open(self.corpus)
        rows = select(source.pairs, "train", ["field_help", "definition"])
        data = TrainingData(source, Curation(rows, source.pairs.slice(0, 0), {}), rows)
        encoder = self.load(dropout=0.1)
        torch.manual_seed(0)
        apply_adapter(encoder, instantiate(config["adapter"]["config"]))
        teacher = Teacher.of(config, data)
        module = RetrievalModule(
            encoder.train(),
            objective_of(config["loss"], encoder, teacher),
            lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
            anchor_weight=0.0,
            total_steps=STEPS,
            warmup_fraction=0.1,
            chunk_tokens=512,
            kept_tokens=None,
            precision="float32",
            seed=0,
            teacher=teacher,
        )

        class StopAfter(pl.Callback):
            def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
                if trainer.global_step == stop:
                    raise KeyError("killed")

        folder.mkdir(exist_ok=True)
        timer = Timer()
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder,
            callbacks=[
                timer,
                checkpoint_every(folder / "checkpoints", 2),
                TrainingCurve(folder / "training_curve.csv", 1, timer, lambda row: None),
                StopAfter(),
            ],
        )  # fmt: skip
        checkpoint = newest(folder / "checkpoints") if resume else None
        batches = RetrievalDataModule(planned_batches(config, data, encoder))
        trainer.fit(module, datamodule=batches, ckpt_path=checkpoint, weights_only=True)
        return module


@pytest.fixture
def training(
    train_config: Callable[..., dict[str, Any]], load_tiny: Callable[..., BiEncoder], corpus: Path, cache: Path
) -> Training:
    return Training(train_config, load_tiny, corpus, cache)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_objective_trains_and_logs_what_it_keeps(training: Training, tmp_path: Path, option: str) -> None:
    module = training.fit(tmp_path, f"loss={option}", *ON_TINY.get(option, []))
    curve = pd.read_csv(tmp_path / "training_curve.csv")
    assert curve["step"].tolist() == list(range(1, STEPS + 1))
    assert set(curve.columns) == set(CURVE_COLUMNS) | FIGURES.get(option, set())
    assert np.isfinite(curve.to_numpy()).all()
    moved = [p for name, p in module.encoder.named_parameters() if "lora_B" in name]
    assert all(parameter.abs().max() > 0 for parameter in moved)


def test_the_queue_grows_step_by_step(training: Training, tmp_path: Path) -> None:
    module = training.fit(tmp_path, "loss=queue", "loss.queue_size=20")
    curve = pd.read_csv(tmp_path / "training_curve.csv")
    assert curve["queued_passages"][0] == 0
    assert 0 < curve["queued_passages"][1] <= 8
    assert curve["queued_passages"].max() > 10
    assert curve["queued_passages"].max() <= module.loss.filled == 20
    in_step = training.fit(tmp_path / "without", "loss=info_nce")
    plain = pd.read_csv(tmp_path / "without" / "training_curve.csv")
    assert in_step.loss.state_dict() == {}
    more = curve["negatives_per_query"] - plain["negatives_per_query"]
    assert more[0] == 0
    assert (more[1:] > 0).all()
    assert (more <= curve["queued_passages"]).all()


@pytest.mark.parametrize("overrides", [["loss=queue", "loss.queue_size=20"], ALL], ids=["queue", "all together"])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    training: Training, tmp_path: Path, overrides: list[str], stop: int
) -> None:
    whole = training.fit(tmp_path / "whole", *overrides)
    with pytest.raises(KeyError, match="killed"):
        training.fit(tmp_path / "parts", *overrides, stop=stop)
    resumed = training.fit(tmp_path / "parts", *overrides, resume=True)
    expected = whole.state_dict()
    assert {"loss.passages", "loss.passage_ids", "loss.filled"} <= expected.keys()
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    curves = [pd.read_csv(tmp_path / name / "training_curve.csv") for name in ("whole", "parts")]
    measured = ["pairs_per_second", "peak_memory_gb", "seconds"]
    assert curves[0].drop(columns=measured).equals(curves[1].drop(columns=measured))


def test_a_checkpoint_holds_the_temperature_and_the_queue(training: Training, tmp_path: Path) -> None:
    module = training.fit(tmp_path, *ALL)
    stored = torch.load(newest(tmp_path / "checkpoints"), weights_only=True)["state_dict"]
    of_loss = {name for name in stored if name.startswith("loss.")}
    assert of_loss >= {"loss.passages", "loss.passage_ids", "loss.teacher_passages", "loss.filled"}
    (temperature,) = (name for name in of_loss if name.endswith("log_inverse"))
    assert stored[temperature].item() != pytest.approx(-np.log(0.02), abs=1e-3), "it was not learnt"
    assert len(of_loss) == 5
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert stored.keys() == trained | of_loss


def test_a_temperature_out_of_its_range_is_moved_back_before_the_step(training: Training, tmp_path: Path) -> None:
    module = training.fit(tmp_path, "loss=learnt_temperature")
    (log_inverse,) = module.loss.parameters()
    with torch.no_grad():
        log_inverse.fill_(9.0)
    module.on_train_batch_start(None, 0)  # type: ignore[arg-type]
    assert log_inverse.item() == pytest.approx(np.log(100), abs=1e-6)


def test_weight_decay_leaves_the_temperature_alone(training: Training, tmp_path: Path) -> None:
    module = training.fit(tmp_path, "loss=learnt_temperature")
    (temperature,) = module.loss.parameters()
    optimizer = module.configure_optimizers()["optimizer"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert optimizer.param_groups[1]["params"] == [temperature]
    assert not any(parameter is temperature for parameter in optimizer.param_groups[0]["params"])
    assert training.fit(tmp_path / "fixed", "loss=info_nce").configure_optimizers()["optimizer"].param_groups[1:] == []
