"""How much memory a process had at most while it trained."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


class PeakMemory:
    """The most memory since a moment: of a GPU what tensors took, of a CPU what the process held.

    Of a CPU it tells what a machine must have, and not what one training takes more than another: jobs of a sweep share
    a process, and what earlier ones left in it counts. Only Linux lets a process forget its peak of before. Elsewhere
    it counts from the start of the process, and so it does where the kernel forbids it.

    Args:
        device: where the weights lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def gigabytes(self) -> float:
        """Return the peak until now, in gigabytes of 10⁹ bytes; NaN where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        try:
            status = (_PROCESS / "status").read_text(encoding="ascii", errors="replace")
        except OSError:
            status = ""
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
        try:
            import resource
        except ImportError:  # Windows
            return math.nan
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / 1e9 if sys.platform == "darwin" else largest * 1024 / 1e9
