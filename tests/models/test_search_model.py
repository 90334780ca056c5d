"""Which folders are models of runs, and which GPU a process uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from retrofit.models.search_model import SearchModel, local_gpu

SETTINGS: dict[str, Any] = {"pooling": "mean", "prompts": {"query": "q ", "passage": "p "}, "max_length": 32}


def folder_beside(tmp_path: Path, name: str, config: str) -> Path:
    (tmp_path / name).mkdir()
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    return tmp_path / name


def test_the_model_of_a_run_is_used_as_the_run_says(tmp_path: Path) -> None:
    folder = folder_beside(tmp_path, "model", yaml.safe_dump({"model": {**SETTINGS, "name": "tiny"}, "seed": 0}))
    assert SearchModel.of_folder(folder) == SearchModel(folder, **SETTINGS)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("other", yaml.safe_dump({"model": SETTINGS})),
        ("model", "{}"),
        ("model", "- a list"),
        ("model", ""),
        ("model", "model: gpt"),
        ("model", "model: {pooling: mean, max_length: 32}"),
        ("model", "model: [not: yaml"),
    ],
)
def test_a_configuration_of_another_program_says_nothing(tmp_path: Path, name: str, config: str) -> None:
    folder = folder_beside(tmp_path, name, config)
    assert SearchModel.of_folder(folder) == SearchModel(folder, None, None, None)


@pytest.mark.parametrize(("rank", "gpus", "expected"), [(None, 2, 0), ("1", 2, 1), ("3", 1, 0)])
def test_every_process_of_a_machine_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, gpus: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert local_gpu() == f"cuda:{expected}"


def test_without_a_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_gpu() is None
