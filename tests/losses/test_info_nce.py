"""InfoNCE against a reference written as two loops, loss and gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from retrofit.losses.info_nce import InfoNCE, info_nce
from retrofit.losses.step import StepEmbeddings

NO_ANSWERS = torch.empty(0, 2, dtype=torch.int64)


def reference(scores: np.ndarray, relevance: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over positives of -log(e^p / (e^p + sum of e^n)), and its gradient, term by term."""
    loss, gradient = 0.0, np.zeros_like(scores)
    positives = int((relevance == 1).sum())
    for row in range(len(scores)):
        negatives = [column for column in range(scores.shape[1]) if relevance[row, column] == -1]
        for column in range(scores.shape[1]):
            if relevance[row, column] != 1:
                continue
            terms = {other: math.exp(scores[row, other] - scores[row, column]) for other in negatives}
            total = 1 + sum(terms.values())
            loss += math.log(total) / positives
            gradient[row, column] += (1 / total - 1) / positives
            for other, term in terms.items():
                gradient[row, other] += term / total / positives
    return loss, gradient


def with_gradient(scores: np.ndarray, relevance: np.ndarray) -> tuple[float, np.ndarray]:
    leaf = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    loss = info_nce(leaf, torch.tensor(relevance))
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad.numpy()


@st.composite
def steps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    relevance = draw(arrays(np.int8, shape, elements=st.sampled_from([-1, 0, 1])))
    return draw(arrays(np.float64, shape, elements=st.floats(-50, 50, width=32))), relevance


@given(steps())
def test_loss_and_gradient_are_those_of_the_reference(step: tuple[np.ndarray, np.ndarray]) -> None:
    loss, gradient = with_gradient(*step)
    expected_loss, expected_gradient = reference(*step)
    assert loss == pytest.approx(expected_loss, abs=1e-10, rel=1e-10)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-10, rtol=0)


def test_several_positives_do_not_compete_and_masked_entries_do_not_count() -> None:
    scores = np.array([[1.0, 3.0, 2.0, -1.0], [0.5, 0.0, 9.0, 1.5]])
    relevance = np.array([[1, 1, -1, 0], [-1, 1, 0, -1]])
    loss, gradient = with_gradient(scores, relevance)
    by_hand = [
        math.log(1 + math.exp(2.0 - 1.0)),
        math.log(1 + math.exp(2.0 - 3.0)),
        math.log(1 + math.exp(0.5) + math.exp(1.5)),
    ]
    assert loss == pytest.approx(sum(by_hand) / 3, abs=1e-12)
    np.testing.assert_allclose(gradient, reference(scores, relevance)[1], atol=1e-12)
    assert gradient[0, 3] == 0
    assert gradient[1, 2] == 0


@pytest.mark.parametrize("rows", [[[1, 0, 1]], [[1, 1, 1], [0, 1, 0]]], ids=["one row", "all rows"])
def test_rows_without_negatives_cost_nothing_and_leave_finite_gradients(rows: list[list[int]]) -> None:
    scores = np.full((len(rows), 3), 50.0)
    loss, gradient = with_gradient(scores, np.array(rows))
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("entry", [-1, 0])
def test_no_positive_at_all_costs_nothing_and_leaves_finite_gradients(entry: int) -> None:
    loss, gradient = with_gradient(np.full((2, 3), 50.0), np.full((2, 3), entry))
    assert loss == 0
    assert (gradient == 0).all()


def test_a_row_without_positives_changes_nothing() -> None:
    scores = np.array([[2.0, 1.0, 0.0], [5.0, 5.0, 5.0]])
    relevance = np.array([[1, -1, -1], [-1, 0, -1]])
    alone, _ = with_gradient(scores[:1], relevance[:1])
    loss, gradient = with_gradient(scores, relevance)
    assert loss == pytest.approx(alone, abs=1e-12)
    assert (gradient[1] == 0).all()


def test_scores_at_the_ends_of_a_small_temperature_stay_finite_in_float32() -> None:
    scores = torch.tensor([[-1000.0, 1000.0], [1000.0, -1000.0]], requires_grad=True)
    loss = info_nce(scores, torch.tensor([[1, -1], [1, -1]], dtype=torch.int8))
    loss.backward()
    assert loss.item() == pytest.approx(1000.0)
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))


@given(steps(), st.randoms(use_true_random=False))
def test_the_order_of_queries_and_passages_does_not_matter(step: tuple[np.ndarray, np.ndarray], random: object) -> None:
    scores, relevance = step
    order = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    rows, columns = order.permutation(scores.shape[0]), order.permutation(scores.shape[1])
    loss, gradient = with_gradient(scores, relevance)
    moved_loss, moved_gradient = with_gradient(scores[rows][:, columns], relevance[rows][:, columns])
    assert moved_loss == pytest.approx(loss, abs=1e-10)
    np.testing.assert_allclose(moved_gradient, gradient[rows][:, columns], atol=1e-10)


def unit(generator: torch.Generator, count: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64), dim=1)


@given(
    relevance=arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.sampled_from([-1, 0, 1])),
    weight=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    temperature=st.sampled_from([0.01, 0.05, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_symmetric_weighs_both_directions(relevance: np.ndarray, weight: float, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, passages = (unit(generator, count).requires_grad_() for count in relevance.shape)
    loss = InfoNCE(temperature, weight)(
        StepEmbeddings(queries, passages, torch.tensor(relevance), torch.arange(len(passages)), NO_ANSWERS)
    )
    loss.backward()

    scores = (queries.detach() @ passages.detach().T / temperature).numpy()
    forward_loss, forward_gradient = reference(scores, relevance)
    backward_loss, backward_gradient = reference(scores.T, relevance.T)
    assert loss.item() == pytest.approx((1 - weight) * forward_loss + weight * backward_loss, abs=1e-10, rel=1e-10)
    gradient = torch.tensor((1 - weight) * forward_gradient + weight * backward_gradient.T) / temperature
    assert queries.grad is not None
    assert passages.grad is not None
    torch.testing.assert_close(queries.grad, gradient @ passages.detach(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(passages.grad, gradient.T @ queries.detach(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_weighted_negatives_are_those_of_the_loops(
    random_step: Any, assert_equals: Any, loop_info_nce: Any, hardness: float, seed: int
) -> None:
    step = random_step(seed)
    step.relevance[1] = torch.tensor([-1, 1, 0, 0, 0, 0, 0, 0, 0])  # one negative: its weight is the mean
    assert_equals(InfoNCE(0.2, hardness=hardness), lambda step: loop_info_nce(step, 1 / 0.2, hardness), step)


def test_weights_hold_in_both_directions(random_step: Any, assert_equals: Any, loop_info_nce: Any) -> None:
    def reference(step: StepEmbeddings) -> Tensor:
        turned = StepEmbeddings(step.passages, step.queries, step.relevance.T, step.passage_ids, step.answers)
        loss: Tensor = 0.7 * loop_info_nce(step, 1 / 0.2, 0.8) + 0.3 * loop_info_nce(turned, 1 / 0.2, 0.8)
        return loss

    step = random_step(5)
    assert ((step.relevance == -1).sum(dim=0)[:4] > 1).any()
    assert_equals(InfoNCE(0.2, 0.3, hardness=0.8), reference, step)


def test_hardness_moves_the_weight_to_the_hardest_negative() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.0, -1.0]], requires_grad=True)
    relevance = torch.tensor([[1, -1, -1, -1]])
    shares = []
    for hardness in (0.0, 0.5, 2.0, 50.0):
        (gradient,) = torch.autograd.grad(info_nce(scores, relevance, hardness), scores)
        shares.append((gradient[0, 1] / gradient[0, 1:].sum()).item())
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / (1 + math.exp(-2) + math.exp(-3)))
    assert shares[-1] == pytest.approx(1)


@pytest.mark.parametrize("rows", [[[1, 0, 1]], [[1, 1, 1], [0, 1, 0]]], ids=["one row", "all rows"])
def test_weights_of_no_negatives_leave_finite_gradients(rows: list[list[int]]) -> None:
    scores = torch.full((len(rows), 3), 50.0, requires_grad=True)
    loss = info_nce(scores, torch.tensor(rows), hardness=1.0)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert (scores.grad == 0).all()
