"""How far the runs of an experiment are, from made-up run folders."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retrofit.analysis import sweep_status
from retrofit.analysis.sweep_status import PLAN, ExperimentStatus, experiments, shown
from retrofit.artefacts import alone_in


def add(experiment: Path, name: str, state: str, seconds: float = 60, reason: str = "") -> Path:
    """Write the status of a run that began so many seconds ago, and has ended unless it is running."""
    folder = experiment / name
    folder.mkdir(parents=True)
    now = datetime.datetime.now(datetime.UTC)
    started = (now - datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")
    changed = started if state == "running" else now.isoformat(timespec="seconds")
    status = {"state": state, "reason": reason, "started": started, "changed": changed, "process": 1}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def plan(experiment: Path, *names: str) -> None:
    experiment.mkdir(parents=True, exist_ok=True)
    jobs = [{"run": name, "overrides": ["model=tiny", f"seed={number}"]} for number, name in enumerate(names)]
    (experiment / PLAN).write_text(json.dumps({"commands": ["retrofit train -m"], "jobs": jobs}))


def test_states_of_planned_and_other_runs(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    plan(folder, "a", "b", "c", "d", "e")
    add(folder, "a", "finished")
    add(folder, "b", "failed", reason="RuntimeError: out of\nmemory")
    add(folder, "c", "running")
    held = add(folder, "d", "running")
    add(folder, "z", "finished")
    with alone_in(held):
        status = ExperimentStatus.read(folder)
    assert [(run.path.name, run.state) for run in status.runs] == [
        ("a", "done"), ("b", "failed"), ("c", "killed"), ("d", "running"), ("e", "waiting"), ("z", "done"),
    ]  # fmt: skip
    assert [run.overrides for run in status.runs] == ["seed=0", "seed=1", "seed=2", "seed=3", "seed=4", ""]
    assert [run.path.name for run in status.broken] == ["b", "c"]
    assert [run.reason for run in status.runs if run.reason] == ["RuntimeError: out of\nmemory"]
    assert ExperimentStatus.read(folder).counts == {"done": 2, "failed": 1, "killed": 2, "waiting": 1}
    assert [run.path.name for run in status.of(["z", "a"]).runs] == ["z", "a"]


def test_a_run_that_ends_while_it_is_looked_at_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add(tmp_path / "e", "a", "running")

    def ends(folder: Path) -> bool:
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"state": "finished"}))
        return False

    monkeypatch.setattr(sweep_status, "is_held", ends)
    (found,) = ExperimentStatus.read(run.parent).runs
    assert found.state == "done"


def test_all_starts_of_a_run_count(tmp_path: Path) -> None:
    run = add(tmp_path / "e", "a", "finished", seconds=60)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"earlier": 40}))
    (found,) = ExperimentStatus.read(run.parent).runs
    assert found.seconds == pytest.approx(100, abs=2)


def test_time_left_is_of_the_median_run_by_as_many_as_run(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    plan(folder, *"abcdefgh")
    for name, seconds in zip("abc", (60, 100, 1000), strict=True):
        add(folder, name, "finished", seconds)
    add(folder, "d", "killed?", 5)
    running = [add(folder, "e", "running", 30), add(folder, "f", "running", 500)]
    with alone_in(running[0]), alone_in(running[1]):
        status = ExperimentStatus.read(folder)
    # Of the median 100 s the running ones have 70 and none left; two wait and one was killed.
    assert status.work_left == pytest.approx(70 + 300, abs=5)
    assert status.eta == pytest.approx(370 / 2, abs=5)
    stopped = ExperimentStatus.read(folder)
    assert stopped.work_left == pytest.approx(500)
    assert stopped.eta is None


def test_without_a_finished_run_nobody_knows_the_time(tmp_path: Path) -> None:
    plan(tmp_path / "e", "a")
    status = ExperimentStatus.read(tmp_path / "e")
    assert status.work_left is None
    assert status.eta is None
    assert status.counts == {"waiting": 1}


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_what_cannot_be_read_has_not_begun(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "e"
    plan(folder, "a")
    (folder / "a").mkdir()
    (folder / "a" / "status.json").write_text(content)
    assert [run.state for run in ExperimentStatus.read(folder).runs] == ["waiting"]
    (folder / PLAN).write_text(content)
    assert [run.state for run in ExperimentStatus.read(folder).runs] == ["waiting"]


@pytest.mark.parametrize(
    "jobs",
    [
        None,
        "a",
        [None],
        [{"run": "a"}],
        [{"overrides": []}],
        [{"run": "a", "overrides": None}],
        [{"run": [], "overrides": []}],
    ],
)
def test_a_plan_that_says_less_than_it_should_plans_less(tmp_path: Path, jobs: Any) -> None:
    folder = tmp_path / "e"
    plan(folder, "a")
    (folder / PLAN).write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    assert ExperimentStatus.read(folder).runs == []


def test_experiments_are_those_with_runs_or_a_plan(tmp_path: Path) -> None:
    add(tmp_path / "b", "1", "finished")
    plan(tmp_path / "a", "1")
    (tmp_path / "inspections" / "1").mkdir(parents=True)
    assert [status.folder.name for status in experiments(tmp_path)] == ["a", "b"]
    assert experiments(tmp_path / "nowhere") == []


def text(renderable: Any) -> str:
    screen = Console(width=1000, record=True, file=None, quiet=False)
    with screen.capture() as captured:
        screen.print(renderable)
    return captured.get()


def test_what_failed_is_shown_on_a_line_with_its_log_below(tmp_path: Path) -> None:
    plan(tmp_path / "e", "a", "b")
    failed = add(tmp_path / "e", "a", "failed", reason="UserError: seed=[b]x: expected\n a number")
    add(tmp_path / "e", "b", "finished")
    lines = text(shown(experiments(tmp_path))).splitlines()
    position = next(number for number, line in enumerate(lines) if line.startswith("failed"))
    assert lines[position].rstrip() == "failed  e seed=0: UserError: seed=[b]x: expected a number"
    assert lines[position + 1].strip() == str(failed / "run.log")
    assert any(line.split() == ["e", "1", "–", "1", "–", "–", "–"] for line in lines)


def test_runs_are_told_though_another_multirun_has_planned_since(tmp_path: Path) -> None:
    plan(tmp_path / "e", "mine", "done")
    add(tmp_path / "e", "done", "finished")
    plan(tmp_path / "e", "theirs")
    status = ExperimentStatus.read(tmp_path / "e").of(["mine", "done"])
    assert [(run.path.name, run.state) for run in status.runs] == [("mine", "waiting"), ("done", "done")]
