"""Negatives mined anew in training: by the weights of the moment, and nothing else changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retrofit.data.sampling import Mixture, steps_of_passes
from retrofit.data.storage import PairSource
from retrofit.errors import UserError
from retrofit.models.adapters import apply_adapter, merged_weights
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.embeddings import EmbeddingStore
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel
from retrofit.negatives.mining import Miner
from retrofit.negatives.pool import MiningPool
from retrofit.training.refresh import CurrentNegatives, RefreshNegatives, steps_between


def at(step: int, total: int = 12) -> Any:
    """A trainer that has done so many steps."""
    return SimpleNamespace(global_step=step, num_training_batches=total)


@pytest.fixture
def miner(corpus: Path, tiny: Path, train_config: Callable[..., dict[str, Any]], tmp_path: Path) -> Miner:
    table = PairSource.open(corpus).pairs
    settings = {**train_config("negatives=dense")["negatives"]["mined"], "fill": False}
    model = SearchModel(tiny, "mean", {"query": "query: ", "passage": "passage: "}, 128)
    pool = MiningPool.of(table, np.arange(0, len(table), 3))
    return Miner(pool, model, settings, EncodingSettings("float32", 512), EmbeddingStore(tmp_path / "cache"))


@pytest.fixture
def refresh(miner: Miner, load_tiny: Callable[..., BiEncoder], tmp_path: Path) -> RefreshNegatives:
    import peft

    encoder = load_tiny()
    apply_adapter(encoder, peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False))
    encoder.train()
    return RefreshNegatives(tmp_path / "run", miner, encoder, CurrentNegatives(miner.mine()), every=4)


def end_of(refresh: RefreshNegatives, step: int) -> None:
    refresh.on_train_batch_end(at(step), None, None, None, 0)  # type: ignore[arg-type]


def test_it_is_time_every_few_steps_and_never_after_the_last(refresh: RefreshNegatives) -> None:
    seen = [refresh.current.mined]
    for step in range(1, 13):
        end_of(refresh, step)
        if refresh.current.mined is not seen[-1]:
            seen.append(refresh.current.mined)
            assert step in (4, 8)
    assert len(seen) == 3
    # The weights did not change in between, so what they find did not either.
    np.testing.assert_array_equal(seen[1].homes, seen[2].homes)


def test_the_weights_of_the_moment_search_and_stay_as_they_are(
    refresh: RefreshNegatives, miner: Miner, tiny: Path, tmp_path: Path
) -> None:
    first = refresh.current.mined.homes
    before = {name: weight.clone() for name, weight in refresh.encoder.state_dict().items()}
    end_of(refresh, 4)
    assert refresh.encoder.training
    assert all(torch.equal(weight, before[name]) for name, weight in refresh.encoder.state_dict().items())
    assert not (refresh.current.mined.homes == first).all()

    encoder = miner.model.load()
    assert isinstance(encoder, BiEncoder)
    encoder.backbone.load_state_dict(merged_weights(refresh.encoder))
    encoder.backbone.save_pretrained(tmp_path / "merged")
    encoder.tokenizer.save_pretrained(tmp_path / "merged")
    assert isinstance(miner.model, SearchModel)
    merged = dataclasses.replace(miner, model=dataclasses.replace(miner.model, folder=tmp_path / "merged"))
    expected = merged.mine().homes
    assert (refresh.current.mined.homes == expected).mean() > 0.98  # merging rounds, so a near tie may turn


def test_a_model_that_stays_as_it_is_encodes_once(
    refresh: RefreshNegatives, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = {
        "checkpoint": {"_target_": "pathlib.Path", "_args_": [str(tiny)]}, "pooling": "cls", "max_length": 64,
        "prompts": {"query": "", "passage": ""},
    }  # fmt: skip
    veto = {"model": judge, "reranker": None, "margin": 0.1}
    refresh.miner = dataclasses.replace(refresh.miner, settings={**refresh.miner.settings, "veto": veto})
    loaded = []
    load = SearchModel.load
    monkeypatch.setattr(SearchModel, "load", lambda self, *rest: loaded.append(self.pooling) or load(self, *rest))
    for step in (4, 8):
        end_of(refresh, step)
    assert loaded == ["cls", "cls"]  # for queries and for passages
    assert not list((tmp_path / "run").rglob("vectors.npy"))


def test_a_resumed_run_takes_up_what_was_mined(refresh: RefreshNegatives, miner: Miner) -> None:
    end_of(refresh, 4)
    mined = refresh.current.mined
    resumed = RefreshNegatives(refresh.run, miner, refresh.encoder, CurrentNegatives(miner.mine()), every=4)
    with torch.no_grad():  # later weights, which must not matter
        for parameter in refresh.encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    resumed.on_train_start(at(6), None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(resumed.current.mined.homes, mined.homes)
    with pytest.raises(UserError, match="the negatives of step 8 are missing"):
        resumed.on_train_start(at(9), None)  # type: ignore[arg-type]
    resumed.on_train_start(at(8), None)  # type: ignore[arg-type]
    assert not (resumed.current.mined.homes == mined.homes).all()
    assert not list(refresh.run.rglob("vectors.npy")), "embeddings of passing weights are not kept"


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"), [(None, None, None), (7, None, 7), (None, 0.5, 8), (None, 0.001, 1)]
)
def test_how_often(steps: int | None, epochs: float | None, expected: int | None) -> None:
    settings = {"refresh_every_steps": steps, "refresh_every_epochs": epochs}
    strata = {("task", "de", "de"): np.arange(1000)}
    assert steps_between(settings, lambda passes: steps_of_passes(strata, 64, passes, Mixture())) == expected
