"""Weights & Biases as a mirror: the local files are the truth, and nothing is lost if the mirror breaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd

from retrofit.training.run_folder import RunFolder

log = logging.getLogger(__name__)


class WandbMirror:
    """Repeats what the run folder says to Weights & Biases, until that fails for the first time.

    Attributes:
        run: the ``wandb`` run, None where there is none (any more).
    """

    def __init__(self, run: Any | None) -> None:
        self.run = run

    @classmethod
    @contextmanager
    def start(cls, config: Mapping[str, Any], folder: RunFolder) -> Iterator[WandbMirror]:
        """Yield the mirror of a run and close it afterwards.

        Args:
            config: the resolved configuration; ``logger`` says whether and where to mirror.
            folder: the run's folder; offline files go below it.
        """
        mirror = cls(None)
        if config["logger"]["mode"] != "disabled":
            mirror._attempt(lambda: mirror._init(config, folder))
        try:
            yield mirror
        finally:
            mirror._attempt(mirror._close)

    def _init(self, config: Mapping[str, Any], folder: RunFolder) -> None:
        import wandb

        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        self.run = wandb.init(
            project=config["logger"]["project"],
            group=config["logger"]["group"] or config["experiment_name"],
            mode=config["logger"]["mode"],
            id=folder.path.name,
            name=f"{config['experiment_name']}-{folder.path.name}",
            resume="allow" if config["logger"]["mode"] == "online" else None,
            dir=str(folder.path),
            config=dict(config),
            settings=settings,
        )

    def log(self, row: Mapping[str, float]) -> None:
        """Repeat a row of the training curve."""
        values = {f"training/{name}": value for name, value in row.items() if name != "step"}
        self._attempt(lambda: self.run.log(values, step=int(row["step"])) if self.run else None)

    def finish(self, metrics: pd.DataFrame, figures: Mapping[str, Any]) -> None:
        """Repeat the headline figures and the metrics table."""

        def send() -> None:
            if self.run is None:
                return
            import wandb

            self.run.summary.update(dict(figures))
            self.run.log({"metrics": wandb.Table(dataframe=metrics)})

        self._attempt(send)

    def _close(self) -> None:
        if self.run is not None:
            self.run.finish()

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever the mirror's trouble is, the run goes on
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("Weights & Biases is left out from here on: %s (the run folder has everything)", reason)
            self.run = None
