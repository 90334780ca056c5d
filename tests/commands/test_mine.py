"""``retrofit mine`` from outside, and the negatives it leaves for ``retrofit train``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tests.commands.forked import retrofit


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


SMALL_SHARDS = """
import sys
import retrofit.models.embeddings as embeddings
from retrofit.commands.mine import main
embeddings._TEXTS_A_SHARD = 4
sys.argv = ["mine.py", *sys.argv[1:]]
main()
"""


def test_a_killed_miner_goes_on_and_ends_with_the_same_negatives(tmp_path: Path, tiny_source: list[str]) -> None:
    overrides = [*tiny_source, "model=tiny", "data_scale=n125", "languages=all"]

    def start(place: Path) -> subprocess.Popen[str]:
        place.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", SMALL_SHARDS, *overrides], cwd=place, encoding="utf-8", stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env={**os.environ, "RETROFIT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    def shards(place: Path) -> list[Path]:
        return [path for path in (place / "cache").glob("embeddings/*/shards/*") if not path.name.startswith(".")]

    def negatives(place: Path) -> bytes:
        (found,) = (place / "cache" / "negatives").glob("*/homes.npy")
        return found.read_bytes()

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    assert process.wait(300) == 0
    process = start(killed)
    waited = time.monotonic()
    while len(shards(killed)) < 3:
        assert process.poll() is None
        assert time.monotonic() - waited < 300
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = {path: path.stat().st_mtime_ns for path in shards(killed)}
    assert 3 <= len(made) < len(shards(whole))
    assert not list((killed / "cache").glob("negatives/*/homes.npy"))

    truncated = next(iter(made)) / "vectors.npy"
    truncated.write_bytes(truncated.read_bytes()[:-8])
    process = start(killed)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert "is damaged" in log
    kept = {path: path.stat().st_mtime_ns for path in shards(killed)}
    assert all(kept[path] == at for path, at in made.items() if path != truncated.parent)
    assert negatives(killed) == negatives(whole)


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("negatives=in_batch", "retrofit mine: negatives.mined=None: expected "),
        ("negatives.mined.count=0", "retrofit mine: negatives.mined.count=0: expected "),
        ("negatives.mined.languages=others", "retrofit mine: negatives.mined.languages=others: expected one of "),
        ("negatives.mined.near_duplicates=2", "retrofit mine: negatives.mined.near_duplicates=2: expected "),
        ("negatives.mined.pool=all", "retrofit mine: negatives.mined.pool=all: expected one of selection, source"),
        (
            "negatives=bm25 negatives.mined.refresh_every_steps=5",
            "retrofit mine: negatives.mined.refresh_every_steps=5: expected null unless the model that is trained",
        ),
        (
            "negatives.mined.refresh_every_epochs=1 negatives.mined.refresh_every_steps=5",
            "retrofit mine: negatives.mined.refresh_every_steps=5: expected null where",
        ),
        ("+negatives.mined.veto={model:null,reranker:null,margin:0}", "retrofit mine: negatives.mined.veto="),
        ("tried_filters=[{margn:0.1}]", "retrofit mine: tried_filters=[{'margn': 0.1}]: expected filters of negatives"),
        (
            "tried_filters=[{margin:null}]",
            "retrofit mine: tried_filters=[{'margin': None}]: expected for margin a number",
        ),
        ("tried_filters=[{veto:5}]", "retrofit mine: tried_filters=[{'veto': 5}]: expected for veto a mapping"),
        ("tried_filters=null", "retrofit mine: tried_filters=None: expected a list of mappings"),
        ("languages.languages=[de,false]", "retrofit mine: languages.languages=['de', False]: expected a list"),
        ("negatives.mined.first_rank=51", "retrofit mine: negatives.mined.first_rank=51: expected at most "),
    ],
)
def test_what_cannot_be_carried_out_is_one_line(tmp_path: Path, override: str, start: str) -> None:
    done = retrofit(tmp_path, "mine", *override.split(" "))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(start)
    assert list(tmp_path.iterdir()) == []
