"""Weights & Biases as a mirror: the local files are the truth, and nothing is lost if the mirror breaks."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd

from retrofit.artefacts import write_text
from retrofit.errors import first_line
from retrofit.evaluation.summary import language_means
from retrofit.sweep_points import point_label
from retrofit.training.run_folder import RunFolder

log = logging.getLogger(__name__)

DATA_FOLDER = "WANDB_DATA_DIR"
"""Names the folder where wandb keeps the files of artefacts until they are uploaded."""


class WandbMirror:
    """Repeats what the run folder says to Weights & Biases, until that fails for the first time.

    Attributes:
        run: the ``wandb`` run, None where there is none (any more).
        folder: the run's folder.
        upload_model: whether the exported weights are uploaded, not only referred to.
    """

    def __init__(self, run: Any | None, folder: RunFolder, upload_model: bool = False) -> None:
        self.run = run
        self.folder = folder
        self.upload_model = upload_model
        self._last_step: int | None = None  # of the rows of the training curve that were sent

    @classmethod
    @contextmanager
    def start(cls, config: Mapping[str, Any], folder: RunFolder) -> Iterator[WandbMirror]:
        """Yield the mirror of a run and close it afterwards, as failed where training or measuring fails.

        Args:
            config: the resolved configuration; ``logger`` says whether, where and what to mirror, ``sweep`` of which
                point of which sweep the run is.
            folder: the run's folder; offline files go below it.
        """
        mirror = cls(None, folder, config["logger"]["upload_model"])
        if config["logger"]["mode"] == "disabled":
            yield mirror
            return
        with _data_in(folder):
            mirror._attempt(lambda: mirror._init(config))
            try:
                yield mirror
            except BaseException:
                mirror._with_run(lambda run: run.finish(exit_code=1))
                raise
            mirror._with_run(lambda run: run.finish(exit_code=0))

    def _init(self, config: Mapping[str, Any]) -> None:
        import wandb

        logger, path = config["logger"], self.folder.path
        online = logger["mode"] == "online"
        if not online:
            # What an interrupted run left. All of it is told again: "wandb sync" writes the curve of a later folder
            # over that of an earlier one, and stops altogether at a file that was cut short.
            shutil.rmtree(path / "wandb", ignore_errors=True)
        self.run = wandb.init(
            project=logger["project"],
            group=logger["group"] or config["experiment_name"],
            mode=logger["mode"],
            id=self._identity(),
            resume="allow" if online else None,
            # Not that of a job before this one in the same sweep, whose mirror broke.
            reinit="create_new",
            dir=str(path),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
            **_names(config, path.name),
        )
        if online and self.run.resumed:
            self._last_step = self.run.starting_step - 1

    def _identity(self) -> str:
        """Return the id of the run: that of its folder, not of a configuration that somebody else may have as well."""
        file = self.folder.path / "wandb_id"
        if not file.exists():
            write_text(file, secrets.token_hex(4))
        path = self.folder.path
        return _allowed(f"{path.parent.name}-{path.name}-{file.read_text(encoding='utf-8')}")

    def log(self, row: Mapping[str, float]) -> None:
        """Repeat a row of the training curve, after those of the file that were not: an interrupted run left them."""

        def send(run: Any) -> None:
            if self._last_step is None:
                self._send_rows(run, [earlier for earlier in self._curve() if earlier["step"] < row["step"]])
            self._send_rows(run, [row])

        self._with_run(send)

    def finish(self, metrics: pd.DataFrame, figures: Mapping[str, Any]) -> None:
        """Repeat what came out, and what it was made from.

        Args:
            metrics: the rows of ``metrics.csv``.
            figures: those of ``metrics.json``.
        """
        self._with_run(lambda run: self._send_rows(run, self._curve()))
        self._with_run(lambda run: self._send_results(run, metrics, figures))
        self._with_run(self._send_artefacts)

    def _send_rows(self, run: Any, rows: list[Mapping[str, float]]) -> None:
        """Repeat those rows that are later than what was sent."""
        for row in rows:
            step = int(row["step"])
            if self._last_step is None or step > self._last_step:
                run.log({f"training/{name}": value for name, value in row.items() if name != "step"}, step=step)
                self._last_step = step

    def _send_results(self, run: Any, metrics: pd.DataFrame, figures: Mapping[str, Any]) -> None:
        import wandb

        manifest = self._json("data_manifest.json")
        tables = {
            "metrics": metrics,
            "languages": pd.concat(
                [language_means(metrics, suite).assign(suite=suite) for suite in metrics["suite"].unique()]
            ),
            "pairs": pd.DataFrame(manifest["pairs_by_task_and_language"]),
        }
        tried = self.folder.path / "interpolation.csv"
        if tried.exists():  # where several weights were asked for
            tables["interpolation"] = pd.read_csv(tried)
        run.summary.update(dict(figures))
        run.config.update({"data": {name: manifest[name] for name in ("fingerprint", "pairs")}}, allow_val_change=True)
        run.log({name: wandb.Table(dataframe=table) for name, table in tables.items()})

    def _send_artefacts(self, run: Any) -> None:
        import wandb

        def used(name: str, kind: str, fingerprint: str) -> None:
            artefact = wandb.Artifact(_allowed(name), kind, metadata={"fingerprint": fingerprint})
            # The content decides the version: runs that used the same artefact meet in one node of the lineage.
            with artefact.new_file("fingerprint.txt", encoding="utf-8") as file:
                file.write(fingerprint)
            # Run.use_artifact refuses offline. What it calls does not, and "wandb sync" carries it out.
            run._log_artifact(artefact, use_after_commit=True)

        manifest = self._json("data_manifest.json")
        used(f"pairs-{manifest['data_source']}", "dataset", manifest["fingerprint"])
        used(f"base-{run.config['model']['name']}", "model", manifest["base_weights"])
        if (self.folder.path / "mining.json").exists():
            used(f"negatives-{manifest['data_source']}", "negatives", self._json("mining.json")["fingerprint"])
        path = self.folder.path
        made = wandb.Artifact(_allowed(f"retrofitted-{path.parent.name}-{path.name}"), "model")
        for file in sorted(file for part in ("adapter", "model") for file in (path / part).rglob("*")):
            name = file.relative_to(path).as_posix()
            if file.is_file() and self.upload_model:
                made.add_file(str(file), name, policy="immutable")  # no second copy until it is uploaded
            elif file.is_file():
                made.add_reference(file.absolute().as_uri(), name)
        run.log_artifact(made)

    def _curve(self) -> list[Mapping[str, float]]:
        path = self.folder.curve
        rows: list[Mapping[str, float]] = pd.read_csv(path).to_dict("records") if path.exists() else []
        return rows

    def _json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder.path / name).read_text(encoding="utf-8"))
        return content

    def _with_run(self, action: Callable[[Any], Any]) -> None:
        if self.run is not None:
            self._attempt(lambda: action(self.run))

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever the mirror's trouble is, the run goes on
            reason = first_line(error)
            log.warning("Weights & Biases is left out from here on: %s (the run folder has everything)", reason)
            self.run = None


def _names(config: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return by what the run is found among others: name, type and tags."""
    sweep = config.get("sweep")
    if sweep is None:
        return {"name": f"{config['experiment_name']}-{fingerprint}"}
    point = point_label(sweep["point"])
    return {"name": f"{point}, seed {config['seed']}", "job_type": point, "tags": [sweep["finding"]]}


def _allowed(name: str) -> str:
    """Return the name of an artefact, or of a run, with what the service refuses replaced."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)


@contextmanager
def _data_in(folder: RunFolder) -> Iterator[None]:
    """Let wandb keep the files of artefacts in the run folder, so that they are there when they are uploaded."""
    before = os.environ.get(DATA_FOLDER)
    os.environ[DATA_FOLDER] = before or str(folder.path.absolute() / "wandb")
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_FOLDER]
