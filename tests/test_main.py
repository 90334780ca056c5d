"""``retrofit`` without a command, with an unknown one, and with each that it names."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from retrofit import __main__ as entry


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["retrofit", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_usage_names_every_command() -> None:
    for name, what in entry.COMMANDS.items():
        assert f"{name}  " in entry.usage()
        assert what in entry.usage()
        assert callable(importlib.import_module(f"retrofit.commands.{entry.MODULES.get(name, name)}").main)


@pytest.mark.parametrize("arguments", [["-h"], ["--help"]])
def test_help_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.strip() == entry.usage()


def test_no_command_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch) == 2
    assert "usage: retrofit COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "trian", "seed=1") == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("retrofit: no command 'trian'\n")
    assert entry.usage() in output.err


def test_a_command_gets_the_arguments_after_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(entry.runpy, "run_module", lambda name, **_: seen.append((name, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["retrofit", "train", "seed=1", "-m"])
    entry.main()
    assert seen == [("retrofit.commands.train", ["seed=1", "-m"])]


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retrofit"], capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stdout.strip() == entry.usage()
