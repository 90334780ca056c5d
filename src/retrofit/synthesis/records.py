"""What synthesis hands on: passages to write for, requests to write one text, and what was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from retrofit.data.records import content_id

Family = Literal[
    "keywords", "question", "long_question", "claim", "title", "faq", "cross_lingual", "summary", "document"
]
"""What is written: eight kinds of query for a passage, or (``document``) a passage for a query."""

FAMILIES: tuple[Family, ...] = get_args(Family)

Failure = Literal["refused", "malformed", "timed_out", "unreachable", "no_form", "over_budget"]
"""Why nothing was written: the model declined; it answered something else than the JSON asked for; it took too long; it
could not be reached or answered with an error; no template form fits what is known of the passage; the budget is spent.
"""

PASSING: tuple[Failure, ...] = ("timed_out", "unreachable", "over_budget")
"""Failures that another run may not meet: they are asked again."""


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A text that something is to be written for: a passage that wants queries, or a query that wants a passage.

    Attributes:
        text: the passage or the query.
        title: its title; empty where it has none.
        language: its language, as the source names it (``de``, ``zh-Hans``).
        group: the unit that is never divided between splits.
        source: where it comes from.
        is_query: whether it is a query, which the family ``document`` alone is written for.
    """

    text: str
    title: str
    language: str
    group: str
    source: str
    is_query: bool = False

    @property
    def passage_id(self) -> int:
        """Content hash of the text."""
        return content_id(self.text)


@dataclass(frozen=True, slots=True)
class Request:
    """A request to write one text.

    Attributes:
        passage: what for.
        family: what kind of text.
        language: in which language; that of the passage, but for ``cross_lingual``.
    """

    passage: SourcePassage
    family: Family
    language: str


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a request.

    Attributes:
        request: the request.
        text: what was written; empty where it failed.
        template: what it was written by, ``<language>/<family>/<line>`` of a form or ``<language>/write_<family>``.
        failure: why there is no text; None where there is one.
        detail: what was found instead, in a few words, for the list of failures.
        day: when it was written, ``YYYY-MM-DD``; empty where the text does not depend on it.
    """

    request: Request
    text: str
    template: str
    failure: Failure | None = None
    detail: str = ""
    day: str = ""
