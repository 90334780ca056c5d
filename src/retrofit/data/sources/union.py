"""Several sources as one: their pairs merged by the same rules as the rows of a single source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from retrofit.data.records import Pair, Passage
from retrofit.data.sources.building import Intake, build_source
from retrofit.data.sources.columns import Example
from retrofit.data.sources.refusals import Row
from retrofit.data.storage import PairSource
from retrofit.errors import UserError

_ROWS_A_BATCH = 1_000


def build_union(*, name: str, parts: Mapping[str, Mapping[str, Any]], cache: Path) -> Path:
    """Return the folder of a source that has the pairs of several, building it first if the cache does not hold it.

    Pairs that ask the same share their positives, and no text of a part's test split stays in another's training.

    Args:
        name: name of the source.
        parts: the sources by name, which becomes the ``source`` of their pairs; each a mapping with ``pairs``, the
            folder of a source, and ``licence``.
        cache: root of the cache.

    Raises:
        UserError: there is no part, or no pair is left.
    """
    if not parts:
        raise UserError("data_source.parts={}: expected at least one source, e.g. a default nq@parts.nq")
    folders = {part: Path(config["pairs"]) for part, config in parts.items()}
    licence = "; ".join(f"{part}: {config.get('licence')}" for part, config in parts.items())
    inputs = {"parts": {part: folder.name for part, folder in folders.items()}}

    def read(intake: Intake) -> None:
        sources = {part: PairSource.open(folder) for part, folder in folders.items()}
        for part, source in sources.items():
            _take_pairs(intake, part, source)
        if any(source.passages is not None for source in sources.values()):
            intake.write_passages(_passages(sources))

    # Every part has its splits: what none of them holds out (synthetic pairs all train) is not held out here either.
    return build_source(
        cache, "union", name, licence, None, inputs, read, derive_splits=False, rows_key="data_source.parts"
    )


def _take_pairs(intake: Intake, part: str, source: PairSource) -> None:
    number = 0
    for batch in source.pairs.to_batches(max_chunksize=_ROWS_A_BATCH):
        for values in batch.to_pylist():
            number += 1
            intake.rows += 1
            pair = Pair.of_row(values)
            example = Example(
                pair.query,
                pair.positives,
                pair.negatives,
                pair.task,
                pair.language,
                pair.document_language,
                pair.group,
                pair.split,
            )
            intake.take(example, Row(part, number), source=part)


def _passages(sources: Mapping[str, PairSource]) -> Iterator[Passage]:
    """Yield the passages of all parts, each once in a language."""
    tables = {part: source.passages for part, source in sources.items() if source.passages is not None}
    keys = [
        pd.DataFrame(
            {"id": table["passage_id"].to_numpy(), "language": table["language"].cast(pa.string()).to_pandas()}
        )
        for table in tables.values()
    ]
    repeated = iter(pd.concat(keys).duplicated().to_numpy())
    for part, table in tables.items():
        for batch in table.to_batches(max_chunksize=_ROWS_A_BATCH):
            for values in batch.to_pylist():
                if not next(repeated):
                    yield Passage(values["passage"], values["language"], part)
