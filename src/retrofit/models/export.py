"""The trained model as others load it: a sentence-transformers folder with the prompts inside."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from torch import Tensor

from retrofit.artefacts import folder_written_aside, write_json
from retrofit.models.adapters import plain_backbone
from retrofit.models.bi_encoder import BiEncoder


def export_sentence_transformer(encoder: BiEncoder, weights: dict[str, Tensor], folder: Path) -> None:
    """Write a model that ``SentenceTransformer(folder)`` loads, aside and then renamed.

    The prompts are stored as ``query``, ``passage`` and ``document``, so ``encode_query`` and ``encode_document`` apply
    them.

    Args:
        encoder: gives architecture, tokenizer, pooling, prompts and length limit.
        weights: state dict of the plain backbone, float32.
        folder: where to; replaced if it exists.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder.parent.mkdir(parents=True, exist_ok=True)
    # On the disk where the model goes: the system's folder for temporary files may be a small one in memory.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.partial-") as plain:
        plain_backbone(encoder.backbone).save_pretrained(plain, state_dict=weights)
        encoder.tokenizer.save_pretrained(plain)
        without_pooler = {"add_pooling_layer": False} if hasattr(plain_backbone(encoder.backbone), "pooler") else {}
        transformer = Transformer(plain, max_seq_length=encoder.max_length, model_kwargs=without_pooler)
        pooling = Pooling(encoder.dimension, encoder.pooling)
        # "document" is what encode_document looks for first; left out, an empty one would be stored.
        prompts = {str(kind): prompt for kind, prompt in encoder.prompts.items()}
        prompts["document"] = encoder.prompts["passage"]
        model = SentenceTransformer(modules=[transformer, pooling, Normalize()], prompts=prompts, device="cpu")
        with folder_written_aside(folder) as partial:
            model.save_pretrained(str(partial), create_model_card=False, safe_serialization=True)
            _store_model_options(partial / "sentence_bert_config.json", without_pooler)


def _store_model_options(path: Path, options: dict[str, bool]) -> None:
    """Let whoever loads the model build it with the same options; sentence-transformers reads but does not write them.

    Otherwise a pooling layer that no one uses is made up at random on loading, with a warning about missing weights.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**config, "model_kwargs": options})
