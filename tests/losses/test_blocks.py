"""What a loss holds of a step, and that blocks change nothing of what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from retrofit.losses import blocks
from retrofit.losses.blocks import over_blocks
from retrofit.losses.distillation import Distillation
from retrofit.losses.guided import Guided
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.matryoshka import Matryoshka
from retrofit.losses.passage_queue import WithQueue
from retrofit.losses.step import Objective, StepEmbeddings
from retrofit.losses.temperature import Temperature

Step = Callable[..., StepEmbeddings]
QUERIES, PASSAGES = 60, 80
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "info_nce": lambda: InfoNCE(0.1),
    "symmetric": lambda: InfoNCE(0.1, symmetric_weight=0.5),
    "hardness": lambda: InfoNCE(0.1, hardness=0.5, symmetric_weight=0.5),
    "learnt_temperature": lambda: InfoNCE(0.1, learn_temperature=True),
    "matryoshka": lambda: Matryoshka(InfoNCE(0.1), [8, 4]),
    "guided": lambda: Guided(InfoNCE(0.1), 0.1, in_batch_only=True),
    "kl": lambda: Distillation(Temperature(0.1), "kl", 0.1),
    "margin_mse": lambda: Distillation(Temperature(0.1), "margin_mse", 0.1),
    "queue": lambda: WithQueue(InfoNCE(0.1), 40, 8, 5),
}


class LargestMade(TorchDispatchMode):
    """Notes the entries of the largest tensor of floats that any operation makes.

    Attributes:
        entries: of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


def kept_entries(objective: Objective, step: StepEmbeddings) -> tuple[Tensor, int]:
    """Return the loss and how many floats are kept for its backward pass, the step's own embeddings left out."""
    own = {part.untyped_storage().data_ptr() for part in (step.queries, step.passages)}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective(step)
    return loss, sum(sizes.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_table_of_all_queries_and_passages_is_made_or_kept(
    random_step: Step, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    step = random_step(queries=QUERIES, passages=PASSAGES)
    objective = OBJECTIVES[name]().double()
    table = QUERIES * PASSAGES
    whole, kept_whole = kept_entries(objective, step)
    assert kept_whole >= table, "in one block the tables are seen"
    del whole

    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", table // 20)
    step, objective = random_step(queries=QUERIES, passages=PASSAGES), OBJECTIVES[name]().double()
    with LargestMade() as made:
        loss, kept = kept_entries(objective, step)
        loss.backward()
    assert made.entries <= table // 4
    assert kept <= table // 4
    assert step.queries.grad is not None


def test_a_step_that_fits_is_taken_as_it_is(random_step: Step) -> None:
    step, seen = random_step(), []
    over_blocks(lambda block: seen.append(block) or block.queries, step)  # type: ignore[func-returns-value]
    assert seen == [step]
    assert seen[0] is step


def test_blocks_hold_what_belongs_to_their_queries(random_step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 30)
    step = random_step(queries=7)
    seen: list[StepEmbeddings] = []

    def note(block: StepEmbeddings) -> Tensor:
        seen.append(block)
        return block.teacher_scores

    with torch.no_grad():
        scores = over_blocks(note, step)
    assert [len(block.queries) for block in seen] == [3, 3, 1]
    torch.testing.assert_close(scores, step.teacher_scores)
    for number, block in enumerate(seen):
        own = step.relevance[3 * number : 3 * number + 3]
        assert torch.equal(block.relevance, own)
        places = block.answers[:, 0]
        columns = block.answers[:, 1] - step.passage_ids[0]
        assert torch.equal(torch.stack([places, columns], dim=1), (own >= 0).nonzero())


def test_blocks_of_passages_hold_all_queries(random_step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 16)
    step = random_step()
    seen: list[StepEmbeddings] = []
    turned = over_blocks(lambda block: seen.append(block) or block.teacher_scores.T, step, of="passages")  # type: ignore[func-returns-value]
    torch.testing.assert_close(turned, step.teacher_scores.T)
    assert [len(block.passages) for block in seen] == [4, 4, 1]
    assert torch.equal(torch.cat([block.relevance for block in seen], dim=1), step.relevance)
    assert torch.equal(torch.cat([block.passage_ids for block in seen]), step.passage_ids)


def test_in_float32_blocks_agree_to_a_millionth(random_step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for entries in (2**20, 500):
        monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
        step = random_step(queries=QUERIES, passages=PASSAGES)
        queries, passages = (part.detach().float().requires_grad_() for part in (step.queries, step.passages))
        loss = InfoNCE(0.02, 0.3)(dataclasses.replace(step, queries=queries, passages=passages))
        loss.backward()
        found.append((loss, queries.grad, passages.grad))
    for one, several in zip(*found, strict=True):
        torch.testing.assert_close(several, one, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_step_of_nothing_costs_nothing(random_step: Step, weight: float) -> None:
    step = random_step()
    nothing = dataclasses.replace(
        step, queries=step.queries[:0], passages=step.passages[:0], relevance=step.relevance[:0, :0],
        passage_ids=step.passage_ids[:0], answers=step.answers[:0],
    )  # fmt: skip
    loss = InfoNCE(0.1, weight)(nothing)
    loss.backward()
    assert loss.item() == 0
