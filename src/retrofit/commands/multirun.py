"""What surrounds the jobs of ``retrofit train -m``: the plan before the first, the account after the last."""

from __future__ import annotations

import atexit
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from retrofit.commands.application import as_dictionary, exits_on_user_error, without_places
from retrofit.credentials import has_credentials
from retrofit.errors import UserError


class Multirun(Callback):
    """Hydra's callback; every launcher calls it in the process that was asked for the multirun.

    Attributes:
        planned: names of the run folders by experiment folder; empty until a multirun starts.
    """

    def __init__(self) -> None:
        self.planned: dict[Path, list[str]] = {}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Write ``sweep.json`` into the folder of each experiment that jobs belong to."""
        try:
            with exits_on_user_error("train"):
                _check_launcher(config)
                self._plan(config)
        except HydraException:  # a job that does not compose: Hydra itself says so next, and starts none
            return
        # At the exit: where a launcher breaks down, or the user has had enough, it is wanted most.
        atexit.register(self._account)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002 -- as Hydra calls it
        """End with status 1 if something is left to do that no other process does."""
        if any(status.counts[state] for status in self._statuses() for state in ("failed", "killed", "waiting")):
            sys.exit(1)

    def _plan(self, config: DictConfig) -> None:
        from retrofit.analysis.sweep_status import PLAN
        from retrofit.artefacts import read_object, storage_errors, write_json

        jobs: dict[Path, list[dict[str, Any]]] = {}
        for overrides in job_overrides(config):
            folder = _run_folder(config, overrides)
            jobs.setdefault(folder.parent, []).append({"run": folder.name, "overrides": list(overrides)})
        # Where jobs run may be told by a password, and is no part of what they compute.
        asked = [argument for argument in sys.argv[1:] if not argument.lstrip("+~").startswith("hydra.launcher.")]
        command = shlex.join(["retrofit", "train", *asked])
        for experiment, planned in jobs.items():
            with storage_errors(f"the plan of {experiment} (paths.runs names another folder)"):
                experiment.mkdir(parents=True, exist_ok=True)
                # Another command may plan the same experiment in this very moment.
                with filelock.FileLock(experiment / f".{PLAN}.lock"):
                    before = [each for each in read_object(experiment / PLAN).get("commands", []) if each != command]
                    write_json(experiment / PLAN, {"commands": [*before, command], "jobs": planned})
            # Jobs that differ in what no run depends on (logger, engine) are one run.
            self.planned[experiment] = list(dict.fromkeys(job["run"] for job in planned))

    def _statuses(self) -> list[Any]:
        from retrofit.analysis.sweep_status import ExperimentStatus

        return [ExperimentStatus.read(folder).of(names) for folder, names in self.planned.items()]

    def _account(self) -> None:
        from retrofit.analysis.sweep_status import WIDTH, shown
        from retrofit.analysis.terminal import console

        statuses = self._statuses()
        screen = console(stderr=True, width=WIDTH)
        screen.print(shown(statuses))
        if any(status.broken for status in statuses):
            screen.print("the same command takes these up again, and leaves alone what is done")


def _check_launcher(config: DictConfig) -> None:
    module = config.hydra.launcher["_target_"].rpartition(".")[0]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[1].replace("_", "-")
        choice = config.hydra.runtime.choices.get("launcher")
        raise UserError(f"launcher={choice}: its package is missing: pip install {package}") from error


def job_overrides(config: DictConfig) -> list[Sequence[str]]:
    """Return the overrides of each job of a multirun; none for a sweeper that finds out as it goes.

    Args:
        config: of the multirun, with the node ``hydra``.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sweeper = config.hydra.sweeper
    if not sweeper["_target_"].endswith(f".{BasicSweeper.__name__}"):
        return []
    grid = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    asked = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(asked, list)  # noqa: S101 -- for the type checker
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides([*grid, *map(str, asked)]), None)
    return list(jobs)


def _run_folder(config: DictConfig, overrides: Sequence[str]) -> Path:
    from retrofit.training.run_folder import RunFolder

    job = GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)  # for ${hydra:…}
    try:
        with flag_override(job, ["struct", "readonly"], [False, False]):
            del job["hydra"]
        return RunFolder.of(as_dictionary(without_places(job)), Path(str(job.paths.runs))).path
    except UserError as error:
        shown = " ".join(override for override in overrides if not has_credentials(override))
        raise UserError(f"{shown}: {error}") from error
    finally:
        HydraConfig.instance().cfg = before
