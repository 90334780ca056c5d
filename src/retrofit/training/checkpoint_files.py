"""Checkpoints as files: whole or absent, the newest few of them, and looked through before they are trusted.

A checkpoint is what ``torch.save`` writes, a zip archive, with the digest of all its bytes as the archive's comment.
The checksums that such an archive has anyway are not enough: they leave out where a tensor begins.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import CheckpointIO

from retrofit.artefacts import written_aside
from retrofit.errors import first_line

_DIGEST_SIZE = 64
"""Bytes of a sha256 in hex."""

log = logging.getLogger(__name__)


class CheckpointFiles(CheckpointIO):
    """Writes ``step=<steps>.ckpt`` aside, forces it to the disk, renames it, and only then removes older ones.

    So whenever the process or the machine stops, the newest checkpoint under its name is whole, unless the disk damages
    it: :func:`newest_whole_checkpoint` notices.

    Attributes:
        keep: how many checkpoints of a folder stay.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ARG002 -- of Lightning's interface, for other kinds of storage
    ) -> None:
        """Write a checkpoint; one that fails leaves those before as they were.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(path)
        # In memory first: torch's own writer turns the error of a full disk into one that does not say so.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        content[-2:] = _DIGEST_SIZE.to_bytes(2, "little")  # a zip archive ends in the length of its comment
        digest = hashlib.sha256(content).hexdigest().encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(target) as partial, partial.open("wb") as file:
            file.write(content)
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(target.parent)
        # Of those with more steps none was whole, or the run would have gone on from there: they do not count.
        earlier = [other for other in _checkpoints(target.parent) if _steps(other) <= _steps(target)]
        for outdated in earlier[self.keep :]:
            self.remove_checkpoint(outdated)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Return what was saved; tensors and plain Python values, for nothing else is read."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=weights_only)
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the most steps that is whole, None where there is none; damaged ones are warned of."""
    checkpoints = _checkpoints(folder)
    for checkpoint in checkpoints:
        damage = _damage(checkpoint)
        if damage is None:
            return checkpoint
        log.warning("%s is damaged (%s): the run goes on from the checkpoint before it", checkpoint, damage)
    if checkpoints:
        log.warning("no checkpoint in %s is whole: the training starts over", folder)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the newest first."""
    return sorted(folder.glob("step=*.ckpt"), key=_steps, reverse=True)


def _steps(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step="))


def _damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, None for nothing."""
    content = checkpoint.read_bytes()
    if hashlib.sha256(content[:-_DIGEST_SIZE]).hexdigest().encode() != content[-_DIGEST_SIZE:]:
        return "it is not as it was written"
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and torch each have errors of their own
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk: until then a renamed file may be lost when the machine stops."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
