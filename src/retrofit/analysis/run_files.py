"""The files of a run folder: each is read whole, or refused in one line that names it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml

from retrofit.errors import UserError, one_line

METRIC_COLUMNS = {
    "model": str,
    "suite": str,
    "task": str,
    "query_language": str,
    "document_language": str,
    "seen_in_training": bool,
    "metric": str,
    "value": float,
    "n_queries": int,
}
INTERPOLATION_COLUMNS = {"weight": float, "gain": float, "retention": float, "languages_down": int, "chosen": bool}
CURVE_COLUMNS = {"step": int, "loss": float}

MODELS = ("base", "retrofitted")

Content = TypeVar("Content")


def read_config(folder: Path, key: str) -> dict[str, Any]:
    """Return ``config.yaml``, which has the key."""
    return _read(folder / "config.yaml", lambda path: _mapping(yaml.safe_load(_text(path)), key))


def read_figures(folder: Path, key: str) -> dict[str, Any]:
    """Return ``metrics.json``, which has the key: ``headline`` by suite, ``seconds``, ``machine``."""

    def read(path: Path) -> dict[str, Any]:
        figures = _mapping(json.loads(_text(path)), key)
        if not isinstance(figures[key], dict):
            raise ValueError(f"expected a mapping as {key!r}")
        return figures

    return _read(folder / "metrics.json", read)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return ``data_manifest.json``: what the run is made of."""
    key = "pairs_by_task_and_language"
    return _read(folder / "data_manifest.json", lambda path: _mapping(json.loads(_text(path)), key))


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """Return ``examples.json``: queries with the top passages of both models."""
    return _read(folder / "examples.json", lambda path: _list(json.loads(_text(path))))


def read_metrics(folder: Path) -> pd.DataFrame:
    """Return ``metrics.csv``, with rows of both models."""
    return _read(folder / "metrics.csv", lambda path: _table(path, METRIC_COLUMNS))


def read_interpolation(folder: Path) -> pd.DataFrame:
    """Return ``interpolation.csv``: what each weight that was tried did on the validation split."""
    return _read(folder / "interpolation.csv", lambda path: _table(path, INTERPOLATION_COLUMNS))


def read_curve(folder: Path, *figures: str) -> pd.DataFrame:
    """Return ``training_curve.csv``, with the loss and some further figures by step."""
    columns = CURVE_COLUMNS | dict.fromkeys(figures, float)
    return _read(folder / "training_curve.csv", lambda path: _table(path, columns))


def read_scores(folder: Path, model: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns of ``queries_base.parquet`` or ``queries_retrofitted.parquet``: the scores of every query."""
    return _read(folder / f"queries_{model}.parquet", lambda path: pd.read_parquet(path, columns=list(columns)))


def _read(path: Path, reader: Callable[[Path], Content]) -> Content:
    try:
        return reader(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: expected the folder of a finished run (retrofit train)") from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = one_line(error)[:200]
        raise UserError(f"{path} cannot be read: {reason}; delete the run folder and train again") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _table(path: Path, columns: Mapping[str, type]) -> pd.DataFrame:
    # Strings as they stand: pandas would take a language or task spelled "NA" or "null" for a missing value.
    texts = {name: str for name, kind in columns.items() if kind is str}
    numbers = {name: [""] for name, kind in columns.items() if kind is not str}
    frame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=numbers)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"no column {missing[0]!r}")
    if frame.empty:
        raise ValueError("it holds no rows")
    present = set(frame["model"]) if "model" in columns else set(MODELS)
    if not present.issuperset(MODELS):
        raise ValueError(f"expected rows of both models, base and retrofitted, found {sorted(present)}")
    return frame.astype({name: kind for name, kind in columns.items() if kind is not str})


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"expected a mapping with the key {key!r}")
    return value


def _list(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError("expected a list of mappings")
    return value
