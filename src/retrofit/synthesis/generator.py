"""What writes queries, with a model or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from retrofit.engine import Engine
from retrofit.synthesis.records import Request, Written


class Generator(Protocol):
    """Writes what is requested.

    Attributes:
        name: how provenance calls it.
        identity: everything that is written depends on besides the requests; JSON-like.
    """

    name: str
    identity: Mapping[str, Any]

    def generate(self, requests: Sequence[Request], engine: Engine) -> Iterator[Written]:
        """Yield what came of each request, in any order."""
