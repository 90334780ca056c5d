"""Engines: the same results in the same order, in this process or in two processes of a real Ray cluster."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrofit.data.curation.artefact import Curation
from retrofit.data.records import Pair, content_id, to_table
from retrofit.data.selection import select
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData
from retrofit.engine import LOCAL, Engine, RayEngine
from retrofit.errors import UserError
from retrofit.models import embeddings
from retrofit.models.embeddings import EmbeddingStore
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel
from retrofit.negatives.mined import MinedNegatives
from retrofit.negatives.mining import mine
from retrofit.negatives.search import DenseSearch

TEXTS = [f"text number {number} about {'lamps' if number % 2 else 'doors'}" for number in range(40)]
ENCODING = EncodingSettings("float32", 256)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayEngine]:
    ray_cloudpickle = pytest.importorskip("ray.cloudpickle")
    ray_cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the cluster cannot import a test module
    ray_engine = RayEngine(workers=2, address=None, cpus_per_worker=1, gpus_per_worker=0)
    yield ray_engine
    ray_engine.close()
    assert not sys.modules["ray"].is_initialized()


@pytest.fixture(params=["local", "ray"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = LOCAL if request.param == "local" else request.getfixturevalue("cluster")
    return found


@pytest.fixture
def model(tiny: Path) -> SearchModel:
    return SearchModel(tiny, "mean", {"query": "query: ", "passage": "passage: "}, 64)


def squares() -> Callable[[int], tuple[int, int]]:
    def work(item: int) -> tuple[int, int]:
        time.sleep(0.05 if item % 5 == 0 else 0)  # later items are done earlier
        return item * item, os.getpid()

    return work


def test_results_come_in_the_order_of_the_items(any_engine: Engine) -> None:
    assert [square for square, _ in any_engine.map(squares, range(60))] == [item * item for item in range(60)]
    assert list(any_engine.map(squares, [])) == []


def test_two_other_processes_work(cluster: RayEngine) -> None:
    processes = {process for _, process in cluster.map(squares, range(20))}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_items_are_taken_when_their_turn_comes(any_engine: Engine) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = any_engine.map(squares, items())
    assert taken == []
    for number, _ in enumerate(results):
        assert len(taken) <= number + 1 + 4 * 2 + 1
    assert taken == list(range(100))


def refusing() -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 3:
            raise UserError("three is not allowed")
        return item

    return work


def unmade() -> Callable[[int], int]:
    raise UserError("no such model")


def test_exceptions_of_a_worker_surface_as_they_are(any_engine: Engine) -> None:
    seen = []
    with pytest.raises(UserError, match=r"^three is not allowed$") as caught:
        seen.extend(any_engine.map(refusing, range(9)))
    assert type(caught.value) is UserError
    with pytest.raises(UserError, match=r"^no such model$"):
        list(any_engine.map(unmade, range(2)))
    assert len(list(any_engine.map(squares, range(3)))) == 3  # and it works on


class Killed:
    """Makes workers of which one is killed in the middle of an item, once or always."""

    def __init__(self, marker: Path, always: bool = False) -> None:
        self.marker, self.always = marker, always

    def __call__(self) -> Callable[[int], int]:
        def work(item: int) -> int:
            if item == 7 and (self.always or not self.marker.exists()):
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return item * item

        return work


def test_a_killed_worker_loses_nothing(cluster: RayEngine, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    assert list(cluster.map(Killed(marker), range(20))) == [item * item for item in range(20)]
    assert marker.exists()


def test_an_item_that_kills_each_worker_ends_in_a_line(cluster: RayEngine, tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(UserError, match=r"^engine=ray: processes were lost .*$"):
        seen.extend(cluster.map(Killed(tmp_path / "killed", always=True), range(20)))
    assert seen == [item * item for item in range(len(seen))]


def test_embeddings_are_the_same_bit_for_bit(
    cluster: RayEngine, model: SearchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_TEXTS_A_SHARD", 5)
    ids = np.array([content_id(text) for text in TEXTS], dtype=np.uint64)

    def shards(name: str, where: Engine) -> dict[Path, bytes]:
        store = EmbeddingStore(tmp_path / name)
        found = store.embed(model, "passage", ids, lambda at: [TEXTS[place] for place in at], ENCODING, where)
        sent = pickle.loads(pickle.dumps(found))  # noqa: S301 -- our own
        np.testing.assert_array_equal(sent.rows(np.arange(len(ids))), found.rows(np.arange(len(ids))))
        return {path.relative_to(tmp_path / name): path.read_bytes() for path in tmp_path.glob(f"{name}/**/*.npy")}

    local = shards("local", LOCAL)
    assert len(local) == 2 * 8
    assert shards("ray", cluster) == local


PAIRS = [
    Pair(
        f"{ask} {n}", (f"{say} {n} {n % 4}", f"{say} {n % 5} {n}"), "help", language, language, "made up", "g", "train"
    )
    for language, ask, say in (("de", "Frage", "Antwort"), ("en", "question", "answer"))
    for n in range(12)
]


@pytest.mark.parametrize("option", ["dense", "hybrid", "cross_lingual"])
def test_mined_negatives_are_the_same_bit_for_bit(
    cluster: RayEngine, train_config: Any, model: SearchModel, tmp_path: Path, option: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(embeddings, "_TEXTS_A_SHARD", 5)
    monkeypatch.setattr(DenseSearch, "queries_at_once", lambda self, k: 5)
    source = PairSource(Path("0123456789abcdef"), to_table(PAIRS), None, {})
    rows = select(source.pairs, "train")
    data = TrainingData(source, Curation(rows, source.pairs.slice(0, 0), {}), rows)
    settings = {**train_config(f"negatives={option}")["negatives"]["mined"], "margin": None}

    def mined(name: str, where: Engine) -> MinedNegatives:
        return mine(data, model, settings, ENCODING, tmp_path / name, where)

    local, ray = mined("local", LOCAL), mined("ray", cluster)
    np.testing.assert_array_equal(ray.homes, local.homes)
    assert {**ray.report, "seconds": None} == {**local.report, "seconds": None}
    assert (local.homes >= 0).any()


def unreachable(**_: Any) -> None:
    raise ConnectionError("no\nanswer")


def test_what_keeps_ray_from_working_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        missing = RayEngine(workers=2, address=None, cpus_per_worker=1, gpus_per_worker=0)
        assert list(missing.map(squares, [])) == []  # nothing to do needs no Ray
        with pytest.raises(UserError, match=r"engine=ray needs Ray: pip install -e '\.\[ray\]'"):
            list(missing.map(squares, [1]))
        missing.close()
    pytest.importorskip("ray")
    lost = RayEngine(workers=2, address="auto", cpus_per_worker=1, gpus_per_worker=0)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", unreachable)
    with pytest.raises(UserError, match=r"^engine.address=auto: no Ray cluster is reached there: no answer$"):
        list(lost.map(squares, [1]))
