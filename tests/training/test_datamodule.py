"""The batches of a resumed run are those of one that went on, on every process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from retrofit.data.batching import BatchContents, PlannedBatches, TokenBatch
from retrofit.data.records import Pair, to_table
from retrofit.data.sampling import Homogeneous, Mixture, SamplingPlan
from retrofit.data.selection import strata
from retrofit.training.datamodule import RetrievalDataModule

STEPS = 40
TABLE = to_table(
    [
        Pair(f"q{n}", (f"{language} a{n}", f"{language} b{n}"), "field_help", language, language, "s", f"g{n}", "train")
        for language in ("de", "en")
        for n in range(20)
    ]
)


def letters(texts: Sequence[str], kind: str) -> list[list[int]]:
    return [[ord(kind[0]), *map(ord, text)] for text in texts]


def loader(homogeneous: Homogeneous, rank: int, world_size: int, done: int, workers: int = 0) -> Iterator[TokenBatch]:
    """The batches left after some steps, as one of several processes gets them: 40 pairs, three passes."""
    rows = np.arange(len(TABLE))
    plan = SamplingPlan(strata(TABLE, rows), 3, STEPS, Mixture(homogeneous=homogeneous), 0)
    module = RetrievalDataModule(
        PlannedBatches(TABLE, plan, letters, BatchContents(random_negatives=1, anchors=2), rows), workers
    )
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)  # type: ignore[assignment]
    module.load_state_dict({"done": done})
    return iter(module.train_dataloader())


def same(first: TokenBatch, second: TokenBatch) -> bool:
    plain = [(batch.token_ids, batch.anchors, batch.n_queries, batch.n_anchors) for batch in (first, second)]
    tensors = ("relevance", "query_ids", "passage_ids", "answers")
    return plain[0] == plain[1] and all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)


@pytest.mark.parametrize("homogeneous", get_args(Homogeneous))
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_resumed_run_gets_the_batches_of_a_continued_one(homogeneous: Homogeneous, world_size: int) -> None:
    for rank in range(world_size):
        continued = list(loader(homogeneous, rank, world_size, 0))
        assert len(continued) == STEPS
        assert len({str(batch.token_ids) for batch in continued}) > STEPS // 2
        for done in (1, 13, 14, 27, 39):
            resumed = list(loader(homogeneous, rank, world_size, done))
            assert len(resumed) == STEPS - done
            assert all(map(same, resumed, continued[done:]))


def test_batches_drawn_ahead_by_other_processes_are_the_same() -> None:
    alone, ahead = (list(loader("task", 1, 2, 27, workers)) for workers in (0, 2))
    assert len(alone) == len(ahead) == STEPS - 27
    assert all(map(same, alone, ahead))
