"""Which commit made something is told, and whether its files were changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from retrofit import provenance
from retrofit.provenance import checkout_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit, which the code seems to run from."""
    for name in ("src/code.py", "conf/train.yaml", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src" / "code.py"))
    return tmp_path


def test_a_commit_is_told_in_full(checkout: Path) -> None:
    assert checkout_commit() == git(checkout, "rev-parse", "HEAD")


def test_a_changed_document_is_not_told(checkout: Path) -> None:
    (checkout / "README.md").write_text("2\n", encoding="utf-8")
    assert checkout_commit() == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["src/code.py", "src/new.py", "conf/train.yaml"])
def test_changed_code_and_configuration_are_told(checkout: Path, name: str) -> None:
    (checkout / name).write_text("2\n", encoding="utf-8")
    assert checkout_commit() == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_without_a_checkout_or_git_nothing_is_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout_commit() is None
    monkeypatch.undo()
    (checkout / ".git").rename(checkout / "elsewhere")
    monkeypatch.setattr(provenance, "__file__", str(checkout / "src" / "code.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert checkout_commit() is None


def test_a_project_that_it_is_installed_within_is_not_its_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".gitignore").write_text("installed\n", encoding="utf-8")
    (checkout / "installed").mkdir()
    (checkout / "installed" / "code.py").write_text("1\n", encoding="utf-8")
    monkeypatch.setattr(provenance, "__file__", str(checkout / "installed" / "code.py"))
    assert checkout_commit() is None
