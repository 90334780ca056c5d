"""The rules that a model, its adapter and what optimises its weights must keep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from retrofit.models.bi_encoder import Kind, Pooling
from retrofit.training.allowed_values import Number


def model_rules(key: str, model: Any, *, prompted: bool = False) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules for a model that encodes; None is none.

    Args:
        key: where it stands in the configuration.
        model: it.
        prompted: whether its prompts must be said, as no folder has them that it is used with.
    """
    if model is None:
        return
    named = isinstance(model, Mapping) and "checkpoint" in model
    yield named, key, f"a model with a checkpoint, such as model@{key}=embedded"
    yield model["pooling"] in (None, *get_args(Pooling)), f"{key}.pooling", "mean or cls, or null"
    length = Number("", 8, whole=True, optional=True)
    yield length.allows(model["max_length"]), f"{key}.max_length", str(length)
    prompts = model["prompts"]
    texts = isinstance(prompts, Mapping) and all(isinstance(prompts.get(kind), str) for kind in get_args(Kind))
    expected = "a text for query and one for passage, each of which may be empty: {query: '', passage: ''}"
    yield texts or (prompts is None and not prompted), f"{key}.prompts", expected


def adapter_rules(adapter: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of ``adapter``."""
    layers = adapter["layers"]
    numbers = layers if isinstance(layers, list) else [layers]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers) and numbers != []
    expected = "null, the number of the first layers, of the last ones with a minus, or a list of numbers"
    yield layers is None or whole, "adapter.layers", expected
    targets = (adapter["config"] or {}).get("target_modules")
    names = isinstance(targets, list) and all(isinstance(name, str) for name in targets)
    expected = "all-linear, a list of names of modules, or a regular expression"
    yield targets is None or names or _is_pattern(targets), "adapter.config.target_modules", expected
    biases = (adapter["config"] or {}).get("bias", "none")
    yield layers is None or biases != "all", "adapter.config.bias", "none or lora_only with adapter.layers"
    full = adapter["config"] is None
    trains = adapter["train_embeddings"]
    yield (
        trains in ((True, False) if full else (False,)),
        "adapter.train_embeddings",
        ("true or false" if full else "false: with adapter=full alone the word embeddings can learn"),
    )


def optimizer_rules(optimizer: Mapping[str, Any], learning_rate: Any) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of ``optimizer.optimizer``.

    Args:
        optimizer: the keyword arguments of its class.
        learning_rate: that of the adapter, for an optimizer that has none of its own.
    """
    rate = Number("optimizer.optimizer.lr", 0, above=True)
    expected = f"{rate}, or as it was: adapter.learning_rate sets it"
    yield rate.allows(optimizer.get("lr", learning_rate)), rate.key, expected
    decay = Number("optimizer.optimizer.weight_decay", 0)
    yield decay.allows(optimizer.get("weight_decay", 0)), decay.key, str(decay)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False
