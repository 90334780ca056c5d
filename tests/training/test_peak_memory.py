"""The peak of memory: it counts from the moment that was asked for, and holds what has been given back since."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from retrofit.training import peak_memory
from retrofit.training.peak_memory import PeakMemory

HALF_A_GIGABYTE = 5 * 10**8


@pytest.mark.skipif(sys.platform != "linux", reason="a process forgets its peak on Linux alone")
def test_the_peak_holds_what_was_given_back_and_forgets_what_was_before() -> None:
    memory = PeakMemory(torch.device("cpu"))
    before = memory.gigabytes()
    held = torch.ones(HALF_A_GIGABYTE, dtype=torch.uint8)
    del held
    assert memory.gigabytes() - before == pytest.approx(0.5, abs=0.1)
    assert PeakMemory(torch.device("cpu")).gigabytes() - before < 0.1


def test_systems_that_tell_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "_PROCESS", tmp_path / "none")
    assert PeakMemory(torch.device("cpu")).gigabytes() > 0.01
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "status").write_text("VmRSS:\t 12 kB\n", encoding="ascii")  # a kernel that has no VmHWM
    assert PeakMemory(torch.device("cpu")).gigabytes() > 0.01
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert math.isnan(PeakMemory(torch.device("cpu")).gigabytes())
