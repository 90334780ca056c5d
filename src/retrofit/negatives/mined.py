"""Negatives that were mined, on disk: which passages stand against which queries, and how they were found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrofit.artefacts import write_json

ROWS = "rows.npy"
HOMES = "homes.npy"
REPORT = "report.json"


@dataclass(frozen=True)
class MinedNegatives:
    """Negatives of training pairs, by where their texts stand.

    Attributes:
        rows: int64 ``[queries]``, ascending: row of each pair in its table.
        homes: int64 ``[queries, count, 2]``: a row that holds the negative, and its place among that row's positives;
            -1, -1 where there is none, behind all that there are.
        report: how they were found; JSON-like.
    """

    rows: np.ndarray
    homes: np.ndarray
    report: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> MinedNegatives:
        """Return the negatives of a folder, memory-mapped."""
        rows, homes = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (ROWS, HOMES))
        return cls(rows, homes, json.loads((folder / REPORT).read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        """Write the negatives to a folder."""
        np.save(folder / ROWS, self.rows)
        np.save(folder / HOMES, self.homes)
        write_json(folder / REPORT, dict(self.report))

    def of(self, rows: np.ndarray, visits: np.ndarray, count: int) -> np.ndarray:
        """Return where the negatives of a visit stand, int64 ``[n, 2]``; each visit takes the next ``count``.

        A row that has fewer than ``count`` gives each of them once.

        Args:
            rows: int64, rows that negatives were mined for.
            visits: how often each row was drawn before.
            count: negatives of each row.
        """
        homes = self.homes[np.searchsorted(self.rows, rows)]
        # Gaps stand last: turns go round what is there, or visits would be spent on gaps.
        there = (homes[:, :, 0] >= 0).sum(axis=1, keepdims=True)
        turns = (visits[:, None] * count + np.arange(count)) % np.maximum(there, 1)
        taken = np.take_along_axis(homes, turns[:, :, None], axis=1)
        found: np.ndarray = taken[np.arange(count) < there]
        return found
