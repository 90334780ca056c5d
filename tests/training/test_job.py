"""What a run is made from, and where its models are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from retrofit.artefacts import ArtefactStore
from retrofit.data.training_data import TrainingData
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import files_fingerprint, tiny_checkpoint, weights_fingerprint
from retrofit.models.precision import EncodingSettings
from retrofit.training import job as of_run
from retrofit.training.job import Job
from retrofit.training.run_folder import RunFolder


def job(folder: Path, config: dict[str, Any], checkpoint: Path) -> Job:
    return Job(
        config, RunFolder(folder), ArtefactStore(folder), checkpoint, weights_fingerprint(checkpoint),
        files_fingerprint(checkpoint), {}, cast("TrainingData", None), EncodingSettings(),
    )  # fmt: skip


@pytest.mark.parametrize(("accelerator", "device"), [("cpu", "cpu"), ("gpu", "meta")])
def test_models_are_measured_where_they_are_trained(
    accelerator: str,
    device: str,
    tmp_path: Path,
    tiny: Path,
    encoder: BiEncoder,
    train_config: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device that holds nothing stands for a GPU."""
    measured: list[str] = []

    def evaluated(model: BiEncoder, *_: object) -> None:
        measured.append(str(next(model.parameters()).device))

    monkeypatch.setattr(of_run, "local_gpu", lambda: "meta")
    monkeypatch.setattr(of_run, "evaluate_suites", evaluated)
    job(tmp_path, train_config(f"trainer.accelerator={accelerator}"), tiny).measure(encoder, "x", "base")
    assert measured == [device]


def test_another_tokenizer_is_another_base(tmp_path: Path, train_config: Callable[..., dict[str, Any]]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "cache")
    before = job(tmp_path, train_config(), checkpoint)
    tokenizer = checkpoint / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    after = job(tmp_path, train_config(), checkpoint)
    assert before.base == after.base
    assert before.base_model != after.base_model
