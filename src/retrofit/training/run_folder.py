"""A run is a folder that explains itself: what was asked, what happened, what came out."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrofit.artefacts import (
    NO_SPACE,
    UNNAMED_KEYS,
    alone_in,
    fingerprint,
    folder_written_aside,
    read_object,
    remove_leftovers,
    storage_error,
    storage_errors,
    system_error_number,
    write_json,
    write_text,
)
from retrofit.errors import UserError

log = logging.getLogger(__name__)

State = Literal["running", "finished", "failed"]

TRAINED_AS = "trained_as.json"
"""Of a run that took over its training: which run that was, and the commit it was of."""

_ONLY_MEASURED = ("folders",)
"""Configuration that no training depends on."""

_MADE_OF = ("base_weights", "base_files", "other_models", "fingerprint", "pairs_by_task_and_language")
"""Of ``data_manifest.json``: what tells the models and the pairs of a run from others."""

MINED_ANEW = "negatives"
"""The folder of the negatives that are mined while a run trains."""

_OF_TRAINING = ("adapter", "mining.json", "training_curve.csv", "interpolation.csv", "model")
"""What training leaves, the model last: it says that training is over."""


class RunInWorkError(UserError):
    """Another process works in the run folder."""


@dataclass(frozen=True)
class RunFolder:
    """``<runs>/<experiment>/<fingerprint>/`` and the files in it.

    Attributes:
        path: the folder.
        training: fingerprint of what its training depends on; empty where that is not asked.
    """

    path: Path
    training: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], runs: Path) -> RunFolder:
        """Return the folder that belongs to a resolved configuration.

        Raises:
            UserError: ``experiment_name`` is not the name of a folder.
        """
        name = config["experiment_name"]
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"experiment_name={name}: expected the name of a folder: letters, digits, '_', '-' and '.'")
        named = {key: value for key, value in config.items() if key not in UNNAMED_KEYS}
        trained = {key: value for key, value in named.items() if key not in _ONLY_MEASURED}
        return cls(runs / name / fingerprint(named), fingerprint(trained))

    def writable(self) -> AbstractContextManager[None]:
        """Tell what keeps the folder from being written as a ``UserError``: a full disk, or a missing permission."""
        return storage_errors(self._place)

    @property
    def _place(self) -> str:
        return f"the run in {self.path} (paths.runs names another folder)"

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
        self._write_status("running", "", self._worked())

    def _worked(self) -> float:
        """Return the seconds of all starts so far; of one that was killed, until its last line in the log."""
        status, log_file = self.status, self.path / "run.log"
        if not status:
            return 0.0
        started, ended = (datetime.datetime.fromisoformat(status[name]) for name in ("started", "changed"))
        if status["state"] == "running" and log_file.exists():
            ended = datetime.datetime.fromtimestamp(log_file.stat().st_mtime, datetime.UTC)
        return float(status.get("earlier", 0.0)) + max(0.0, (ended - started).total_seconds())

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Mark the run as finished when the context ends, or as failed, and why, when it raises.

        Raises:
            UserError: no space is left on a disk.
        """
        try:
            yield
            self._write_status("finished", "")
        except BaseException as error:
            if system_error_number(error) not in NO_SPACE:
                self._fail(error)
                raise
            full = storage_error(error, self._place)
            self._fail(full)
            raise full from error

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning makes the second of the first
            log.error("the run was stopped; the same command goes on where it was")
        elif not isinstance(error, UserError):
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

    def begin_with(self, manifest: Mapping[str, Any]) -> None:
        """Write ``data_manifest.json``: what the run is made of.

        What a start before the first checkpoint mined is removed: it is of steps that are made again.

        Raises:
            UserError: the folder holds a model or checkpoints of other pairs or of other models (the base, a teacher,
                one that mines). A configuration only names them, and what it names may have changed since.
        """
        now = json.loads(json.dumps({name: manifest.get(name) for name in _MADE_OF}))
        begun = self.has_model or any(self.checkpoints.glob("*.ckpt"))
        if begun and self._made_of() != now:
            raise UserError(
                f"{self.path}: was begun by another version, or with other pairs or models than data_source, model, "
                "loss and negatives give now (data_manifest.json says which); delete the folder to begin anew, or put "
                "back what they were"
            )
        if not begun:
            shutil.rmtree(self.path / MINED_ANEW, ignore_errors=True)
        write_json(self.path / "data_manifest.json", dict(manifest))

    def take_training(self) -> None:
        """Take over the training of a finished run beside this one that was asked for the same, ``folders`` apart.

        What is left then is to measure the model. Runs of all experiments in the same ``paths.runs`` are looked at;
        nothing happens where none had the same models and pairs, by ``data_manifest.json``. The files of adapter and
        model are linked where the disk can, not copied. ``trained_as.json`` says which run it was, and of which commit.
        """
        # Of a start before this one, which was killed while it took over: it need not come to that again.
        (self.path / TRAINED_AS).unlink(missing_ok=True)
        for status in sorted(self.path.parents[1].glob("*/*/status.json")):
            other = RunFolder(status.parent)
            alike = other.status.get("training") == self.training and other._made_of() == self._made_of()
            if alike and other.is_finished and other.has_model:
                self._take_over(other)
                return

    def _take_over(self, other: RunFolder) -> None:
        measured = read_object(other.path / "metrics.json").get("machine", {}).get("commit")
        trained_as = {"run": f"{other.path.parent.name}/{other.path.name}", "commit": measured}
        # The run itself may have taken over its training.
        trained_as |= read_object(other.path / TRAINED_AS)
        log.info("trained as %s, which differs in folders at most (commit %s): only measured", *trained_as.values())
        write_json(self.path / TRAINED_AS, trained_as)
        for part in (other.path / name for name in _OF_TRAINING):
            if part.is_dir():
                _copy_folder(part, self.path / part.name)
            elif part.exists():
                shutil.copy(part, self.path / part.name)

    def _made_of(self) -> dict[str, Any]:
        """Return models and pairs, by ``data_manifest.json``."""
        manifest = read_object(self.path / "data_manifest.json")
        return {name: manifest.get(name) for name in _MADE_OF}

    def _write_status(self, state: State, reason: str, earlier: float | None = None) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        started = now if state == "running" else self.status.get("started", now)
        write_json(
            self.path / "status.json",
            {
                "state": state,
                "reason": reason,
                "started": started,
                "changed": now,
                "earlier": self.status.get("earlier", 0.0) if earlier is None else earlier,
                "process": os.getpid(),
                "training": self.training,
            },
        )


def _copy_folder(source: Path, target: Path) -> None:
    with folder_written_aside(target) as partial:
        for file in (path for path in source.rglob("*") if path.is_file()):
            place = partial / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:  # another disk, or one that has no links
                shutil.copy(file, place)
