"""Passages of earlier steps as further negatives (cross-batch memory, Wang et al. 2020)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from retrofit.losses.step import Objective, StepEmbeddings


class WithQueue(Objective):
    """An objective over the passages of a step and the last distinct passages of the steps before it.

    A queued embedding is the one its passage had when it was last seen, and has no gradient. A passage that stands in
    the step itself is not taken from the queue as well. What is known to answer a query is masked, as in the step. The
    queue starts empty, lies in buffers, so that a checkpoint holds it, and takes up passages in training only.

    Attributes:
        inner: the objective.
        passages: buffer, float32 ``[size, dimension]``, unit length, the oldest first.
        passage_ids: buffer, int64 ``[size]``.
        teacher_passages: buffer, float32 ``[size, teacher's dimension]``; without components where there is no teacher.
        filled: buffer, int64 scalar: how many of the rows hold a passage.
    """

    passages: Tensor
    passage_ids: Tensor
    teacher_passages: Tensor
    filled: Tensor

    def __init__(self, inner: Objective, size: int, dimension: int, teacher_dimension: int = 0) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("passages", torch.zeros(size, dimension))
        self.register_buffer("passage_ids", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("teacher_passages", torch.zeros(size, teacher_dimension))
        self.register_buffer("filled", torch.tensor(0))

    def forward(self, step: StepEmbeddings) -> Tensor:
        """Return the loss of a step, a scalar, and put its passages into the queue."""
        queued = torch.arange(len(self.passage_ids), device=self.filled.device) < self.filled
        queued &= ~torch.isin(self.passage_ids, step.passage_ids)
        extended = self._extended(step, queued)
        self.figures = {"queued_passages": queued.sum()}
        loss: Tensor = self.inner(extended)
        if self.training:
            self._keep(extended, len(step.passages))
        return loss

    def _extended(self, step: StepEmbeddings, queued: Tensor) -> StepEmbeddings:
        """Return the step with the queued passages, bool ``[size]``, after its own."""
        ids = self.passage_ids[queued]
        relevance = torch.full((len(step.queries), len(ids)), -1, dtype=step.relevance.dtype, device=ids.device)
        rows, answers = step.answers[torch.isin(step.answers[:, 1], ids)].T
        known, columns = (answers.unsqueeze(1) == ids).nonzero(as_tuple=True)
        relevance[rows[known], columns] = 0
        teacher_passages = step.teacher_passages
        if teacher_passages is not None:
            teacher_passages = torch.cat([teacher_passages, self.teacher_passages[queued]])
        return dataclasses.replace(
            step,
            passages=torch.cat([step.passages, self.passages[queued].to(step.passages.dtype)]),
            relevance=torch.cat([step.relevance, relevance], dim=1),
            passage_ids=torch.cat([step.passage_ids, ids]),
            teacher_passages=teacher_passages,
        )

    @torch.no_grad()
    def _keep(self, extended: StepEmbeddings, new: int) -> None:
        """Keep the last passages: those queued before, then the step's own, which come first in ``extended``."""
        newest = torch.arange(len(extended.passages), device=self.filled.device).roll(-new)[-len(self.passages) :]
        self.filled.fill_(len(newest))
        self.passages[: len(newest)] = extended.passages[newest].to(self.passages.dtype)
        self.passage_ids[: len(newest)] = extended.passage_ids[newest]
        if extended.teacher_passages is not None:
            self.teacher_passages[: len(newest)] = extended.teacher_passages[newest].to(self.teacher_passages.dtype)
