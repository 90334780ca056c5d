"""Ctrl-C that no library can lose.

Python raises ``KeyboardInterrupt`` wherever the process happens to be. Some of these places drop every exception:
``copyreg`` does when ``torch.save`` meets a class for the first time, others where they ask whether something can be
imported. The work would go on as if nobody had asked it to end.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def remember_interrupts() -> None:
    """Let :func:`end_if_interrupted` know of every SIGINT from now on.

    A process that ignores SIGINT, as one that ``nohup`` started does, goes on ignoring it; outside the main thread,
    where Python takes no signals, nothing changes.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if is_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)


def end_if_interrupted() -> None:
    """Return unless an interrupt was remembered and the work went on.

    Raises:
        KeyboardInterrupt: once for all interrupts so far.
    """
    if _asked.is_set():
        _asked.clear()
        raise KeyboardInterrupt
