"""``retrofit train -m``: one bad job stops no other, and the same command goes on where a sweep was cut off."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
from tests.commands.forked import retrofit
from tests.commands.workplace import Workplace, read_json, snapshot

from retrofit.artefacts import alone_in, write_json
from retrofit.data.storage import PAIRS, REPORT

FEW_STEPS = ("batching.steps=8", "export=retrofitted")


def states(workplace: Workplace) -> dict[str, str]:
    """The state of each run by its name."""
    folders = workplace.path.glob("runs/train/*/status.json")
    return {path.parent.name: read_json(path)["state"] for path in folders}


def planned(workplace: Workplace) -> dict[str, str]:
    """The overrides of each planned job by the name of its run."""
    jobs = read_json(workplace.path / "runs" / "train" / "sweep.json")["jobs"]
    return {job["run"]: " ".join(job["overrides"]) for job in jobs}


def status(workplace: Workplace, *overrides: str) -> str:
    done = retrofit(workplace.path, "status", *overrides)
    assert done.returncode == 0, done.stderr
    return done.stdout


def row(shown: str, experiment: str = "train") -> list[str]:
    """The cells of an experiment's row of the table: name, done, running, failed, killed, waiting, time left."""
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == [experiment])
    return line.strip().split(maxsplit=6)


def test_a_bad_job_stops_no_other_and_the_same_command_retries_what_failed(
    tmp_path: Path, small_run: list[str], corpus: Path
) -> None:
    missing = tmp_path / "source" / corpus.name
    missing.mkdir(parents=True)
    sources = f"+data_source.pairs._args_=['{missing}'],['{corpus}']"
    overrides = [sources if each.startswith("+data_source.pairs._args_") else each for each in small_run]
    workplace = Workplace(tmp_path, [*overrides, *FEW_STEPS])

    done = workplace.train("batching.batch_size=1,4", "-m")
    assert done.returncode == 1
    assert "Error executing job" not in done.stderr
    assert sorted(states(workplace).values()) == ["failed", "failed", "failed", "finished"]
    by_state = states(workplace)
    (crashed,) = (
        name for name, what in planned(workplace).items() if "batch_size=4" in what and by_state[name] == "failed"
    )
    assert "FileNotFoundError" in read_json(workplace.path / "runs/train" / crashed / "status.json")["reason"]
    account = done.stderr[done.stderr.index("time left") :]
    assert row(account) == ["train", "1", "–", "3", "–", "–", "–"]
    lines = account.splitlines()
    for name, state in by_state.items():
        log = f"runs/train/{name}/run.log"
        told = [number for number, line in enumerate(lines) if line.strip() == log]
        assert len(told) == (state == "failed"), name
        if told:
            what = lines[told[0] - 1]
            assert what.startswith("failed  train ")
            assert ("batching.batch_size=1: expected" in what) == (name != crashed)
            assert ("FileNotFoundError" in what) == (name == crashed)
            content = (workplace.path / log).read_text(encoding="utf-8")
            assert ("Traceback" if name == crashed else "batching.batch_size=1: expected") in content
    assert row(status(workplace)) == row(account)
    assert f"runs/train/{crashed}/run.log" in status(workplace, "experiment_name=train")

    (finished,) = (name for name, state in by_state.items() if state == "finished")
    before = snapshot(workplace.path / "runs/train" / finished)
    for name in (PAIRS, REPORT):
        (missing / name).write_bytes((corpus / name).read_bytes())
    again = workplace.train("batching.batch_size=1,4", "-m")
    assert again.returncode == 1
    assert {name for name, state in states(workplace).items() if state == "finished"} == {finished, crashed}
    assert snapshot(workplace.path / "runs/train" / finished) == before


@contextmanager
def stopped(workplace: Workplace, *overrides: str, line: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was stopped when its log had a line, and is killed at the end."""
    log_file = workplace.path / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen(
            workplace.command(*overrides), cwd=workplace.path, env=workplace.environment, stdout=log, stderr=log
        )
    try:
        started = time.monotonic()
        while line not in log_file.read_text(encoding="utf-8"):
            assert process.poll() is None, log_file.read_text(encoding="utf-8")
            assert time.monotonic() - started < 300
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_asked_to_end_starts_no_other_job(
    tmp_path: Path, small_run: list[str], asked: signal.Signals
) -> None:
    workplace = Workplace(tmp_path, small_run)
    with stopped(workplace, "seed=0,1,2", "-m", line="step 16 of 24") as process:
        process.send_signal(asked)
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=120) != 0
    assert list(states(workplace).values()) == ["failed"]
    assert row(status(workplace))[:6] == ["train", "–", "–", "1", "–", "2"]


DROPPING = """
import contextlib, os, signal, sys
from retrofit.analysis import report
from retrofit.commands import train

write = report.write_report

def write_and_drop(run):
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    write(run)

report.write_report = write_and_drop
train.main()
"""


def test_an_interrupt_that_is_dropped_in_the_end_of_a_job_ends_the_sweep_before_the_next(
    tmp_path: Path, small_run: list[str]
) -> None:
    workplace = Workplace(tmp_path, small_run)
    command = [sys.executable, "-c", DROPPING, *small_run, *FEW_STEPS, "seed=0,1,2", "-m"]
    done = subprocess.run(
        command, cwd=tmp_path, env=workplace.environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode != 0
    assert list(states(workplace).values()) == ["finished"], done.stderr
    assert row(status(workplace))[:6] == ["train", "1", "–", "–", "–", "2"]


def test_a_killed_sweep_goes_on_and_a_deleted_run_is_made_again_and_no_other(
    tmp_path: Path, small_run: list[str]
) -> None:
    workplace = Workplace(tmp_path, small_run)
    sweep = ("seed=0,1", "-m")
    with stopped(workplace, *sweep, line="step 16 of 24"):
        (first,) = states(workplace)
        second = next(name for name in planned(workplace) if name != first)
        assert row(status(workplace))[:6] == ["train", "–", "1", "–", "–", "1"]
        other = workplace.train("seed=0")
        assert other.returncode == 2
        (said,) = other.stderr.splitlines()
        assert said.startswith(f"retrofit train: runs/train/{first}: process ")
        assert "is at work in it" in said
    shown = status(workplace)
    assert row(shown)[:6] == ["train", "–", "–", "–", "1", "1"]
    assert f"runs/train/{first}/run.log" in shown
    assert "killed  train seed=0" in shown

    again = workplace.train(*sweep)
    assert again.returncode == 0, again.stderr
    assert "resuming from step=" in again.stderr
    assert states(workplace) == {first: "finished", second: "finished"}
    assert row(status(workplace)) == ["train", "2", "–", "–", "–", "–", "–"]

    kept = snapshot(tmp_path / "runs/train" / second)
    shutil.rmtree(tmp_path / "runs/train" / first)
    assert row(status(workplace))[:6] == ["train", "1", "–", "–", "–", "1"]
    assert "of work, nothing runs" in status(workplace)
    anew = workplace.train(*sweep)
    assert anew.returncode == 0, anew.stderr
    assert f"runs/train/{second} is finished" in anew.stderr
    assert states(workplace) == {first: "finished", second: "finished"}
    assert snapshot(tmp_path / "runs/train" / second) == kept

    # Another process is at work in one: it is told, and left alone; nothing else is left to do.
    write_json(tmp_path / "runs/train" / first / "status.json", {"state": "running", "process": 7})
    before = snapshot(tmp_path / "runs/train")
    with alone_in(tmp_path / "runs/train" / first) as alone:
        assert alone
        beside = workplace.train(*sweep)
    assert beside.returncode == 0, beside.stderr
    assert (
        [line for line in beside.stderr.splitlines() if line.endswith("wait for it, or end it")]
        == [line for line in beside.stderr.splitlines() if f"runs/train/{first}: process 7 is at work in it" in line]
        != []
    )
    after = snapshot(tmp_path / "runs/train")
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {
        "sweep.json",
        ".sweep.json.lock",
    }
    commands = read_json(tmp_path / "runs/train" / "sweep.json")["commands"]
    assert len(commands) == 1
    assert commands[0].startswith("retrofit train ")
    assert commands[0].endswith("seed=0,1 -m")


def test_a_sweep_whose_jobs_do_not_resolve_is_one_line_before_anything_starts(
    tmp_path: Path, small_run: list[str]
) -> None:
    workplace = Workplace(tmp_path, small_run)
    done = workplace.train("seed=0,'${nothing.here}'", "-m")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("retrofit train: ")
    assert "seed" in line
    assert "nothing.here" in line
    assert list(tmp_path.rglob("status.json")) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["-m", "--cfg", "job"], "-m: not with --cfg"),
        (["--resolve"], "--resolve: expected --cfg job"),
        (["+data_source.path='https://me:hunter2@host/p'", "seed=0,1", "-m"], "data_source.path: expected an address"),
        (["+data_source.path='https://host/p?token=hunter2'"], "data_source.path: expected an address"),
        (["experiment_name=a/b", "seed=0,1", "-m"], "experiment_name=a/b: expected the name of a folder"),
        (["paths.runs=taken/runs", "seed=0,1", "-m"], "a file is in the way of the plan of taken/runs/train"),
    ],
    ids=["cfg", "resolve", "password", "token", "name", "file"],
)
def test_what_cannot_be_begun_is_one_line_and_leaves_nothing(
    tmp_path: Path, small_run: list[str], overrides: list[str], expected: str
) -> None:
    (tmp_path / "taken").touch()
    done = Workplace(tmp_path, small_run).train(*overrides)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert expected in line
    assert "hunter2" not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_jobs_that_are_one_run_are_told_once(tmp_path: Path, small_run: list[str]) -> None:
    workplace = Workplace(tmp_path, [*small_run, *FEW_STEPS])
    done = workplace.train("logger=none,wandb_offline", "batching.batch_size=1", "-m")
    assert done.returncode == 1
    assert row(done.stderr)[3] == "1"


def test_a_plan_waits_for_one_that_is_just_written(tmp_path: Path, small_run: list[str]) -> None:
    folder = tmp_path / "runs" / "train"
    folder.mkdir(parents=True)
    with ThreadPoolExecutor() as beside:
        with filelock.FileLock(folder / ".sweep.json.lock"):
            planning = beside.submit(Workplace(tmp_path, small_run).train, "batching.batch_size=1", "seed=0,1", "-m")
            time.sleep(8)
            write_json(folder / "sweep.json", {"commands": ["retrofit train first"], "jobs": []})
        assert planning.result().returncode == 1
    first, second = read_json(folder / "sweep.json")["commands"]
    assert first == "retrofit train first"
    assert second.endswith("-m")


def test_status_is_shown_again_until_it_is_stopped(tmp_path: Path, small_run: list[str]) -> None:
    run: dict[str, Any] = {"state": "finished", "started": "2026-01-01T00:00:00+00:00"}
    folder = tmp_path / "runs" / "e" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps(run | {"changed": "2026-01-01T00:01:00+00:00"}))
    process = subprocess.Popen(
        [sys.executable, "-m", "retrofit", "status", "watch=0.1"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8", env=Workplace(tmp_path, []).environment,
    )  # fmt: skip
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=12)
        # It has looked once by now; what it shows in the end, it can only have seen when it looked again.
        shutil.copytree(folder, folder.with_name("fedcba9876543210"))
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, error
    assert row(output, "e") == ["e", "2", "–", "–", "–", "–", "–"]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("experiment_name=x", "experiment_name=x: no run is in runs/x"),
        ("watch=0", "watch=0: expected seconds"),
        ("sweep=x", "sweep=x: expected one of "),
        ("paths.runs=y", "paths.runs=y: no run is in it"),
    ],
)
def test_a_status_that_cannot_be_had_is_one_line(tmp_path: Path, override: str, named: str) -> None:
    done = retrofit(tmp_path, "status", override)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"retrofit status: {named}")
    assert list(tmp_path.iterdir()) == []
