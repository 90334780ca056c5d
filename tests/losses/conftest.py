"""Steps to take losses of, and loops to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from retrofit.losses import blocks
from retrofit.losses.step import StepEmbeddings

Reference = Callable[[StepEmbeddings], Tensor]


def unit(generator: torch.Generator, count: int, dimension: int) -> Tensor:
    vectors = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


@pytest.fixture
def random_step() -> Callable[..., StepEmbeddings]:
    """Return a function that makes a step in float64: a positive, masked passages and negatives for each query."""

    def make(seed: int = 0, queries: int = 4, passages: int = 9, first_id: int = 100) -> StepEmbeddings:
        generator = torch.Generator().manual_seed(seed)
        relevance = torch.randint(-1, 1, (queries, passages), generator=generator, dtype=torch.int8)
        relevance[torch.arange(queries), torch.arange(queries)] = 1
        relevance[:, -1] = -1  # everyone has a negative that is nobody's positive
        ids = torch.arange(first_id, first_id + passages)
        rows, columns = (relevance >= 0).nonzero(as_tuple=True)
        return StepEmbeddings(
            unit(generator, queries, 8).requires_grad_(),
            unit(generator, passages, 8).requires_grad_(),
            relevance,
            ids,
            torch.stack([rows, ids[columns]], dim=1),
            unit(generator, queries, 5),
            unit(generator, passages, 5),
        )

    return make


@pytest.fixture
def assert_equals(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that compares an objective with a reference: the loss, and all gradients.

    It does so with the step as one block, as blocks of unequal size, and one query at a time. What the objective keeps
    of a step it keeps of the last of them.
    """

    def check(objective: nn.Module, reference: Reference, step: StepEmbeddings, learnt: Sequence[Tensor] = ()) -> None:
        leaves = [step.queries, step.passages, *learnt]
        expected = reference(step)
        wanted = torch.autograd.grad(expected, leaves, allow_unused=True)
        assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in wanted)
        before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
        for entries in (2**20, 3 * len(step.passages), 1):
            monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
            objective.load_state_dict(before)
            loss = objective(step)
            assert loss.item() == pytest.approx(expected.item(), abs=1e-9, rel=1e-6)
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
            for gradient, other in zip(found, wanted, strict=True):
                assert gradient is not None
                assert other is not None
                torch.testing.assert_close(gradient, other, atol=1e-7, rtol=1e-5)

    return check


@pytest.fixture
def loop_info_nce() -> Callable[..., Tensor]:
    """Return InfoNCE as loops over queries and passages, one number at a time."""

    def loss(step: StepEmbeddings, inverse: Tensor | float, hardness: float = 0.0) -> Tensor:
        terms = []
        for query, marks in zip(step.queries, step.relevance.tolist(), strict=True):
            scores = [(query * passage).sum() * inverse for passage in step.passages]
            negatives = [score for score, mark in zip(scores, marks, strict=True) if mark == -1]
            weights = [torch.exp(hardness * score.detach()) for score in negatives]
            mean = sum(weights) / max(1, len(weights))
            others = sum(weight / mean * torch.exp(score) for weight, score in zip(weights, negatives, strict=True))
            for score, mark in zip(scores, marks, strict=True):
                if mark == 1:
                    terms.append(-torch.log(torch.exp(score) / (torch.exp(score) + others)))
        return torch.stack(terms).mean()

    return loss
