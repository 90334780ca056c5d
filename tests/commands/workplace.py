"""A folder where ``retrofit train`` is run from outside, and what such a run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tests.commands.forked import retrofit

KEY = "fedcba9876543210fedcba9876543210fedcba98"

Snapshot = dict[str, int]


@dataclass(frozen=True)
class Workplace:
    """A folder where runs are started, with a cache of its own.

    Attributes:
        path: the folder.
        overrides: of every run.
    """

    path: Path
    overrides: list[str]

    def command(self, *overrides: str) -> list[str]:
        return [sys.executable, "-m", "retrofit", "train", *self.overrides, *overrides]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ, "RETROFIT_CACHE": str(self.path / "cache"), "HF_HUB_OFFLINE": "1", "WANDB_API_KEY": KEY,
            "PYTHONIOENCODING": "utf-8",
        }  # fmt: skip

    def train(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        return retrofit(self.path, "train", *self.overrides, *overrides, WANDB_API_KEY=KEY)

    def train_from_nothing(
        self, *overrides: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Start a process that imports everything itself: for what starts processes in turn."""
        return subprocess.run(
            self.command(*overrides), capture_output=True, encoding="utf-8", cwd=self.path, timeout=600, check=False,
            env=environment or self.environment,
        )  # fmt: skip

    def run(self, experiment: str = "train") -> Path:
        (folder,) = (self.path / "runs" / experiment).iterdir()
        return folder

    def evaluations(self) -> Snapshot:
        return snapshot(self.path / "cache" / "evaluations")


def snapshot(folder: Path) -> Snapshot:
    """Modification times of all files, in nanoseconds."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
