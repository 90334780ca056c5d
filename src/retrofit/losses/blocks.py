"""A step a block at a time, so that no table of every query with every passage is held but the relevance itself.

In InfoNCE and its neighbours every query stands for itself: its loss is a matter of its own row of scores. Of a batch
of 4,096 pairs a table of scores in float32 takes 64 MB, and a loss with its backward pass several of them, so they are
made for some queries at a time, and made again for the backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from retrofit.losses.step import StepEmbeddings

BLOCK_ENTRIES = 2**20
"""Scores that are taken at once: 4 MB in float32. A batch of up to 1,024 pairs and as many passages is one block."""


def over_blocks(
    terms: Callable[[StepEmbeddings], Tensor], step: StepEmbeddings, of: Literal["queries", "passages"] = "queries"
) -> Tensor:
    """Return what a function makes of a step, one block after the other.

    Gradients are those of the function of the whole step. What it holds for them is held for one block at a time: those
    of a step of several blocks are computed twice.

    Args:
        terms: takes some of the queries and all passages, or the other way round, and returns a tensor ``[n, …]``. What
            it says of a query must not depend on which others it sees, and nothing in it be random.
        step: whole.
        of: what a block holds some of.

    Returns:
        ``[n, …]``, the first dimension over all blocks in their order.
    """
    blocks = list(_query_blocks(step) if of == "queries" else _passage_blocks(step))
    if len(blocks) == 1:
        return terms(step)
    if torch.is_grad_enabled():
        terms = functools.partial(checkpoint, terms, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([terms(block) for block in blocks])


def _query_blocks(step: StepEmbeddings) -> Iterator[StepEmbeddings]:
    count = max(1, BLOCK_ENTRIES // max(1, len(step.passages)))
    teacher = step.teacher_queries
    # Views of one split: their gradients become one tensor, where that of each slice would be as large as the whole.
    for number, queries in enumerate(torch.split(step.queries, count)):
        rows = slice(number * count, number * count + len(queries))
        places = step.answers[:, 0]
        answers = step.answers[(places >= rows.start) & (places < rows.stop)]
        yield replace(
            step,
            queries=queries,
            relevance=step.relevance[rows],
            answers=torch.stack([answers[:, 0] - rows.start, answers[:, 1]], dim=1),
            teacher_queries=None if teacher is None else teacher[rows],
        )


def _passage_blocks(step: StepEmbeddings) -> Iterator[StepEmbeddings]:
    count = max(1, BLOCK_ENTRIES // max(1, len(step.queries)))
    teacher = step.teacher_passages
    for number, passages in enumerate(torch.split(step.passages, count)):
        columns = slice(number * count, number * count + len(passages))
        yield replace(
            step,
            passages=passages,
            relevance=step.relevance[:, columns],
            passage_ids=step.passage_ids[columns],
            teacher_passages=None if teacher is None else teacher[columns],
        )
