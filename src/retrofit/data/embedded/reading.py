"""What every reader of an embedded source returns: pairs, and an account of what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from retrofit.data.records import Pair
from retrofit.data.splits import split_of


@dataclass
class Reading:
    """Collects query → passage rows of one source and groups them into pairs with several positives.

    Attributes:
        source: name of the source, repeated in every pair.
        rows: number of rows kept, by (task, language), the language being the one other than English in a bitext.
        dropped: number of rows left out, by (task, language, reason).
    """

    source: str
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _positives: dict[tuple[str, str, str, str, str], dict[str, None]] = field(default_factory=dict)

    def add(
        self, *, task: str, query: str, passage: str, language: str, group: str, document_language: str | None = None
    ) -> None:
        """Add one row; a row that is there already is counted as dropped.

        Args:
            task: what relates the two.
            query: cleaned text of the query.
            passage: cleaned text of a passage that answers it.
            language: language of the query.
            group: unit that is never divided between splits.
            document_language: language of the passage, where it is another one.
        """
        document_language = document_language or language
        counted = document_language if language == "en" else language
        positives = self._positives.setdefault((task, language, document_language, group, query), {})
        if passage in positives:
            self.drop(task, counted, "duplicate")
        else:
            positives[passage] = None
            self.rows[task, counted] += 1

    def drop(self, task: str, language: str, reason: str, count: int = 1) -> None:
        """Account for rows that are left out."""
        self.dropped[task, language, reason] += count

    def pairs(self, *, salt: str = "retrofit") -> list[Pair]:
        """Return one pair per (task, languages, group, query), in the order of their first rows.

        Args:
            salt: chooses among the possible assignments of groups to splits.
        """
        return [
            Pair(
                query=query,
                positives=tuple(positives),
                task=task,
                language=language,
                document_language=document_language,
                source=self.source,
                group=group,
                split=split_of(group, salt=salt),
            )
            for (task, language, document_language, group, query), positives in self._positives.items()
        ]
