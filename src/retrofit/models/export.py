"""The trained model as others load it: a sentence-transformers folder with the prompts inside."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from torch import Tensor

from retrofit.models.adapters import plain_backbone
from retrofit.models.bi_encoder import BiEncoder


def export_sentence_transformer(encoder: BiEncoder, weights: dict[str, Tensor], folder: Path) -> None:
    """Write a model that ``SentenceTransformer(folder)`` loads, aside and then renamed.

    The prompts are stored as ``query`` and ``passage``, so ``encode_query`` and ``encode_document`` apply them.

    Args:
        encoder: gives architecture, tokenizer, pooling, prompts and length limit.
        weights: state dict of the plain backbone, float32.
        folder: where to; replaced if it exists.
    """
    from sentence_transformers import SentenceTransformer, models

    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    with tempfile.TemporaryDirectory() as plain:
        plain_backbone(encoder).save_pretrained(plain, state_dict=weights)  # type: ignore[operator]
        encoder.tokenizer.save_pretrained(plain)
        transformer = models.Transformer(plain, max_seq_length=encoder.max_length)
        pooling = models.Pooling(encoder.dimension, encoder.pooling)
        model = SentenceTransformer(
            modules=[transformer, pooling, models.Normalize()], prompts=dict(encoder.prompts), device="cpu"
        )
        try:
            model.save_pretrained(str(partial), create_model_card=False, safe_serialization=True)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
