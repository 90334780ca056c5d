"""An interrupt that was dropped is raised again where the work looks for it."""

from __future__ import annotations

import contextlib
import copyreg
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from retrofit.interruption import end_if_interrupted, remember_interrupts


class Interrupting(type):
    """The type of classes that interrupt the process when an attribute of them is set."""

    def __setattr__(cls, name: str, value: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        super().__setattr__(name, value)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    with contextlib.suppress(KeyboardInterrupt):
        end_if_interrupted()


def test_an_interrupt_that_pickling_drops_is_raised_when_it_is_looked_for() -> None:
    remember_interrupts()
    copyreg._slotnames(Interrupting("Met", (), {}))  # type: ignore[attr-defined]  # what pickle calls for a new class
    with pytest.raises(KeyboardInterrupt):
        end_if_interrupted()
    end_if_interrupted()


def test_an_interrupt_is_raised_at_once_as_ever() -> None:
    remember_interrupts()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_without_an_interrupt_nothing_is_raised() -> None:
    remember_interrupts()
    end_if_interrupted()


def test_what_takes_interrupts_itself_and_who_ignores_them_are_left_alone() -> None:
    for other in (signal.SIG_IGN, lambda number, frame: None):
        signal.signal(signal.SIGINT, other)
        remember_interrupts()
        assert signal.getsignal(signal.SIGINT) is other


def test_another_thread_changes_nothing() -> None:
    thread = threading.Thread(target=remember_interrupts)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_remembers_interrupts() -> None:
    program = (
        "import signal, sys; from retrofit import interruption; from retrofit.commands import status; "
        "sys.argv = ['status', 'experiment_name=x']\n"
        "try: status.main()\n"
        "except SystemExit: print(signal.getsignal(signal.SIGINT) is interruption._remember)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.strip() == "True", done.stderr
