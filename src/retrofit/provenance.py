"""Which code something was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def checkout_commit() -> str | None:
    """Return the commit of the checkout this code runs from, with ``-dirty`` where a tracked file was changed.

    None where it is no checkout, or git is not there.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607 -- whichever git is there
            cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
