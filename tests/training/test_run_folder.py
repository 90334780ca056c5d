"""The run folder: its name, its status, and what it says when something breaks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from retrofit.artefacts import is_held, write_json
from retrofit.errors import UserError
from retrofit.training import run_folder
from retrofit.training.run_folder import MINED_ANEW, TRAINED_AS, RunFolder, RunInWorkError

CONFIG: dict[str, Any] = {
    "experiment_name": "e",
    "seed": 0,
    "paths": {"runs": "", "cache": ""},
    "logger": {"mode": "offline", "project": "p", "group": None},
    "batching": {"batch_size": 4, "steps": None},
}


def test_the_name_says_what_is_computed_and_not_where_or_for_whom() -> None:
    folder = RunFolder.of(CONFIG, Path("runs"))
    assert folder.path.parent == Path("runs/e")
    assert len(folder.path.name) == 16
    for change in ({"paths": {"runs": "/a", "cache": "/b"}}, {"logger": {"mode": "disabled"}}):
        assert RunFolder.of(CONFIG | change, Path("runs")) == folder
    reordered = dict(reversed(CONFIG.items()))
    assert RunFolder.of(reordered, Path("runs")) == folder
    renamed = RunFolder.of(CONFIG | {"experiment_name": "f"}, Path("elsewhere"))
    assert renamed.path == Path("elsewhere/f") / folder.path.name
    for change in ({"seed": 1}, {"batching": {"batch_size": 8, "steps": None}}):
        assert RunFolder.of(CONFIG | change, Path("runs")).path.name != folder.path.name


def test_the_name_of_a_composed_configuration_does_not_depend_on_folders(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    from retrofit.commands.application import (
        as_dictionary,
        configuration_folder,
        register_resolvers,
        without_places,
    )

    register_resolvers()

    def name(*overrides: str) -> str:
        with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
            config = compose("train", ["model=tiny", *overrides])
        return RunFolder.of(as_dictionary(without_places(config)), Path()).path.name

    assert name() == name(
        f"paths.runs={tmp_path}", f"paths.cache={tmp_path}", "logger=none", "experiment_name=x", "engine=ray"
    )
    synthetic = name("data_source=synthetic")
    assert synthetic == name("data_source=synthetic", "engine=ray", "engine.workers=3", f"paths.cache={tmp_path}")
    assert len({name(), name("seed=1"), name("loss.temperature=0.5"), name("adapter=dora")}) == 4


def test_a_run_that_ends_is_finished(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run")
    assert run.status == {}
    run.start("seed: 0\n")
    assert (run.path / "config.yaml").read_text() == "seed: 0\n"
    started = run.status
    assert started["state"] == "running"
    assert started["process"] == os.getpid()
    assert not run.is_finished
    with run.outcome():
        assert run.status["state"] == "running"
    assert run.is_finished
    assert run.status["started"] == started["started"]
    assert run.status["reason"] == ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("out of\nmemory"), "RuntimeError: out of\nmemory"),
        (UserError("seed=x: expected a number"), "UserError: seed=x: expected a number"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_that_raises_is_failed_and_says_why(tmp_path: Path, error: BaseException, reason: str) -> None:
    run = RunFolder(tmp_path)
    run.start("")
    with pytest.raises(type(error)), run.outcome():
        raise error
    assert run.status["state"] == "failed"
    assert reason in run.status["reason"]
    assert not run.is_finished


def test_a_run_that_was_stopped_is_no_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path)
    run.start("")
    with pytest.raises(KeyboardInterrupt), run.outcome():
        raise KeyboardInterrupt
    (record,) = caplog.records
    assert record.getMessage() == "the run was stopped; the same command goes on where it was"
    assert record.exc_info is None


@pytest.mark.parametrize("name", ["team/a", "../x", "", None, ["a"], ".hidden"])
def test_an_experiment_is_named_as_a_folder_is(tmp_path: Path, name: Any) -> None:
    with pytest.raises(UserError, match=r"^experiment_name=.*: expected the name of a folder"):
        RunFolder.of({"experiment_name": name}, tmp_path)


def test_what_earlier_starts_took_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.start("")
    assert run.status["earlier"] == 0
    status = run.status | {
        "state": "failed", "started": "2026-01-01T00:00:00+00:00", "changed": "2026-01-01T00:01:00+00:00",
        "earlier": 30.0,
    }  # fmt: skip
    write_json(run.path / "status.json", status)
    run.start("")
    assert run.status["earlier"] == 90
    with run.outcome():
        pass
    assert run.status["earlier"] == 90
    # Killed: its last line in the log is the last that is known of it.
    log = run.path / "run.log"
    log.write_text("step 10\n")
    os.utime(log, (1_767_225_700, 1_767_225_700))
    write_json(run.path / "status.json", status | {"state": "running"})
    run.start("")
    assert run.status["earlier"] == 30 + 100


def test_a_failed_run_may_be_started_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.start("")
    with pytest.raises(RuntimeError), run.outcome():
        raise RuntimeError
    run.start("")
    assert run.status["state"] == "running"
    assert run.status["reason"] == ""
    with run.outcome():
        pass
    assert run.is_finished


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"finished"', b"\xff\xfe"])
def test_a_damaged_status_is_as_none(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "status.json").write_bytes(content)
    assert run.status == {}
    assert not run.is_finished
    run.start("")
    with run.outcome():
        pass
    assert run.is_finished
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"


def test_what_a_killed_run_half_wrote_is_removed_at_the_next_start(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / "step=4.ckpt").touch()
    (run.checkpoints / ".step=8.ckpt.partial-123").touch()
    (tmp_path / ".status.json.partial-123").touch()
    (tmp_path / ".model.partial-123").mkdir()
    (tmp_path / ".model.partial-123" / "config.json").touch()
    run.start("")
    assert {path.name for path in tmp_path.rglob("*")} == {"config.yaml", "status.json", "checkpoints", "step=4.ckpt"}


def test_a_full_disk_is_told_in_one_line_even_where_the_status_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.start("")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("retrofit.training.run_folder.write_json", full)
    with pytest.raises(UserError, match=r"^no space left for the run in .* free some") as caught, run.outcome():
        full()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_very_end_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.start("")
    write, states = run_folder.write_json, []

    def full_once(path: Path, value: dict[str, Any]) -> None:
        states.append(value["state"])
        if states == ["finished"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, value)

    monkeypatch.setattr(run_folder, "write_json", full_once)
    with pytest.raises(UserError, match=r"^no space left for the run in "), run.outcome():
        pass
    assert states == ["finished", "failed"]
    assert run.status["state"] == "failed"
    assert run.status["reason"].startswith("UserError: no space left")


@pytest.mark.parametrize(
    ("number", "start"), [(errno.ENOSPC, "no space left for the run in "), (errno.EROFS, "no permission to write ")]
)
def test_a_folder_that_cannot_be_begun_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, start: str
) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_folder, "write_text", refused)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match=f"^{start}.*paths.runs"), run.writable():
        run.start("")


def test_a_full_disk_is_told_in_one_line_where_a_library_says_it_in_words(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.start("")
    # As safetensors said it when a run's model did not fit.
    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(UserError, match=r"^no space left for the run in .* free some"), run.outcome():
        raise SafetensorError(full)
    assert run.status["reason"].startswith("UserError: no space left for the run in ")


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrofit.artefacts.PATIENCE", 0.1)
    run = RunFolder(tmp_path / "e" / "run")
    with run.alone():
        run.start("")
        assert is_held(run.path)
        with pytest.raises(RunInWorkError) as caught, run.alone():
            pass
        assert str(caught.value) == f"{run.path}: process {os.getpid()} is at work in it; wait for it, or end it"
        assert is_held(run.path)
    assert not is_held(run.path)
    with run.alone():
        assert is_held(run.path)


def test_places_in_the_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.model == tmp_path / "model"
    assert run.checkpoints == tmp_path / "checkpoints"


def test_the_smoke_configuration_has_a_name(train_config: Callable[..., dict[str, Any]]) -> None:
    assert RunFolder.of(train_config("experiment=smoke"), Path("runs")).path.parent == Path("runs/smoke")


def trained(runs: Path, config: dict[str, Any], **manifest: Any) -> RunFolder:
    """A run that left a model, made of what its manifest says; it is not finished."""
    run = begun(runs, config, **manifest)
    (run.model / "1_Pooling").mkdir(parents=True)
    for file in ("modules.json", "1_Pooling/config.json"):
        (run.model / file).write_text("[]", encoding="utf-8")
    run.curve.write_text("step\n1\n", encoding="utf-8")
    (run.path / "metrics.json").write_text('{"machine": {"commit": "abc"}}', encoding="utf-8")
    return run


def finished(runs: Path, config: dict[str, Any], **manifest: Any) -> RunFolder:
    run = trained(runs, config, **manifest)
    with run.outcome():
        return run


MANIFEST = {
    "fingerprint": "data",
    "base_weights": "base",
    "base_files": "tokenizer",
    "other_models": {"loss.teacher": "teacher"},
    "pairs_by_task_and_language": [{"task": "a", "pairs": 3}],
}


@pytest.mark.parametrize("other", MANIFEST)
@pytest.mark.parametrize("left", ["checkpoints/step=4.ckpt", "model/modules.json"])
def test_a_run_goes_on_with_what_it_was_begun_with_alone(tmp_path: Path, other: str, left: str) -> None:
    run = RunFolder(tmp_path)
    run.begin_with(MANIFEST | {other: "before"})
    run.begin_with(MANIFEST | {"seconds": 1})  # nothing is trained yet
    (tmp_path / left).parent.mkdir()
    (tmp_path / left).touch()
    run.begin_with(MANIFEST | {"seconds": 2})
    manifest = (tmp_path / "data_manifest.json").read_bytes()
    with pytest.raises(UserError, match="was begun by another version, or with other pairs or models"):
        run.begin_with(MANIFEST | {other: "another"})
    assert (tmp_path / "data_manifest.json").read_bytes() == manifest


def test_what_was_mined_before_the_first_checkpoint_is_mined_again(tmp_path: Path) -> None:
    run, mined = RunFolder(tmp_path), tmp_path / MINED_ANEW / "of step 10"
    mined.mkdir(parents=True)
    run.begin_with(MANIFEST)
    assert not mined.exists()
    mined.mkdir(parents=True)
    run.checkpoints.mkdir()
    (run.checkpoints / "step=25.ckpt").touch()
    run.begin_with(MANIFEST)
    assert mined.exists()


def begun(runs: Path, config: dict[str, Any], **manifest: Any) -> RunFolder:
    run = RunFolder.of(config, runs)
    run.start("")
    run.begin_with(MANIFEST | manifest)
    return run


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("folders", [["faq"], []])
def test_the_training_of_a_run_that_differs_in_folders_at_most_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool, folders: list[str]
) -> None:
    if not linked:

        def refused(source: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, "another disk")

        monkeypatch.setattr(os, "link", refused)
    other = finished(tmp_path, CONFIG | {"folders": []})
    run = begun(tmp_path, CONFIG | {"folders": folders, "experiment_name": "again"})
    run.take_training()
    assert run.has_model
    assert (run.model / "1_Pooling" / "config.json").exists()
    assert run.curve.read_bytes() == other.curve.read_bytes()
    assert json.loads((run.path / TRAINED_AS).read_text()) == {"run": f"e/{other.path.name}", "commit": "abc"}
    assert not list(run.path.glob(".*"))
    run.curve.write_text("", encoding="utf-8")  # what is written on later is a copy
    assert other.curve.read_bytes()
    assert (other.model / "modules.json").samefile(run.model / "modules.json") == linked


def test_who_trained_is_handed_on(tmp_path: Path) -> None:
    first = finished(tmp_path, CONFIG | {"folders": []})
    second = finished(tmp_path, CONFIG | {"folders": ["a"], "experiment_name": "b"})
    (second.path / TRAINED_AS).write_text(json.dumps({"run": "e/gone", "commit": "before"}), encoding="utf-8")
    (first.model / "modules.json").unlink()
    third = begun(tmp_path, CONFIG | {"folders": ["b"], "experiment_name": "c"})
    third.take_training()
    assert json.loads((third.path / TRAINED_AS).read_text()) == {"run": "e/gone", "commit": "before"}


@pytest.mark.parametrize("other", ["seed", *MANIFEST])
def test_what_was_trained_otherwise_is_not_taken_over(tmp_path: Path, other: str) -> None:
    config = CONFIG | {"folders": [], "seed": int(other == "seed")}
    finished(tmp_path, config, **({} if other == "seed" else {other: "another"}))
    assert_trains(tmp_path)


def test_what_is_not_finished_or_has_no_model_is_not_taken_over(tmp_path: Path) -> None:
    trained(tmp_path, CONFIG | {"folders": []})
    without = finished(tmp_path, CONFIG | {"folders": ["a"]})
    (without.model / "modules.json").unlink()
    assert_trains(tmp_path)


def test_a_run_that_is_no_longer_taken_over_is_its_own(tmp_path: Path) -> None:
    run = begun(tmp_path, CONFIG | {"folders": ["faq"]})
    (run.path / TRAINED_AS).write_text('{"run": "e/gone", "commit": "abc"}', encoding="utf-8")
    run.take_training()
    assert not (run.path / TRAINED_AS).exists()


def assert_trains(runs: Path) -> None:
    run = begun(runs, CONFIG | {"folders": ["faq"]})
    run.take_training()
    assert not run.has_model
    assert not run.curve.exists()
    assert not (run.path / TRAINED_AS).exists()


def test_a_full_disk_while_training_is_taken_over_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    finished(tmp_path, CONFIG | {"folders": []})
    run = begun(tmp_path, CONFIG | {"folders": ["faq"]})
    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("shutil.copy", full)
    with pytest.raises(UserError, match=r"paths\.runs"), run.outcome():
        run.take_training()
    assert not run.has_model
