"""A run is a folder that explains itself: what was asked, what happened, what came out."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrofit.artefacts import (
    NO_SPACE,
    UNNAMED_KEYS,
    alone_in,
    fingerprint,
    read_object,
    remove_leftovers,
    storage_error,
    system_error_number,
    write_json,
    write_text,
)
from retrofit.errors import UserError

log = logging.getLogger(__name__)

State = Literal["running", "finished", "failed"]


class RunInWorkError(UserError):
    """Another process works in the run folder."""


@dataclass(frozen=True)
class RunFolder:
    """``<runs>/<experiment>/<fingerprint>/`` and the files in it.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def of(cls, config: Mapping[str, Any], runs: Path) -> RunFolder:
        """Return the folder that belongs to a resolved configuration."""
        named = {key: value for key, value in config.items() if key not in UNNAMED_KEYS}
        return cls(runs / str(config["experiment_name"]) / fingerprint(named))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process out of the folder while the context lasts; the folder is created.

        Raises:
            RunInWorkError: another process is in this context.
        """
        with alone_in(self.path) as alone:
            if not alone:
                process = self.status.get("process", "another")
                raise RunInWorkError(f"{self.path}: process {process} is at work in it; wait for it, or end it")
            yield

    def start(self, config_yaml: str) -> None:
        """Create the folder, write ``config.yaml`` and mark the run as running; what a killed run half wrote goes."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)
        write_text(self.path / "config.yaml", config_yaml)
        self._write_status("running", "")

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Mark the run as finished when the context ends, or as failed, and why, when it raises.

        Raises:
            UserError: no space is left on a disk.
        """
        try:
            yield
        except BaseException as error:
            if system_error_number(error) not in NO_SPACE:
                self._fail(error)
                raise
            full = storage_error(error, f"the run in {self.path} (paths.runs names another folder)")
            self._fail(full)
            raise full from error
        self._write_status("finished", "")

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, UserError):
            log.error("the run failed", exc_info=error)
        try:
            self._write_status("failed", f"{type(error).__name__}: {error}".strip(": "))
        except OSError as unwritten:  # the disk is full: the first error is the one to be told
            log.warning("status.json could not be written: %s", unwritten)

    @property
    def status(self) -> dict[str, Any]:
        """What ``status.json`` says; empty for a run that never started or whose file cannot be read."""
        return read_object(self.path / "status.json")

    @property
    def is_finished(self) -> bool:
        """Whether the run reached its end."""
        return self.status.get("state") == "finished"

    @property
    def checkpoints(self) -> Path:
        """Folder of the training checkpoints."""
        return self.path / "checkpoints"

    @property
    def curve(self) -> Path:
        """The table of the loss and more by step."""
        return self.path / "training_curve.csv"

    @property
    def model(self) -> Path:
        """Folder of the exported model, in sentence-transformers format."""
        return self.path / "model"

    @property
    def has_model(self) -> bool:
        """Whether the exported model is there, whole: what is left is to measure it."""
        return (self.model / "modules.json").exists()

    def _write_status(self, state: State, reason: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        started = now if state == "running" else self.status.get("started", now)
        write_json(
            self.path / "status.json",
            {"state": state, "reason": reason, "started": started, "changed": now, "process": os.getpid()},
        )
