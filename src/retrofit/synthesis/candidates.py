"""Pairs on their way from what was written to what trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrofit.data.sources.columns import Example
from retrofit.synthesis.records import Written

TASK_PREFIX = "synthetic_"


@dataclass(slots=True)
class Candidate:
    """A query and a passage, one of which was written for the other, and what the filters found.

    Attributes:
        written: how it came about.
        copied: share of the query's n-grams that stand in the passage; 0 to 1.
        rank: place of the passage when the query is searched, from 1; 0 where it was not.
        judged: how well the passage answers the query by a judge, 1 to 5; 0 where none was asked.
        rejected: the filter that rejects it; empty while none does.
        found: what that filter found, in a few words.
    """

    written: Written
    copied: float = 0.0
    rank: int = 0
    judged: int = 0
    rejected: str = ""
    found: str = ""

    @property
    def query(self) -> str:
        """The text that asks."""
        return self.written.request.passage.text if self.is_document else self.written.text

    @property
    def passage(self) -> str:
        """The text that answers."""
        return self.written.text if self.is_document else self.written.request.passage.text

    @property
    def language(self) -> str:
        """Language of the query."""
        return self.written.request.language

    @property
    def document_language(self) -> str:
        """Language of the passage."""
        return self.written.request.passage.language

    @property
    def is_document(self) -> bool:
        """Whether the passage was written for the query, and not the other way round."""
        return self.written.request.family == "document"

    @property
    def task(self) -> str:
        """Its task as a pair: ``synthetic_`` and the kind of text that was written."""
        return TASK_PREFIX + self.written.request.family

    def reject(self, by: str, found: object = "") -> None:
        """Note the filter that rejects it."""
        self.rejected, self.found = by, str(found)

    def example(self) -> Example:
        """Return it as a pair that trains."""
        group = self.written.request.passage.group
        return Example(
            self.query, (self.passage,), (), self.task, self.language, self.document_language, group, "train"
        )

    def row(self) -> Mapping[str, Any]:
        """Return it as the lists of what was left out show it; JSON-like."""
        return {
            "reason": self.rejected,
            "found": self.found,
            "language": self.language,
            "task": self.task,
            "template": self.written.template,
            "query": self.query,
            "passage": self.passage,
        }
