"""Scores that others published for benchmarks: shown apart from what was measured here, and never compared with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedScore:
    """What a paper reports of a model.

    Attributes:
        benchmark: the benchmark, as ``mteb`` names it: the suite of an evaluation that has it.
        kind: the kind of its tasks that the score is of.
        model: the model.
        score: mean of the tasks' main scores, of 100.
        source: where it was published.
    """

    benchmark: str
    kind: str
    model: str
    score: float
    source: str


_MMTEB, _PAPER = "MTEB(Multilingual, v2)", "arXiv 2510.14274"

PUBLISHED = (
    PublishedScore(_MMTEB, "retrieval", "SFR-Embedding-Mistral (7B)", 59.44, _PAPER),
    PublishedScore(_MMTEB, "retrieval", "gte-Qwen2-7B-instruct", 60.08, _PAPER),
    PublishedScore(_MMTEB, "retrieval", "the paper's model (300M)", 60.56, _PAPER),
)


def published(benchmark: str, kind: str) -> list[PublishedScore]:
    """Return what was published of a kind of task of a benchmark; nothing of a suite that is no benchmark."""
    return [score for score in PUBLISHED if (score.benchmark, score.kind) == (benchmark, kind)]
