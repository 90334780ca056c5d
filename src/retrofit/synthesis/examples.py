"""Examples in a prompt: real queries with the passages they ask for, which the model then goes on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrofit.data.records import content_id
from retrofit.data.selection import select
from retrofit.data.sources.validation import check_count
from retrofit.data.storage import PairSource, RowReader

_ROWS_A_BLOCK = 200
_MOST_ROWS = 10_000

log = logging.getLogger(__name__)


class Examples:
    """Training pairs of a data source that show a language model how to ask (few-shot, Dai et al. 2023).

    Attributes:
        per_prompt: how many each prompt has, where the language has as many.
        identity: what they depend on; JSON-like.
    """

    def __init__(
        self,
        source: Mapping[str, Any],
        tasks: Sequence[str] | None,
        per_prompt: int,
        max_passage_characters: int,
        seed: int,
    ) -> None:
        """Open the data source.

        Args:
            source: the data source, with the folder of its ``pairs``.
            tasks: of these tasks; None for all.
            per_prompt: how many.
            max_passage_characters: longest passage of an example.
            seed: of the draw.

        Raises:
            UserError: none of the tasks is in the data source, or ``per_prompt`` is no number of examples.
        """
        check_count("data_source.generator.examples.per_prompt", per_prompt)
        opened = PairSource.open(Path(source["pairs"]))
        rows = select(opened.pairs, "train", tasks, tasks_key="data_source.generator.examples.tasks")
        self.per_prompt = per_prompt
        self.max_passage_characters = max_passage_characters
        self.seed = seed
        self.identity: dict[str, Any] = {
            "pairs": opened.fingerprint,
            "tasks": None if tasks is None else sorted(tasks),
            "per_prompt": per_prompt,
            "max_passage_characters": max_passage_characters,
            "seed": seed,
        }
        self._pairs = opened.pairs
        self._rows = rows
        self._of_language: dict[str, list[tuple[str, str]]] = {}

    def of(self, language: str) -> list[tuple[str, str]]:
        """Return pairs of a passage and a query in a language, whose queries begin with different words if they can."""
        if language not in self._of_language:
            self._of_language[language] = found = self._drawn(language)
            if len(found) < self.per_prompt:
                log.warning("%d examples in %s instead of %d", len(found), language, self.per_prompt)
        return self._of_language[language]

    def _drawn(self, language: str) -> list[tuple[str, str]]:
        within = np.ones(len(self._rows), dtype=bool)
        for name in ("language", "document_language"):
            column = self._pairs[name].take(pa.array(self._rows)).cast(pa.string())
            within &= pc.equal(column, language).to_numpy(zero_copy_only=False)
        rows = np.random.default_rng([self.seed, content_id(language)]).permutation(self._rows[within])
        chosen: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for start in range(0, min(len(rows), _MOST_ROWS), _ROWS_A_BLOCK):
            for pair in RowReader(self._pairs).rows(rows[start : start + _ROWS_A_BLOCK]):
                if len(pair["positives"][0]) <= self.max_passage_characters:
                    begins = {query.split()[0].casefold() for _, query in chosen}
                    place = others if pair["query"].split()[0].casefold() in begins else chosen
                    place.append((pair["positives"][0], pair["query"]))
            if len(chosen) >= self.per_prompt:
                break
        return [*chosen, *others][: self.per_prompt]
