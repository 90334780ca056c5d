"""The bi-encoder: pooling, padding, chunking, prompts and truncation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import PROMPTS

from retrofit.errors import UserError
from retrofit.models.bi_encoder import BiEncoder, chunks_by_length, pad, pool

Load = Callable[..., BiEncoder]
TEXTS = ["Host", "お茶", "", "A much longer text about the password of the bridge.", "קפה", "Die Adresse des Geräts"]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pool_is_the_mean_of_the_tokens_or_the_first_one(pooling: str, dtype: torch.dtype) -> None:
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    lengths = [5, 1, 3]
    mask = torch.tensor([[int(token < length) for token in range(5)] for length in lengths])
    pooled = pool(hidden, mask, pooling)  # type: ignore[arg-type]
    assert pooled.dtype == torch.float32
    for row, length in enumerate(lengths):
        tokens = [hidden[row, token].double().numpy() for token in range(length)]
        expected = tokens[0] if pooling == "cls" else sum(tokens) / length
        np.testing.assert_allclose(pooled[row].numpy(), expected / np.linalg.norm(expected), atol=1e-6)


def test_pad_fills_up_on_the_right() -> None:
    input_ids, mask = pad([[5, 6, 7], [8]], 1)
    assert input_ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert input_ids.dtype == mask.dtype == torch.int64


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_does_not_change_an_embedding(load_tiny: Load, pooling: str, attention: str) -> None:
    encoder = load_tiny(pooling=pooling, attention=attention)
    (ids,) = encoder.tokenize(["a short text"], "query")
    with torch.inference_mode():
        alone = encoder(*pad([ids], encoder.tokenizer.pad_token_id))
        padded = encoder(*pad([ids, ids * 3], encoder.tokenizer.pad_token_id))
    torch.testing.assert_close(padded[:1], alone, atol=1e-6, rtol=0)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 200))
def test_chunks_cover_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    chunks = list(chunks_by_length(lengths, budget))
    assert sorted(position for chunk in chunks for position in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or len(chunk) * max(lengths[position] for position in chunk) <= budget
    longest = [lengths[position] for chunk in chunks for position in chunk]
    assert longest == sorted(longest, reverse=True)


def test_chunks_are_as_large_as_the_budget_allows() -> None:
    assert [len(chunk) for chunk in chunks_by_length([10] * 7, 30)] == [3, 3, 1]
    assert list(chunks_by_length([2, 9, 3, 1], 6)) == [[1], [2, 0], [3]]


@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_encode_equals_encoding_one_by_one(encoder: BiEncoder, budget: int) -> None:
    together = encoder.encode(TEXTS, "passage", budget)
    alone = np.concatenate([encoder.encode([text], "passage") for text in TEXTS])
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), encoder.dimension)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_encode_in_bfloat16_is_close_to_float32_and_still_float32(encoder: BiEncoder) -> None:
    exact, rounded = (encoder.encode(TEXTS, "query", precision=p) for p in ("float32", "bfloat16"))  # type: ignore[arg-type]
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < 0.05
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-5)


def test_nothing_to_encode_gives_an_empty_matrix(encoder: BiEncoder) -> None:
    assert encoder.encode([], "query").shape == (0, encoder.dimension)


def test_prompts_tell_queries_from_passages(load_tiny: Load) -> None:
    encoder, plain = load_tiny(), load_tiny(prompts={"query": "", "passage": ""})
    spelled = encoder.tokenizer.decode(encoder.tokenize(["Host"], "query")[0], skip_special_tokens=True)
    assert spelled == "query: Host"
    assert encoder.tokenize(["Host"], "passage") == plain.tokenize(["passage: Host"], "query")
    np.testing.assert_allclose(
        encoder.encode(TEXTS, "query"), plain.encode([f"query: {text}" for text in TEXTS], "query"), atol=1e-6
    )
    assert np.abs(encoder.encode(TEXTS, "query") - encoder.encode(TEXTS, "passage")).max() > 1e-3


def test_truncation_keeps_the_special_tokens(load_tiny: Load) -> None:
    encoder = load_tiny(max_length=16)
    full = load_tiny().tokenize(["x" * 60], "query")[0]
    start, end = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
    (ids,) = encoder.tokenize(["x" * 60], "query")
    assert ids == [*full[:15], end]
    assert ids[0] == start
    (shorter,) = encoder.tokenize(["x" * 60], "query", max_length=9)
    assert shorter == [*full[:8], end]
    # A limit in training never exceeds the model's.
    assert encoder.tokenize(["x" * 60], "query", max_length=100) == [ids]


@pytest.mark.parametrize("training", [True, False])
def test_encode_leaves_the_mode_as_it_was_and_drops_nothing(load_tiny: Load, training: bool) -> None:
    encoder = load_tiny(dropout=0.5)
    encoder.train(training)
    first, second = encoder.encode(TEXTS, "query"), encoder.encode(TEXTS, "query")
    np.testing.assert_array_equal(first, second)
    assert encoder.training is training
    assert encoder.backbone.training is training
    np.testing.assert_allclose(first, load_tiny(dropout=0.0).encode(TEXTS, "query"), atol=1e-6)


def test_dropout_of_the_configuration_replaces_that_of_the_checkpoint(load_tiny: Load) -> None:
    def rates(encoder: BiEncoder) -> set[float]:
        return {module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates(load_tiny()) == {0.1}
    assert rates(load_tiny(dropout=0.0)) == {0.0}
    assert rates(load_tiny(dropout=0.3)) == {0.3}


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("DistilBert", {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32, "dropout": 0.3}),
        ("ModernBert", {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}),
    ],
)
@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_dropout_is_set_whatever_a_checkpoint_calls_it(
    architecture: str, settings: dict[str, Any], probability: float, tiny: Path, tmp_path: Path
) -> None:
    import transformers

    config = getattr(transformers, f"{architecture}Config")(vocab_size=260, pad_token_id=0, **settings)
    getattr(transformers, f"{architecture}Model")(config).save_pretrained(tmp_path)
    for file in tiny.glob("*token*"):
        shutil.copy(file, tmp_path)
    encoder = BiEncoder.load(tmp_path, "mean", PROMPTS, 64, dropout=probability).train()
    dropped = [module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropped or not probability
    assert set(dropped) <= {probability}
    ids, mask = torch.arange(5, 15)[None], torch.ones(1, 10, dtype=torch.long)
    one, other = (encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state for _ in range(2))
    assert torch.equal(one, other) == (probability == 0)


def test_more_tokens_than_a_checkpoint_has_positions_are_an_error(load_tiny: Callable[..., BiEncoder]) -> None:
    with pytest.raises(UserError, match=r"^model\.max_length=129: expected at most 128, the positions of "):
        load_tiny(129)
