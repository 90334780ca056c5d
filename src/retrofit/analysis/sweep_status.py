"""How far the runs of an experiment are: read off their folders and the plan of the multirun that makes them."""

from __future__ import annotations

import datetime
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from retrofit.analysis.run_results import flattened
from retrofit.artefacts import is_held, read_object

PLAN = "sweep.json"
"""What a multirun writes into the folder of an experiment: ``commands``, its own after those of earlier ones, and
``jobs`` (``run``, ``overrides``)."""

STATES = ("done", "running", "failed", "killed", "waiting")
State = Literal["done", "running", "failed", "killed", "waiting"]

REASON_LENGTH = 300

WIDTH = 1000
"""Columns where it is no terminal: paths and reasons are there to be copied, and no line is broken."""


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        path: its folder, which a waiting run does not have yet.
        state: killed is one that has begun, and nobody is at work on it.
        reason: why it failed; empty for any other.
        seconds: that its starts took, and the last one takes so far; 0 for a waiting run.
        overrides: by which its job of the last multirun differs from others; empty where it has none.
    """

    path: Path
    state: State
    reason: str
    seconds: float
    overrides: str

    @property
    def log(self) -> Path:
        """Where it logs to."""
        return self.path / "run.log"


@dataclass(frozen=True)
class ExperimentStatus:
    """How far the runs of an experiment are.

    Attributes:
        folder: of the experiment.
        runs: those of the last multirun in its order, then any other.
    """

    folder: Path
    runs: Sequence[RunState]

    @classmethod
    def read(cls, folder: Path) -> ExperimentStatus:
        """Return the status of an experiment; without a run where the folder has none.

        Args:
            folder: ``<runs>/<experiment>``, which may not exist.
        """
        jobs = _jobs(read_object(folder / PLAN).get("jobs"))
        shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
        planned = {job["run"]: " ".join(each for each in job["overrides"] if each not in shared) for job in jobs}
        begun = sorted(path.parent.name for path in folder.glob("*/status.json"))
        others = [name for name in begun if name not in planned]
        return cls(folder, [_run_state(folder / name, planned.get(name, "")) for name in (*planned, *others)])

    def of(self, names: Iterable[str]) -> ExperimentStatus:
        """Return the status of some runs, by the names of their folders.

        One that is not in the plan (another multirun has written its own since) is looked up.
        """
        known = {run.path.name: run for run in self.runs}
        return ExperimentStatus(self.folder, [known.get(name) or _run_state(self.folder / name, "") for name in names])

    @property
    def counts(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(run.state for run in self.runs)

    @property
    def broken(self) -> list[RunState]:
        """The runs that the same command would take up again."""
        return [run for run in self.runs if run.state in ("failed", "killed")]

    @property
    def work_left(self) -> float | None:
        """Seconds of work of what runs, waits and was killed, as finished runs took; None before one is finished."""
        took = [run.seconds for run in self.runs if run.state == "done"]
        if not took:
            return None
        typical = statistics.median(took)
        begun = sum(max(0.0, typical - run.seconds) for run in self.runs if run.state == "running")
        return begun + typical * (self.counts["waiting"] + self.counts["killed"])

    @property
    def eta(self) -> float | None:
        """Seconds until nothing is left, with as many runs at a time as now; None where nothing runs or is finished."""
        left, running = self.work_left, self.counts["running"]
        return None if left is None or not running else left / running


def _jobs(planned: Any) -> list[dict[str, Any]]:
    """Return the jobs of a plan that say which run they are and what they were asked for."""
    listed = planned if isinstance(planned, list) else []
    return [
        job
        for job in listed
        if isinstance(job, dict) and isinstance(job.get("run"), str) and isinstance(job.get("overrides"), list)
    ]


def experiments(runs: Path) -> list[ExperimentStatus]:
    """Return the status of every experiment that has a run or a plan below a folder, by name."""
    folders = {path.parents[1] for path in runs.glob("*/*/status.json")} | {
        path.parent for path in runs.glob(f"*/{PLAN}")
    }
    return [ExperimentStatus.read(folder) for folder in sorted(folders)]


def shown(statuses: Sequence[ExperimentStatus]) -> RenderableType:
    """Return a table of experiments, and below it what has to be taken up again, and why."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("experiment")
    for state in STATES:
        table.add_column(state, justify="right")
    table.add_column("time left", justify="right")
    for status in statuses:
        counts = status.counts
        cells = [
            Text(str(counts[state] or "–"), style="red" if state in ("failed", "killed") else "") for state in STATES
        ]
        table.add_row(Text(status.folder.name), *cells, Text(_time_left(status)))
    return Group(table, *(broken_runs(status) for status in statuses if status.broken))


def broken_runs(status: ExperimentStatus) -> RenderableType:
    """Return what the same command would take up again: each run, why it failed, and where its log lies."""
    lines = []
    for run in status.broken:
        name = f"{status.folder.name} {run.overrides}".strip()
        why = f": {flattened(run.reason, REASON_LENGTH)}" if run.reason else ""
        lines += [Text(f"{run.state}  {name}{why}"), Text(f"        {run.log}")]
    return Text("\n").join(lines)


def _run_state(path: Path, overrides: str) -> RunState:
    status = read_object(path / "status.json")
    if not status:
        return RunState(path, "waiting", "", 0, overrides)
    held = False
    if status.get("state") == "running":
        held = is_held(path)
        status = read_object(path / "status.json")  # it may have ended meanwhile
    states: dict[Any, State] = {"finished": "done", "failed": "failed"}
    state = states.get(status.get("state"), "running" if held else "killed")
    reason = str(status.get("reason", "")) if state == "failed" else ""
    return RunState(path, state, reason, _seconds(status, state), overrides)


def _seconds(status: dict[str, Any], state: State) -> float:
    try:
        started = datetime.datetime.fromisoformat(status["started"])
        changed = datetime.datetime.fromisoformat(status["changed"])
    except (KeyError, ValueError, TypeError):
        return 0
    ended = datetime.datetime.now(datetime.UTC) if state == "running" else changed
    earlier = status.get("earlier", 0)
    return max(0.0, (ended - started).total_seconds()) + (earlier if isinstance(earlier, int | float) else 0)


def _time_left(status: ExperimentStatus) -> str:
    if status.eta is not None:
        return _duration(status.eta)
    if not (status.work_left and status.work_left > 0):
        return "–"
    return f"{_duration(status.work_left)} of work, nothing runs"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
