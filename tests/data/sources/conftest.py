import copy
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from retrofit.commands.application import configuration_folder
from retrofit.data.storage import PairSource
from retrofit.instantiation import instantiate

Build = Callable[..., PairSource]
WriteLines = Callable[[str, Iterable[Mapping[str, Any]]], Path]


@functools.cache
def _configuration(name: str) -> DictConfig:
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        return compose("train", [f"data_source={name}"])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def build(cache: Path) -> Build:
    """Builds a data source from its YAML file and overrides of its keys."""

    def of(name: str, /, **overrides: Any) -> PairSource:
        config = copy.deepcopy(_configuration(name))
        config.paths.cache = str(cache)
        for key, value in overrides.items():
            OmegaConf.update(config.data_source, key.replace("__", "."), value, force_add=True)
        resolved: Any = OmegaConf.to_container(config.data_source, resolve=True)
        return PairSource.open(instantiate(resolved["pairs"]))

    return of


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Writes objects to a JSON Lines file below the temporary folder."""

    def to(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return to


@pytest.fixture
def texts() -> Callable[[PairSource], dict[str, list[str]]]:
    """Returns the positives of a source by query."""

    def of(source: PairSource) -> dict[str, list[str]]:
        return {row["query"]: row["positives"] for row in source.pairs.to_pylist()}

    return of
