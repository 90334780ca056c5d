"""Weights & Biases as a mirror: whatever becomes of it, the run goes on and no secret is written."""

from __future__ import annotations

import base64
import errno
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.training.wandb_server import KEY, WandbServer, serving

from retrofit.training.run_folder import RunFolder
from retrofit.training.wandb_mirror import WandbMirror

ROW = {"step": 2.0, "loss": 0.5, "learning_rate": 0.1}
SWEEP = {"name": "negatives", "finding": "F3", "point": {"negatives": "dense", "batch": 8}, "reference": {}}
METRICS = pd.DataFrame(
    {
        "model": ["base", "retrofitted"],
        "suite": "held_out",
        "task": "title",
        "query_language": "de",
        "document_language": "de",
        "seen_in_training": True,
        "metric": "ndcg_at_10",
        "value": [0.5, 0.75],
        "n_queries": 4,
    }
)
FIGURES = {"headline": {"held_out": {"base": 0.5, "retrofitted": 0.75, "gain": 0.25}}}


def config(mode: str, upload_model: bool = False, sweep: Any = None) -> dict[str, Any]:
    logger = {"mode": mode, "project": "p", "group": None, "upload_model": upload_model}
    return {"logger": logger, "experiment_name": "e", "model": {"name": "tiny"}, "seed": 3, "sweep": sweep}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class FakeRun:
    """Stands for a wandb run; fails from the call on that it is told."""

    def __init__(self, failing: str = "", error: Exception | None = None) -> None:
        self.failing = failing
        self.error = error
        self.logged: list[tuple[dict[str, Any], int | None]] = []
        self.finished: list[int] = []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((values, step))
        if self.failing == "log" and self.error:
            raise self.error

    def finish(self, exit_code: int) -> None:
        self.finished.append(exit_code)
        if self.failing == "finish":
            raise ConnectionError("too late")


def test_a_disabled_mirror_does_not_even_import_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with WandbMirror.start(config("disabled"), RunFolder(tmp_path)) as mirror:
        mirror.log(ROW)
        mirror.finish(METRICS, {"headline": 1})
    assert warnings(caplog) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_without_wandb_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with WandbMirror.start(config(mode), RunFolder(tmp_path)) as mirror:
        assert mirror.run is None
        mirror.log(ROW)
        mirror.finish(METRICS, {})
    (warning,) = warnings(caplog)
    assert "Weights & Biases is left out" in warning


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("the network is gone\nand so is the second line"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(),
    ],
    ids=["network", "disk", "unsaid"],
)
def test_a_failing_log_is_said_once_and_then_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    run = FakeRun("log", error)
    mirror = WandbMirror(run, RunFolder(tmp_path))
    for _ in range(3):
        mirror.log(ROW)
    mirror.finish(METRICS, {})
    assert len(run.logged) == 1
    (warning,) = warnings(caplog)
    assert (str(error).splitlines() or ["RuntimeError"])[0] in warning
    assert "second line" not in warning


def test_rows_carry_their_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = FakeRun()
    WandbMirror(run, RunFolder(tmp_path)).log(ROW)
    assert run.logged == [({"training/loss": 0.5, "training/learning_rate": 0.1}, 2)]
    assert warnings(caplog) == []


def test_a_run_that_goes_on_keeps_its_id_and_one_that_is_made_anew_has_another(tmp_path: Path) -> None:
    """The same configuration on two machines, or after its folder was deleted, is another run to the service."""
    first, second = (RunFolder(tmp_path / machine / "e" / "abc") for machine in ("one", "two"))
    for run in (first, second):
        run.path.mkdir(parents=True)
    ids = [WandbMirror(None, run)._identity() for run in (first, first, second)]
    assert ids[0] == ids[1] != ids[2]
    assert all(name.startswith("e-abc-") for name in ids)


@pytest.mark.parametrize("failing", ["", "finish"])
def test_the_mirror_is_closed_when_the_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    run = FakeRun(failing)
    monkeypatch.setattr(WandbMirror, "_init", lambda self, config: setattr(self, "run", run))
    with pytest.raises(RuntimeError, match="the run's own"), WandbMirror.start(config("offline"), RunFolder(tmp_path)):
        raise RuntimeError("the run's own")
    assert run.finished == [1]


@pytest.fixture
def server() -> Iterator[WandbServer]:
    pytest.importorskip("wandb")
    with serving() as answering:
        yield answering


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The folder of a run that was trained, where wandb finds a key and nothing else of its own."""
    pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    run = RunFolder(tmp_path / "runs" / "e" / "abc")
    run.start("seed: 3\n")
    manifest = {
        "data_source": "made up/1",
        "base_weights": "b45e",
        "fingerprint": "da7a",
        "pairs": 7,
        "pairs_by_task_and_language": [{"task": "title", "language": "de", "document_language": "de", "pairs": 7}],
    }
    (run.path / "data_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (run.path / "mining.json").write_text('{"fingerprint": "3e6a", "queries": 7}', encoding="utf-8")
    (run.path / "interpolation.csv").write_text("weight,chosen\n0.5,False\n1.0,True\n", encoding="utf-8")
    for name in ("model/modules.json", "model/weights", "adapter/weights"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text(f"content of {name}", encoding="utf-8")
    return run


def write_curve(folder: RunFolder, *steps: int) -> None:
    rows = [f"{step},{1 / step}" for step in steps]
    (folder.path / "training_curve.csv").write_text("\n".join(["step,loss", *rows]) + "\n", encoding="utf-8")


def mirrored(folder: RunFolder, *steps: int, **options: Any) -> None:
    """Go through a run that trains for some steps."""
    with WandbMirror.start(config("offline", **options), folder) as mirror:
        assert mirror.run is not None
        for step in steps:
            mirror.log({"step": step, "loss": 1 / step})
        mirror.finish(METRICS, FIGURES)
        assert mirror.run is not None


def offline_folders(folder: RunFolder) -> list[Path]:
    return sorted((folder.path / "wandb").glob("offline-run-*"))


def synced(server: WandbServer, folder: RunFolder, home: Path) -> None:
    done = server.sync(*offline_folders(folder), home=home)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stdout + done.stderr


def test_what_an_offline_run_left_reaches_the_service_and_no_key_any_file(
    tmp_path: Path, folder: RunFolder, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    mirrored(folder, 8, 16, sweep=SWEEP)
    assert warnings(caplog) == []
    assert list((tmp_path / "home").glob(".local/**/staging/*")) == []
    synced(server, folder, tmp_path / "home")
    (sent, *_) = server.asked("UpsertBucket")
    assert sent["name"].startswith("e-abc-")
    assert sent["project"] == "p"
    assert sent["groupName"] == "e"
    assert sent["jobType"] == "negatives=dense, batch=8"
    assert sent["displayName"] == "negatives=dense, batch=8, seed 3"
    assert sent["tags"] == ["F3"]
    assert server.config["sweep"]["point"] == SWEEP["point"]
    assert server.config["seed"] == 3
    assert server.config["data"] == {"fingerprint": "da7a", "pairs": 7}
    assert [(row["_step"], row["training/loss"]) for row in server.history] == [(8, 1 / 8), (16, 1 / 16)]
    assert server.summary["headline"] == FIGURES["headline"]
    assert server.exit_codes == [0]
    metrics = server.table("metrics")
    assert metrics["columns"] == list(METRICS.columns)
    assert metrics["data"] == METRICS.to_numpy().tolist()
    languages = server.table("languages")
    (row,) = (dict(zip(languages["columns"], row, strict=True)) for row in languages["data"])
    assert (row["suite"], row["language"], row["gain"]) == ("held_out", "de", 0.25)
    assert server.table("pairs")["data"] == [["title", "de", "de", 7]]
    assert server.table("interpolation")["data"] == [[0.5, False], [1.0, True]]

    spelled = base64.b64encode(f"api:{KEY}".encode()).decode()
    assert {request.headers.get("Authorization") for request in server.requests} <= {None, f"Basic {spelled}"}
    sent_to_the_api = [request for request in server.requests if request.path.endswith(("/graphql", "/file_stream"))]
    assert all("Authorization" in request.headers for request in sent_to_the_api)
    for secret in (KEY, spelled):
        for request in server.requests:
            headers = {name: value for name, value in request.headers.items() if name != "Authorization"}
            assert secret not in f"{request.path} {headers}"
            assert secret.encode() not in request.body
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_run_that_chose_no_weight_is_mirrored_whole(
    tmp_path: Path, folder: RunFolder, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / "interpolation.csv").unlink()  # as a run of a sweep leaves it
    mirrored(folder, 8, sweep=SWEEP)
    assert warnings(caplog) == []
    synced(server, folder, tmp_path / "home")
    assert server.summary["headline"] == FIGURES["headline"]
    assert server.table("metrics")["data"] == METRICS.to_numpy().tolist()
    assert "interpolation" not in server.summary
    assert "retrofitted-e-abc" in server.artefacts


@pytest.mark.parametrize("upload_model", [False, True])
def test_the_lineage_names_what_was_used_and_made_and_weights_are_uploaded_where_asked(
    tmp_path: Path, folder: RunFolder, server: WandbServer, upload_model: bool
) -> None:
    mirrored(folder, 8, upload_model=upload_model)
    synced(server, folder, tmp_path / "home")
    assert server.artefacts == {
        "pairs-made-up-1": "dataset", "base-tiny": "model", "negatives-made-up-1": "negatives",
        "retrofitted-e-abc": "model",
    }  # fmt: skip
    assert server.used == set(server.artefacts) - {"retrofitted-e-abc"}
    uploaded = {
        request.path.removeprefix("/upload/artefacts/"): request.body.decode()
        for request in server.requests
        if request.path.startswith("/upload/artefacts/")
    }
    assert uploaded["pairs-made-up-1/fingerprint.txt"] == "da7a"
    assert uploaded["base-tiny/fingerprint.txt"] == "b45e"
    assert uploaded["negatives-made-up-1/fingerprint.txt"] == "3e6a"
    weights = {"adapter/weights", "model/modules.json", "model/weights"}
    made = server.manifest("retrofitted-e-abc")
    assert set(made) == weights
    if upload_model:
        assert uploaded["retrofitted-e-abc/model/weights"] == "content of model/weights"
        assert {f"retrofitted-e-abc/{name}" for name in weights} <= set(uploaded)
    else:
        assert made["model/weights"]["ref"] == (folder.model / "weights").as_uri()
        assert made["model/weights"]["size"] == len("content of model/weights")
        assert not any("content of" in content for content in uploaded.values())


def test_a_run_outside_a_sweep_has_no_type_and_no_tags(tmp_path: Path, folder: RunFolder, server: WandbServer) -> None:
    mirrored(folder)
    synced(server, folder, tmp_path / "home")
    (sent, *_) = server.asked("UpsertBucket")
    assert (sent["displayName"], sent["groupName"], sent["jobType"], sent["tags"]) == ("e-abc", "e", None, None)


def test_a_resumed_run_reaches_the_service_whole_and_once(
    tmp_path: Path, folder: RunFolder, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted() -> None:
        with WandbMirror.start(config("offline"), folder) as mirror:
            for step in (8, 16, 24):
                mirror.log({"step": step, "loss": 9.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    synced(server, folder, tmp_path / "home")
    assert server.exit_codes == [1]
    # Of a process that was killed: a file that "wandb sync" cannot read.
    torn = folder.path / "wandb" / "offline-run-20200101_000000-e-abc" / "run-e-abc.wandb"
    torn.parent.mkdir()
    torn.write_bytes(b":W&B\xe7\xbe\x00")
    # Taken up at step 16: the curve was cut there, and what follows is trained again.
    write_curve(folder, 8, 16)
    with WandbMirror.start(config("offline"), folder) as mirror:
        write_curve(folder, 8, 16, 24)
        mirror.log({"step": 24, "loss": 1 / 24})
        write_curve(folder, 8, 16, 24, 32)
        mirror.log({"step": 32, "loss": 1 / 32})
        mirror.finish(METRICS, FIGURES)
    synced(server, folder, tmp_path / "home")
    assert len(offline_folders(folder)) == 1
    (name,) = {sent["name"] for sent in server.asked("UpsertBucket")}
    assert name.startswith("e-abc-")
    assert [(row["_step"], row["training/loss"]) for row in server.history] == [
        (step, pytest.approx(1 / step)) for step in (8, 16, 24, 32)
    ]
    assert server.exit_codes == [1, 0]
    assert warnings(caplog) == []


def test_a_run_that_was_only_measured_again_has_its_curve(
    tmp_path: Path, folder: RunFolder, server: WandbServer
) -> None:
    write_curve(folder, 8, 16)
    mirrored(folder)
    synced(server, folder, tmp_path / "home")
    assert [row["_step"] for row in server.history] == [8, 16]


def test_jobs_of_one_process_do_not_mix_though_a_mirror_broke(
    tmp_path: Path, folder: RunFolder, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    with WandbMirror.start(config("offline"), folder) as broken:
        left_open = broken.run
        broken.log({"step": 8})
        broken.log({"loss": 0.5})
        assert broken.run is None
    assert len(warnings(caplog)) == 1
    # In another experiment, of the same configuration: its name is that of the first, its run a run of its own.
    other = RunFolder(folder.path.parent.with_name("e2") / folder.path.name)
    shutil.copytree(folder.path, other.path, ignore=shutil.ignore_patterns("wandb"))
    mirrored(other, 8)
    left_open.finish()
    synced(server, other, tmp_path / "home")
    (name,) = {sent["name"] for sent in server.asked("UpsertBucket")}
    assert name.startswith("e2-abc-")


def test_a_file_that_cannot_be_read_costs_the_mirror_not_the_run(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / "data_manifest.json").write_text("{", encoding="utf-8")
    with WandbMirror.start(config("offline"), folder) as mirror:
        mirror.finish(METRICS, FIGURES)
        mirror.finish(METRICS, FIGURES)
    (warning,) = warnings(caplog)
    assert "Weights & Biases is left out" in warning
