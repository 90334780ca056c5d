"""How large a model is, read from its files without loading it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrofit.models.checkpoints import decisive_files
from retrofit.models.sentence_transformer_folder import modules_of


@dataclass(frozen=True)
class ModelSize:
    """How large a model is; None where that cannot be known.

    Attributes:
        parameters: number of its weights.
        dimension: number of components of an embedding; None also for a model that has none.
        megabytes: of its files, 10^6 bytes.
    """

    parameters: int | None
    dimension: int | None
    megabytes: float | None


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the floating-point tensors in a folder's safetensors files, by name; deeper ones too."""
    return {name: shape for path in sorted(folder.rglob("*.safetensors")) for name, shape in _shapes(path)}


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 -- no mapping
            part = file.get_slice(name)
            if "F" in part.get_dtype():  # F32, BF16, F8_E4M3 and their like
                yield name, tuple(part.get_shape())


def size_of_folder(folder: Path) -> ModelSize:
    """Return the size of a transformers or sentence-transformers folder.

    Weights are counted as they are stored, a pooling layer that nobody uses with them; they are not known where there
    are others than safetensors files.
    """
    # Files of several modules may use one name for their tensors.
    shapes = [shape for path in sorted(folder.rglob("*.safetensors")) for _, shape in _shapes(path)]
    parameters = sum(map(math.prod, shapes)) if shapes and not any(folder.rglob("*.bin")) else None
    return ModelSize(parameters, _dimension(folder), sum(path.stat().st_size for path in decisive_files(folder)) / 1e6)


def _dimension(folder: Path) -> int | None:
    found = _number(folder / "config.json", "hidden_size", "d_model", "dim")
    for name, module in modules_of(folder):
        if name == "Pooling":
            found = _number(module / "config.json", "embedding_dimension", "word_embedding_dimension")
        elif name == "Dense":
            found = _number(module / "config.json", "out_features")
        elif name == "StaticEmbedding":
            found = next((shape[1] for shape in stored_shapes(module).values() if len(shape) == 2), None)
    return found


def _number(path: Path, *keys: str) -> int | None:
    if not path.is_file():
        return None
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return next((int(config[key]) for key in keys if config.get(key)), None)
