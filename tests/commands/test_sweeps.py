"""The sweeps of conf/sweep: every point of every grid composes, keeps the rules, and is told from the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from retrofit.commands.application import configuration_folder
from retrofit.training.configuration import check, check_sweep

SWEEPS = configuration_folder() / "sweep"
NAMES = sorted(
    path.relative_to(SWEEPS).with_suffix("").as_posix()
    for path in SWEEPS.rglob("*.yaml")
    if path.parent.name != "scale"  # what sweeps have in common
)


def grid(name: str) -> dict[str, list[str]]:
    """The values of each axis."""
    stated = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: str(values).split(",") for key, values in stated["hydra"]["sweeper"]["params"].items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_point_composes_keeps_the_rules_and_differs(
    train_config: Callable[..., dict[str, Any]], name: str
) -> None:
    axes = grid(name)
    assert axes.pop("seed") == ["0", "1", "2"]
    points: list[dict[str, str]] = []
    measured_on = []
    for values in itertools.product(*axes.values()):
        overrides = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
        config = train_config(f"sweep={name}", *overrides)
        check(config)
        check_sweep(config)
        sweep = config["sweep"]
        assert sweep["name"] == name
        assert config["experiment_name"] == name.replace("/", "_")
        points.append(sweep["point"])
        evaluation = config["evaluation"]
        asked = {suite["source"] for suite in evaluation["suites"].values() if "source" in suite}
        measured_on.append([evaluation["suites"], {source: evaluation["sources"][source] for source in asked}])
    assert len({tuple(point.items()) for point in points}) == len(points) > 1
    assert sweep["reference"] in points
    assert all(each == measured_on[0] for each in measured_on), "points that are measured on other queries"


def test_each_finding_has_a_sweep_at_both_sizes() -> None:
    findings: dict[str, set[str]] = {"embedded": set(), "paper": set()}
    for name in NAMES:
        stated = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text(encoding="utf-8"))
        findings["paper" if name.startswith("paper/") else "embedded"].add(stated["sweep"]["finding"])
    assert findings == {size: {"F1", "F2", "F3", "F4", "F5"} for size in findings}
