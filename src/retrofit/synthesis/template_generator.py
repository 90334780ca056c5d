"""Queries without a model: what a passage says of itself, slotted into the forms of its language."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrofit.engine import Engine
from retrofit.synthesis.facts import Collection
from retrofit.synthesis.plan import share
from retrofit.synthesis.records import Request, Written
from retrofit.synthesis.templates import Templates

CODE_VERSION = 2  # raise it whenever the same request would be written otherwise
_REQUESTS_A_BLOCK = 2_000


class TemplateGenerator:
    """Writes queries by slotting keyphrases, titles and years into forms.

    Attributes:
        name: ``template``.
        templates: the forms.
        seed: of the choice among forms that fit.
        identity: what it writes depends on.
    """

    name = "template"

    def __init__(self, templates: Templates, seed: int) -> None:
        self.templates = templates
        self.seed = seed
        self.identity: Mapping[str, Any] = {
            "generator": self.name,
            "code": CODE_VERSION,
            "templates": templates.fingerprint,
            "seed": seed,
        }

    def generate(self, requests: Sequence[Request], engine: Engine) -> Iterator[Written]:
        """Yield what came of each request, in their order."""
        passages = dict.fromkeys(request.passage for request in requests)
        worker = _Writing(self.templates, Collection.of(passages, self.templates), self.seed)
        blocks = (requests[start : start + _REQUESTS_A_BLOCK] for start in range(0, len(requests), _REQUESTS_A_BLOCK))
        return itertools.chain.from_iterable(engine.map(worker, blocks))


@dataclass(frozen=True)
class _Writing:
    templates: Templates
    collection: Collection
    seed: int

    def __call__(self) -> Callable[[Sequence[Request]], list[Written]]:
        return lambda requests: [self._written(request) for request in requests]

    def _written(self, request: Request) -> Written:
        facts = self.collection.facts(request.passage)
        forms = self.templates.language(request.language).forms(request.family, facts)
        template = f"{request.language}/{request.family}"
        if not forms:
            known = ", ".join(name for name, value in facts.slots().items() if value)
            return Written(request, "", template, "no_form", f"known: {known or 'nothing'}")
        line, text = forms[int(share(self.seed, f"form of {request.family}", request.passage) * len(forms))]
        return Written(request, text, f"{template}/{line}")
