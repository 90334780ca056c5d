"""Points of a sweep's grid in one line: what a run is called by in tables, figures and the experiment tracker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def point_label(point: Mapping[str, Any]) -> str:
    """Return a point, the value of each axis, in one line: ``n_tasks=2, n_languages=4``."""
    return ", ".join(f"{axis}={value}" for axis, value in point.items())


def point_axes(label: str) -> dict[str, str]:
    """Return the axes of a point's label and their values, as texts."""
    parts = re.split(r", (?=[\w.-]+=)", label)  # values may be lists, which have commas of their own
    return dict(part.split("=", 1) for part in parts if "=" in part)
