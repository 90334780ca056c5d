"""Where a backbone's weights come from: a hub or a local folder, or random ones for tests.

Every function returns a folder that :meth:`retrofit.models.bi_encoder.BiEncoder.load` reads; the embedded default has
a module of its own, :mod:`retrofit.models.embedded_checkpoint`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from retrofit.artefacts import MANIFEST, ArtefactStore
from retrofit.errors import UserError, first_line

TINY_VERSION = 1
WEIGHTS_AND_TOKENIZER = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""What is taken of a repository of the hub: no pickled weights, and no code."""
_DECISIVE = {".json", ".txt", ".model", ".jinja", ".safetensors"}


def hub_checkpoint(name: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint: a local one as it is, one of the hub after downloading it.

    Only safetensors weights, the configuration and the tokenizer are taken; code of the checkpoint is never run.

    Args:
        name: a folder, or a repository of the Hugging Face hub.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: no such folder and the hub cannot be reached or does not have it, or it lacks safetensors weights.
    """
    instead = ", or use model=embedded, which needs no hub"
    folder = hub_folder(name, revision, WEIGHTS_AND_TOKENIZER, "model.checkpoint.name", instead)
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: no *.safetensors weights found; pickled weights are not read (model.checkpoint.name)"
        )
    return folder


def hub_folder(name: str, revision: str | None, patterns: Sequence[str], key: str, instead: str = "") -> Path:
    """Return a folder: a local one as it is, one of the hub after downloading its files of these patterns.

    Args:
        name: a folder, or a repository of the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        patterns: of the names of files that are taken, as ``fnmatch`` reads them.
        key: the configuration key that has the name.
        instead: what else the user can do, added to the message.

    Raises:
        UserError: no such folder and the hub cannot be reached or does not have it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client, its HTTP library and the network each have errors of their own
        reason = first_line(error)
        raise UserError(
            f"{key}={name}: neither a local folder nor to be had from the hub ({reason}); "
            f"check the name and the network{instead}"
        ) from error


def tiny_checkpoint(cache: Path, seed: int = 0) -> Path:
    """Return a random two-layer BERT with a byte-level tokenizer, for tests: it needs no file and reads any script."""

    def build(folder: Path) -> None:
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

        specials = ["<s>", "<pad>", "</s>", "<unk>"]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: index for index, token in enumerate(specials + alphabet)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
        )
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<s>",  # noqa: S106
            pad_token="<pad>",  # noqa: S106
            eos_token="</s>",  # noqa: S106
            unk_token="<unk>",  # noqa: S106
            model_max_length=128,
        ).save_pretrained(folder)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=128,
                pad_token_id=vocabulary["<pad>"],
                hidden_dropout_prob=0.1,
            )
            BertModel(config, add_pooling_layer=False).save_pretrained(folder)

    return ArtefactStore(cache).get("checkpoints", {"tiny": TINY_VERSION, "seed": seed}, build)


def weights_fingerprint(folder: Path) -> str:
    """Return 16 hex digits over the contents of a checkpoint's weight files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def decisive_files(folder: Path) -> list[Path]:
    """Return the files, in whatever depth, that decide about a model's output: weights, tokenizer, configuration.

    The manifest of an artefact does not: it says how long making it took.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in _DECISIVE and path.name != MANIFEST)
    return [path for path in files if path.is_file()]


def files_fingerprint(folder: Path) -> str:
    """Return what identifies all that decides about a model's output besides the backbone's weights.

    That is tokenizer, pooling, length limit and the weights of further modules, all of them files of the folder; of a
    language model also its chat template and its generation settings.
    """
    digest = hashlib.sha256()
    weights = set(folder.glob("*.safetensors"))
    for path in decisive_files(folder):
        if path not in weights:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return digest.hexdigest()[:16]


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits over the values of weights in memory."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
