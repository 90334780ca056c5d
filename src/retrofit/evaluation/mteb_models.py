"""Our models as mteb calls them: it asks for embeddings or for passages, and scores what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from retrofit.evaluation.exact_search import inner_products, score_candidates, search
from retrofit.evaluation.text_embeddings import TextEmbeddings

if TYPE_CHECKING:
    from mteb.models import SearchProtocol

_TEXTS_AT_ONCE = 1024


@runtime_checkable
class LexicalSearcher(Protocol):
    """What searches by words, without vectors, such as BM25."""

    def index(self, passages: Sequence[str]) -> Callable[[Sequence[str]], np.ndarray]:
        """Return a function from queries to their scores of all these passages, ``[queries, passages]``."""


def mteb_model(model: TextEmbeddings | LexicalSearcher) -> SearchProtocol:
    """Return a model as mteb takes it; passages are found by our exact search."""
    return _EmbeddingModel(model) if isinstance(model, TextEmbeddings) else _SearchModel(_lexical_index(model))


def encode_options() -> dict[str, Any]:
    """Return what mteb is told about encoding: it hands texts over in parts, without a progress bar."""
    return {"batch_size": _TEXTS_AT_ONCE, "show_progress_bar": False}


Index = Callable[[Sequence[str]], Callable[[Sequence[str]], Tensor]]
"""From passages to a function from queries to scores, float32 ``[queries, passages]``."""


class _SearchModel:
    """A ``SearchProtocol`` of mteb.

    Attributes:
        index_texts: makes passages ready to be searched.
        mteb_model_meta: what mteb says of a model; nothing.
    """

    def __init__(self, index_texts: Index) -> None:
        from mteb.models import ModelMeta

        self.index_texts = index_texts
        self.mteb_model_meta = ModelMeta.create_empty()

    def index(self, corpus: Any, *, task_metadata: Any, **_: Any) -> None:
        """Take the passages of a task."""
        from mteb.types import PromptType

        self._ids = list(corpus["id"])
        self._scores = self.index_texts(_texts(corpus, task_metadata, PromptType.document))

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Return scores by passage id by query id: of the best passages, or of candidates where there are any."""
        from mteb.types import PromptType

        texts, query_ids = _texts(queries, task_metadata, PromptType.query), list(queries["id"])

        def scores(part: slice) -> Tensor:
            return self._scores(texts[part])

        if top_ranked is None:
            found = search(scores, len(texts), self._ids, top_k)
        else:
            found = score_candidates(scores, [top_ranked[query_id] for query_id in query_ids], self._ids)
        return dict(zip(query_ids, found, strict=True))


class _EmbeddingModel(_SearchModel):
    """A ``SearchProtocol`` and ``EncoderProtocol`` of mteb that looks embeddings up.

    Symmetric kinds of task do not name the kind of text; theirs get the prompt of queries, as the authors of E5 do.

    Attributes:
        embeddings: where they are kept, and made if they are not there.
    """

    def __init__(self, embeddings: TextEmbeddings) -> None:
        super().__init__(self._index)
        self.embeddings = embeddings

    def _index(self, passages: Sequence[str]) -> Callable[[Sequence[str]], Tensor]:
        scores = inner_products(self.embeddings.vectors(passages, "passage"))
        return lambda queries: scores(self.embeddings.vectors(queries, "query"))

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Return the embeddings of the texts of a ``DataLoader``, float32 ``[texts, dimension]``."""
        from mteb.types import PromptType

        texts = [text for batch in inputs for text in batch["text"]]
        return self.embeddings.vectors(texts, "passage" if prompt_type == PromptType.document else "query")

    def similarity(self, first: Any, second: Any) -> np.ndarray:
        """Return the cosines of all pairs, float32 ``[first, second]``: embeddings have unit length."""
        products: np.ndarray = np.asarray(first) @ np.asarray(second).T
        return products

    def similarity_pairwise(self, first: Any, second: Any) -> np.ndarray:
        """Return the cosine of each pair, float32 ``[first]``."""
        products: np.ndarray = np.einsum("ij,ij->i", np.asarray(first), np.asarray(second))
        return products


def _lexical_index(searcher: LexicalSearcher) -> Index:
    def index(passages: Sequence[str]) -> Callable[[Sequence[str]], Tensor]:
        scores = searcher.index(passages)
        return lambda queries: torch.from_numpy(scores(queries).astype(np.float32, copy=False))

    return index


def _texts(dataset: Any, task_metadata: Any, prompt_type: Any) -> list[str]:
    """Return queries or passages as mteb gives them to a model: with their titles and instructions."""
    from mteb._create_dataloaders import create_dataloader

    loader = create_dataloader(dataset, task_metadata=task_metadata, prompt_type=prompt_type, batch_size=_TEXTS_AT_ONCE)
    return [text for batch in loader for text in batch["text"]]
