"""What tests of several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def in_process(small_run: list[str], train_config: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Return a function that carries out a run in this process and returns its folder."""
    from retrofit.training.configuration import check
    from retrofit.training.retrofit import retrofit
    from retrofit.training.run_folder import RunFolder

    def run(place: Path, *overrides: str) -> Path:
        config = train_config(
            *small_run, f"paths.runs='{place / 'runs'}'", f"paths.cache='{place / 'cache'}'", *overrides
        )
        check(config)
        folder = RunFolder.of(config | {"paths": {}}, place / "runs")
        folder.start(yaml.safe_dump(config))
        with folder.outcome():
            retrofit(config, folder)
        return folder.path

    return run
