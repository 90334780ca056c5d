"""The rules a training configuration must keep, each broken one named by the key that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrofit.errors import UserError


def check(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration can be carried out.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    batching, loss, anchor, export = config["batching"], config["loss"], config["anchor"], config["export"]
    optimizer, evaluation = config["optimizer"], config["evaluation"]
    weights = export["interpolation"]
    rules = [
        (batching["batch_size"] >= 2, "batching.batch_size", "at least 2: a single pair has no negative"),
        (batching["steps"] is None or batching["steps"] >= 1, "batching.steps", "at least 1, or null"),
        (batching["steps"] or batching["epochs"] > 0, "batching.epochs", "above 0"),
        (batching["max_length"] >= 8, "batching.max_length", "at least 8 tokens"),
        (batching["chunk_tokens"] >= batching["max_length"], "batching.chunk_tokens", "at least batching.max_length"),
        (batching["alpha"] >= 0, "batching.alpha", "0 or more"),
        (loss["temperature"] > 0, "loss.temperature", "above 0"),
        (0 <= loss["symmetric_weight"] <= 1, "loss.symmetric_weight", "between 0 and 1"),
        (0 <= optimizer["warmup_fraction"] <= 1, "optimizer.warmup_fraction", "between 0 and 1"),
        (config["negatives"]["random"] >= 0, "negatives.random", "0 or more"),
        (anchor["weight"] >= 0, "anchor.weight", "0 or more"),
        (anchor["texts"] >= 0, "anchor.texts", "0 or more"),
        (
            not anchor["texts"] or config["adapter"]["config"] is not None,
            "anchor.texts",
            "0 with adapter=full: the base is what is left when the adapter is switched off (anchor=none)",
        ),
        (bool(evaluation["suites"]), "evaluation.suites", "at least one suite"),
        (
            _has_both_kinds(evaluation["suites"]) or not isinstance(weights, list),
            "export.interpolation",
            "one weight: to choose among several, evaluation.suites needs a suite whose name starts with 'retention' "
            "and another",
        ),
        (export["max_drop"] >= 0, "export.max_drop", "0 or more"),
        (0 <= export["gain_share"] <= 1, "export.gain_share", "between 0 and 1"),
    ]
    for holds, key, expected in rules:
        if not holds:
            raise UserError(f"{key}={_value(config, key)}: expected {expected}")


def _has_both_kinds(suites: Mapping[str, Any]) -> bool:
    return len({name.startswith("retention") for name in suites}) == 2


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value
