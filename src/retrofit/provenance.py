"""Which code something was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def checkout_commit() -> str | None:
    """Return the commit of the checkout this code runs from, with ``-dirty`` where code or configuration was changed.

    None where it is no checkout of this code (it may be installed within another project's), or git is not there.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ":/src", ":/conf")
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str | None:
    """Return what git says of the checkout; None where it says that something is wrong, or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 -- whichever git is there
            cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
