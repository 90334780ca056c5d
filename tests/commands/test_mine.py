"""``retrofit mine`` from outside, and the negatives it leaves for ``retrofit train``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest


def retrofit(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "retrofit", *arguments], capture_output=True, encoding="utf-8", cwd=place, timeout=300,
        check=False, env={**os.environ, "RETROFIT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


@pytest.fixture
def tiny_source(small_run: list[str]) -> list[str]:
    """The overrides that put the tiny corpus in place of the embedded one."""
    return [override for override in small_run if "data_source." in override or "evaluation.sources" in override]


def test_negatives_are_mined_shown_and_used_by_a_run(
    tmp_path: Path, tiny_source: list[str], small_run: list[str]
) -> None:
    done = retrofit(tmp_path, "mine", *tiny_source, "model=tiny", "data_scale=n125", "languages=all")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "mining").iterdir()
    report = json.loads((folder / "mining.json").read_text(encoding="utf-8"))
    assert report["queries"] > 0
    rates = pd.read_csv(folder / "false_negatives.csv")
    rates = rates.set_index("filters")
    margins = ["none", *(f"margin {margin:g}" for margin in (0, 0.01, 0.02, 0.05, 0.1))]
    assert (rates.loc[margins, "negatives"].diff().dropna() <= 0).all()
    assert (rates["negatives"] <= rates.loc["none", "negatives"]).all()
    assert "negatives left" in done.stdout
    mined = {path.name for path in (tmp_path / "cache" / "negatives").iterdir() if path.is_dir()}

    trained = retrofit(tmp_path, "train", *small_run, "negatives=dense_filtered")
    assert trained.returncode == 0, trained.stderr
    assert {path.name for path in (tmp_path / "cache" / "negatives").iterdir() if path.is_dir()} == mined
    (run,) = (tmp_path / "runs" / "train").iterdir()
    curve = pd.read_csv(run / "training_curve.csv")
    plain = 3 + 1e-9
    assert (curve["negatives_per_query"] > plain).any()
    assert json.loads((run / "mining.json").read_text(encoding="utf-8")) == report


def test_two_processes_of_a_ray_cluster_find_the_same(tmp_path: Path, tiny_source: list[str]) -> None:
    pytest.importorskip("ray")
    found = {}
    for engine in (["engine=local"], ["engine=ray", "engine.workers=2"]):
        place = tmp_path / engine[0].removeprefix("engine=")
        place.mkdir()
        done = retrofit(place, "mine", *tiny_source, "model=tiny", "data_scale=n125", "languages=all", *engine)
        assert done.returncode == 0, done.stderr
        files = [*place.glob("cache/negatives/*/*.npy"), *place.glob("cache/embeddings/*/shards/*/*.npy")]
        assert len(files) == 2 + 2 * 2  # rows and homes; ids and vectors, of queries and of passages
        files += place.glob("runs/mining/*/false_negatives.csv")
        found[place.name] = {path.relative_to(place): path.read_bytes() for path in files}
    assert found["ray"] == found["local"]


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("negatives=in_batch", "retrofit mine: negatives.mined=None: expected "),
        ("negatives.mined.count=0", "retrofit mine: negatives.mined.count=0: expected "),
        ("negatives.mined.languages=others", "retrofit mine: negatives.mined.languages=others: expected one of "),
        ("negatives.mined.first_rank=51", "retrofit mine: negatives.mined.first_rank=51: expected at most "),
    ],
)
def test_what_cannot_be_carried_out_is_one_line(tmp_path: Path, override: str, start: str) -> None:
    done = retrofit(tmp_path, "mine", override)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(start)
    assert list(tmp_path.iterdir()) == []
