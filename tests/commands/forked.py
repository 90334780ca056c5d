"""``retrofit`` as a process of its own that need not import torch again.

A server that has imported the libraries forks for every command. What a command does at its start, or to a signal, is
tested with a process that is started from nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["hydra", "pandas", "pyarrow", "torch", "transformers", "pytorch_lightning", "peft"])
_STREAMS = ("stdin", "stdout", "stderr")


def retrofit(
    place: Path, *arguments: str, stdin: str = "", timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended and what it said.

    Args:
        place: the folder where it runs; the cache is in it.
        arguments: of ``retrofit``.
        stdin: what it reads.
        timeout: seconds after which it is killed.
        environment: variables that differ.
    """
    variables = {**os.environ, "RETROFIT_CACHE": str(place / "cache"), **environment}
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in _STREAMS]
        streams[0].write_text(stdin, encoding="utf-8")
        process = _SERVER.Process(target=_carry_out, args=(arguments, place, variables, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["retrofit", *arguments], timeout)
        said = [stream.read_text(encoding="utf-8") if stream.exists() else "" for stream in streams[1:]]
        return subprocess.CompletedProcess(["retrofit", *arguments], process.exitcode, *said)


def _carry_out(arguments: Sequence[str], place: Path, variables: Mapping[str, str], streams: Sequence[Path]) -> None:
    os.chdir(place)
    os.environ.clear()
    os.environ.update(variables)
    for number, (name, path) in enumerate(zip(_STREAMS, streams, strict=True)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
        setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123 -- for good
    sys.argv = ["retrofit", *arguments]
    atexit._clear()  # what the server's libraries registered is for the server to do
    try:
        runpy.run_module("retrofit", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a forked process ends without
