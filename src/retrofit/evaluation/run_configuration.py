"""What a run was asked for: its configuration, read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from retrofit.errors import UserError, one_line

MODELS_KEY = "models"
"""The key that names models."""


def run_configuration(run: Path, source: str) -> dict[str, Any]:
    """Return the resolved configuration of a run of ``retrofit train``.

    Args:
        run: its folder.
        source: how messages name it.

    Raises:
        UserError: the folder has none, or one of something else.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{MODELS_KEY}: {source}: expected the config.yaml of its run beside it")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if {"name", "checkpoint", "pooling", "prompts", "max_length"} <= set(config["model"]) and config["paths"][
            "cache"
        ]:
            return dict(config)
    except (ValueError, TypeError, LookupError, yaml.YAMLError) as error:
        raise UserError(f"{MODELS_KEY}: {source}: {path.name} is not that of a run: {one_line(error)}") from error
    raise UserError(f"{MODELS_KEY}: {source}: {path.name} is not that of a run of retrofit train")


def replaced(node: Any, old: Any, new: Any) -> Any:
    """Return a part of a configuration with another value wherever one stands: the folders of another machine."""
    if node == old:
        return new
    if isinstance(node, dict):
        return {key: replaced(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, old, new) for value in node]
    return node
