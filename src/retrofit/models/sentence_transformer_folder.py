"""What a sentence-transformers folder says of its model, read without loading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retrofit.models.bi_encoder import Kind
from retrofit.models.prompts import passage_prompt

MODULES = "modules.json"
"""The file that makes a folder one of sentence-transformers."""

_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where the settings of the encoder are looked for, in this order: older folders name the file by the architecture."""

_NO_LIMIT = 10**9  # transformers writes 10^30 for a tokenizer without one
_POOLINGS = {"mean": "mean", "cls": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def modules_of(folder: Path) -> list[tuple[str, Path]]:
    """Return the name of the class and the folder of each module, in their order; none of another kind of folder."""
    return [(str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in _json(folder / MODULES, [])]


def prompts_of(folder: Path) -> dict[Kind, str]:
    """Return what a folder puts before a query and before a passage; empty where it says nothing."""
    stored = _json(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    return {"query": stored.get("query") or "", "passage": passage_prompt(stored)}


def bi_encoder_settings(folder: Path) -> dict[str, Any] | None:
    """Return ``pooling``, ``prompts`` and ``max_length`` of a plain bi-encoder; None of any other model.

    Plain is a transformers encoder whose token vectors are pooled in one of the ways that
    :class:`~retrofit.models.bi_encoder.BiEncoder` knows, and nothing else but their length changed.
    """
    modules = modules_of(folder)
    names = [name for name, _ in modules]
    if names not in (["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"]) or modules[0][1] != folder:
        return None
    transformer: dict[str, Any] = next(filter(None, (_json(folder / name, {}) for name in _SETTINGS)), {})
    plain = not transformer.get("do_lower_case") and not _json(folder / "config.json", {}).get("is_encoder_decoder")
    pooling, max_length = _pooling(_json(modules[1][1] / "config.json", {})), _max_length(folder, transformer)
    if not plain or pooling is None or not max_length or not any(folder.glob("*.safetensors")):
        return None
    return {"pooling": pooling, "prompts": prompts_of(folder), "max_length": max_length}


def _max_length(folder: Path, transformer: dict[str, Any]) -> int | None:
    """Return the tokens after which sentence-transformers cuts a text; None where it does not."""
    if transformer.get("max_seq_length"):
        return int(transformer["max_seq_length"])
    of_tokenizer = _json(folder / "tokenizer_config.json", {}).get("model_max_length")
    positions = _json(folder / "config.json", {}).get("max_position_embeddings")
    limits = [int(limit) for limit in (of_tokenizer, positions) if limit and 0 < limit < _NO_LIMIT]
    return min(limits, default=None)


def _pooling(config: dict[str, Any]) -> str | None:
    if not config.get("include_prompt", True):
        return None
    flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    modes = flags or [str(config.get("pooling_mode"))]
    return _POOLINGS.get(modes[0]) if len(modes) == 1 else None


def _json(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise
