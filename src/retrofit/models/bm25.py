"""BM25 over pieces that need no blanks around them, so every script can be searched."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import bm25s
import numpy as np

from retrofit.errors import UserError
from retrofit.models.bi_encoder import Kind, Precision
from retrofit.models.model_size import ModelSize

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets its own when it is imported, and says every index

_QUERIES_A_BLOCK = 10_000
_WORD = re.compile(r"\w+")


def pieces_of(tokenizer: Any, texts: Sequence[str]) -> list[list[str]]:
    """Return the pieces of case-folded texts, without special tokens.

    Args:
        tokenizer: a fast tokenizer.
        texts: queries or passages, without prompts.
    """
    if not texts:
        return []
    encoded = tokenizer([text.casefold() for text in texts], add_special_tokens=False, verbose=False)
    return [[str(piece) for piece in ids] for ids in encoded["input_ids"]]


class Bm25Index:
    """Passages by their pieces, ranked by BM25 in Lucene's variant with k1 1.5 and b 0.75."""

    def __init__(self, passages: Sequence[list[str]]) -> None:
        """Index the passages, at least one, given as lists of pieces."""
        self._size = len(passages)
        self._index = bm25s.BM25()
        self._index.index(list(passages), show_progress=False)

    def search(self, queries: Sequence[list[str]], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``k`` best passages of each query, best first, and their scores.

        Args:
            queries: at least one, as lists of pieces.
            k: how many to find.

        Returns:
            int64 ``[queries, k]``, positions of passages, and float32 ``[queries, k]``; -1 and -inf where fewer
            passages share a piece with the query.
        """
        found = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        width = min(k, self._size)
        for start in range(0, len(queries), _QUERIES_A_BLOCK):
            part = slice(start, start + _QUERIES_A_BLOCK)
            asked = list(queries[part])
            places, values = self._index.retrieve(asked, k=width, show_progress=False, backend_selection="numpy")
            shares = values > 0
            found[part, :width] = np.where(shares, places, -1)
            scores[part, :width] = np.where(shares, values, -np.inf)
        return found, scores

    def scores(self, queries: Sequence[list[str]]) -> np.ndarray:
        """Return the scores of all passages, float32 ``[queries, passages]``, 0 where no piece is shared."""
        found = [self._index.get_scores(pieces) if pieces else np.zeros(self._size) for pieces in queries]
        return np.array(found, dtype=np.float32).reshape(len(queries), self._size)


def character_grams(texts: Sequence[str], shortest: int, longest: int) -> list[list[str]]:
    """Return all runs of characters of some lengths of each text; what is neither letter nor digit counts as a blank.

    Args:
        texts: queries or passages, without prompts.
        shortest: characters of the shortest runs.
        longest: characters of the longest runs.
    """
    spaced = [f" {' '.join(_WORD.findall(text.casefold()))} " for text in texts]
    # Interned: a run that comes again is the same object, or a corpus would take gigabytes.
    return [
        [
            sys.intern(text[start : start + n])
            for n in range(shortest, longest + 1)
            for start in range(len(text) - n + 1)
        ]
        for text in spaced
    ]


@dataclass(frozen=True)
class Bm25:
    """BM25 over runs of characters: what knows nothing of any language finds, a peer to measure against.

    Attributes:
        shortest: characters of the shortest runs.
        longest: characters of the longest runs.
    """

    shortest: int
    longest: int

    kind: ClassVar[str] = "bm25"
    prompts: ClassVar[Mapping[Kind, str]] = {"query": "", "passage": ""}
    size: ClassVar[ModelSize] = ModelSize(None, None, None)

    def __post_init__(self) -> None:
        if not (type(self.shortest) is type(self.longest) is int and 1 <= self.shortest <= self.longest):
            raise UserError(
                f"models: bm25: evaluated.shortest={self.shortest}, evaluated.longest={self.longest}: expected whole "
                "numbers of 1 or more, the second at least as large as the first"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What its ranking depends on; JSON-like."""
        return {"bm25": [self.shortest, self.longest], "bm25s": bm25s.__version__}

    def load(self, precision: Precision = "float32") -> LexicalSearcher:  # noqa: ARG002 -- it multiplies nothing
        """Return the searcher."""
        return LexicalSearcher(self.shortest, self.longest)


@dataclass(frozen=True)
class LexicalSearcher:
    """Ranks passages without embeddings.

    Attributes:
        shortest: characters of the shortest runs.
        longest: characters of the longest runs.
    """

    shortest: int
    longest: int

    def index(self, passages: Sequence[str]) -> Callable[[Sequence[str]], np.ndarray]:
        """Return a function from queries to their scores of all these passages, float32 ``[queries, passages]``.

        Args:
            passages: texts, at least one.
        """
        index = Bm25Index(character_grams(passages, self.shortest, self.longest))
        return lambda queries: index.scores(character_grams(queries, self.shortest, self.longest))
