"""What an objective sees of a step, and what it has to say about it besides the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class StepEmbeddings:
    """A step, embedded: of one process, or of all of them together.

    Attributes:
        queries: float ``[queries, dimension]``, unit length.
        passages: float ``[passages, dimension]``, unit length.
        relevance: int8 ``[queries, passages]``: 1 positive, -1 negative, 0 masked.
        passage_ids: int64 ``[passages]``, content hash of each passage.
        answers: int64 ``[n, 2]``: place of a query in the step and id of a passage known to answer it, whether or not
            the passage stands in the step.
        teacher_queries: a frozen model's embeddings of the queries, float ``[queries, teacher's dimension]``, unit
            length; None without a teacher.
        teacher_passages: likewise of the passages, float ``[passages, teacher's dimension]``.
    """

    queries: Tensor
    passages: Tensor
    relevance: Tensor
    passage_ids: Tensor
    answers: Tensor
    teacher_queries: Tensor | None = None
    teacher_passages: Tensor | None = None

    @property
    def similarities(self) -> Tensor:
        """Cosine similarities, float ``[queries, passages]``."""
        return self.queries @ self.passages.T

    @property
    def teacher_scores(self) -> Tensor:
        """The teacher's cosine similarities, float ``[queries, passages]``.

        Raises:
            ValueError: the step was embedded without a teacher.
        """
        if self.teacher_queries is None or self.teacher_passages is None:
            raise ValueError("a step without a teacher's embeddings has no teacher's scores")
        return self.teacher_queries @ self.teacher_passages.T


class Objective(nn.Module):
    """An objective: ``forward`` takes :class:`StepEmbeddings` and returns the loss, a scalar.

    Attributes:
        figures: what the last step was like, scalars by name; to be logged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, Tensor] = {}


def last_figures(objective: nn.Module) -> dict[str, float]:
    """Return the figures of the last step of an objective and of everything it is made of, by name."""
    parts = [part for part in objective.modules() if isinstance(part, Objective)]
    return {name: float(value) for part in parts for name, value in part.figures.items()}
