"""``retrofit train`` in several processes, whoever starts them: the run of one process, and one run folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.commands.test_train import Workplace, read_json, weights

SHARED = [
    "batching.batch_size=5", "batching.steps=8", "negatives=random", "anchor=base", "anchor.texts=5",
    "model.dropout=0", "trainer.precision=float32",
]  # fmt: skip
TWO = ["trainer.accelerator=cpu", "trainer.attention=eager", "trainer.devices=2", "trainer.checkpoint_every=4"]


def by_lightning(workplace: Workplace) -> list[subprocess.CompletedProcess[str]]:
    return [workplace.train_from_nothing("trainer=ddp", *TWO)]


def by_torchrun(workplace: Workplace) -> list[subprocess.CompletedProcess[str]]:
    _, *command = workplace.command("trainer=torchrun", *TWO)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [started(workplace, [*launcher, *command], {})]


def by_slurm(workplace: Workplace) -> list[subprocess.CompletedProcess[str]]:
    """Two tasks with the variables that srun sets: what SLURM starts, without SLURM."""
    job = {
        "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000), "SLURM_JOB_NAME": "retrofit", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip
    command = workplace.command("trainer=slurm", "trainer.num_nodes=1", *TWO)
    with ThreadPoolExecutor(2) as pool:
        tasks = [{**job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
        return list(pool.map(lambda task: started(workplace, command, task), tasks))


def started(workplace: Workplace, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=workplace.path, timeout=600, check=False,
        env={**workplace.environment, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, small_run: list[str]) -> Path:
    """The run folder that one process leaves."""
    workplace = Workplace(tmp_path_factory.mktemp("alone"), [*small_run, *SHARED])
    done = workplace.train()
    assert done.returncode == 0, done.stderr
    return workplace.run()


@pytest.mark.parametrize("start", [by_lightning, by_torchrun, by_slurm])
def test_two_processes_leave_the_run_of_one(
    alone: Path,
    tmp_path: Path,
    small_run: list[str],
    start: Callable[[Workplace], list[subprocess.CompletedProcess[str]]],
) -> None:
    workplace = Workplace(tmp_path, [*small_run, *SHARED])
    ended = start(workplace)
    assert [done.returncode for done in ended] == [0] * len(ended), "".join(done.stderr for done in ended)
    run = workplace.run()
    assert read_json(run / "status.json")["state"] == "finished"
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    ours, theirs = weights(run), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, atol=1e-5, err_msg=name)
    curves = [pd.read_csv(folder / "training_curve.csv") for folder in (run, alone)]
    columns = ["step", "loss", "learning_rate", "negatives_per_query"]
    pd.testing.assert_frame_equal(curves[0][columns], curves[1][columns], atol=1e-4)
    # One process measures, and says what happens: every line stands once, on its terminal and in the log of the run.
    said = "".join(done.stderr for done in ended)
    for line in ("pairs in 8 steps", "step 8 of 8", "interpolation 1.00: validation gain", "chosen (run folder"):
        assert said.count(line) == (run / "run.log").read_text(encoding="utf-8").count(line) > 0, line
    assert said.count("step 8 of 8") == 1
    assert sum(done.stdout.count("report.html") for done in ended) == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.devices=2"], "trainer.strategy=auto: expected ddp or fsdp"),
        (["trainer=slurm", "trainer.accelerator=cpu"], "trainer.num_nodes=2: expected 1 unless"),
        (["trainer=ddp", "trainer.devices=99"], "trainer.devices=99: expected at most"),
        (["trainer=ddp", *TWO, "-m"], "trainer.devices=2: expected 1 in a multirun"),
    ],
)
def test_processes_that_cannot_be_are_one_line(
    tmp_path: Path, small_run: list[str], overrides: list[str], expected: str
) -> None:
    done = Workplace(tmp_path, small_run).train(*overrides)
    assert done.returncode != 0
    assert expected in done.stderr
    if "-m" in overrides:  # of a sweep, the plan and why a job failed are left
        assert [read_json(path)["state"] for path in tmp_path.glob("runs/train/*/status.json")] == ["failed"]
    else:
        assert not list(tmp_path.glob("runs/train"))


def test_another_number_of_processes_than_was_started_is_one_line(tmp_path: Path, small_run: list[str]) -> None:
    environment = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NAME": "retrofit", "SLURM_PROCID": "0"}
    workplace = Workplace(tmp_path, small_run)
    done = started(workplace, workplace.command("trainer=ddp", *TWO), environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("retrofit train: trainer.devices=2: expected 4 with trainer.num_nodes")
    assert list(tmp_path.iterdir()) == []
