"""The texts that evaluation measures on: where they stand, so that each can be read again when it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrofit.data.curation.texts import normalised, row_batches
from retrofit.data.records import Split, content_id

_HELD_OUT: tuple[Split, ...] = ("validation", "test")
_REMEMBERED = 4_096


class HeldOutTexts:
    """Queries and positives of the validation and test rows of evaluation sources, each normalised text once.

    Holds 16 bytes a text besides the hashes of ``batches``; texts are read from the tables.

    Args:
        sources: pairs tables by the name of the evaluation source.

    Attributes:
        counts: how many texts each set, ``<name>:<split>``, has that no set before it has.
    """

    def __init__(self, sources: Mapping[str, pa.Table]) -> None:
        self._sources = sources
        self._sets = [f"{name}:{split}" for name in sources for split in _HELD_OUT]
        self._places: list[npt.NDArray[np.int64]] = []
        self._starts: list[int] = [0]
        self.counts: Counter[str] = Counter(dict.fromkeys(self._sets, 0))
        self.text = lru_cache(maxsize=_REMEMBERED)(self._read)

    def __len__(self) -> int:
        return self._starts[-1]

    def batches(self) -> Iterator[list[str]]:
        """Read the tables once and yield the texts, normalised, in batches; a text's number is its place in them."""
        seen: set[int] = set()
        for source, table in enumerate(self._sources.values()):
            for rows in row_batches(table, *_HELD_OUT):
                texts, places = [], []
                for row in rows:
                    evaluation_set = source * len(_HELD_OUT) + (row.split == _HELD_OUT[1])
                    for position, text in enumerate(map(normalised, row.texts())):
                        identifier = content_id(text)
                        if identifier not in seen:
                            seen.add(identifier)
                            self.counts[self._sets[evaluation_set]] += 1
                            texts.append(text)
                            places.append((evaluation_set, row.number, position))
                if texts:
                    self._places.append(np.array(places, np.int64))
                    self._starts.append(self._starts[-1] + len(texts))
                    yield texts

    def evaluation_set(self, number: int) -> str:
        """Return the set a text stands in, the first of several, as ``<name>:<split>``."""
        return self._sets[int(self._place(number)[0])]

    def _place(self, number: int) -> npt.NDArray[np.int64]:
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        place: npt.NDArray[np.int64] = self._places[batch][number - self._starts[batch]]
        return place

    def _read(self, number: int) -> str:
        evaluation_set, row, position = self._place(number).tolist()
        table = list(self._sources.values())[evaluation_set // len(_HELD_OUT)]
        if position == 0:
            return normalised(table.column("query")[row].as_py())
        return normalised(table.column("positives")[row][position - 1].as_py())
