"""The jobs of a sweep beside each other: by joblib, by submitit, by Ray."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.commands.workplace import Workplace, read_json

from retrofit.commands.application import configuration_folder

LAUNCHERS = sorted((configuration_folder() / "launcher").glob("*.yaml"))


def installed(plugin: str) -> bool:
    return importlib.util.find_spec("hydra_plugins") is not None and (
        importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    )


@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [
        ("joblib", "hydra_joblib_launcher"),
        ("submitit_local", "hydra_submitit_launcher"),
        # Its package asks for older versions of what others need: docs/SWEEPS.md.
        ("ray", "hydra_ray_launcher"),
    ],
)
def test_jobs_beside_each_other_and_a_bad_one_among_them(
    tmp_path: Path, small_run: list[str], launcher: str, plugin: str
) -> None:
    if not installed(plugin):
        pytest.skip(f"{plugin} is not installed")
    workplace = Workplace(tmp_path, [*small_run, "batching.steps=8", "export=retrofitted", f"launcher={launcher}"])
    environment = {name: value for name, value in workplace.environment.items() if name != "OMP_NUM_THREADS"}
    done = workplace.train_from_nothing("batching.batch_size=1,4", "seed=0,1", "-m", environment=environment)
    assert done.returncode == 1, done.stderr
    folders = sorted(path.parent for path in tmp_path.glob("runs/train/*/status.json"))
    states = {folder: read_json(folder / "status.json") for folder in folders}
    assert sorted(status["state"] for status in states.values()) == ["failed", "failed", "finished", "finished"]
    finished = [folder for folder, status in states.items() if status["state"] == "finished"]
    assert len({status["process"] for status in states.values()}) >= 2
    for folder in finished:
        # Two jobs at a time must not have all cores each.
        assert 2 * read_json(folder / "metrics.json")["machine"]["threads"] <= max(2, os.cpu_count() or 1)
    assert done.stderr.count("batching.batch_size=1: expected a whole number") >= 2
    for folder in set(folders) - set(finished):
        assert f"{folder.relative_to(tmp_path)}/run.log" in done.stderr


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_a_launcher_that_is_not_installed_is_one_line(tmp_path: Path, small_run: list[str], path: Path) -> None:
    config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["launcher"]
    plugin = config["_target_"].split(".")[1]
    if installed(plugin):
        pytest.skip(f"{plugin} is installed")
    done = Workplace(tmp_path, small_run).train("seed=0,1", f"launcher={path.stem}", "-m")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    package = plugin.replace("_", "-")
    assert line == f"retrofit train: launcher={path.stem}: its package is missing: pip install {package}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_a_launcher_is_given_what_it_knows(path: Path) -> None:
    import inspect

    from hydra.utils import get_class

    config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["launcher"]
    target = config.pop("_target_")
    if not installed(target.split(".")[1]):
        pytest.skip(f"{target} is not installed")
    launcher = get_class(target)
    assert inspect.isclass(launcher)
    if path.stem.startswith("submitit"):  # it hands everything on; what submitit knows stands in its own schema
        from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

        assert config.keys() <= SlurmQueueConf.__dataclass_fields__.keys()
    elif path.stem == "joblib":
        from joblib import Parallel

        assert config.keys() <= inspect.signature(Parallel.__init__).parameters.keys()
    else:
        assert config.keys() == {"ray"}
