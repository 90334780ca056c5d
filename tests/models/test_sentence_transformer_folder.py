"""What a sentence-transformers folder says of its model, against what the library itself makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.export import export_sentence_transformer
from retrofit.models.sentence_transformer_folder import bi_encoder_settings, modules_of, prompts_of


@pytest.fixture
def folder(load_tiny: Callable[..., BiEncoder], tmp_path: Path) -> Path:
    """A plain bi-encoder; its tokenizer and its positions both end at 128."""
    encoder = load_tiny()
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), tmp_path / "m")
    return tmp_path / "m"


def change(path: Path, changes: dict[str, Any]) -> None:
    """Set keys of a JSON file; None takes one away."""
    stated = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in stated.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    ("stated", "of_tokenizer", "expected"),
    [
        ({}, {"model_max_length": 40}, 40),
        ({}, {"model_max_length": 200}, 128),
        ({}, {"model_max_length": 10**30}, 128),
        ({}, {"model_max_length": None}, 128),
        ({"max_seq_length": 100}, {"model_max_length": 40}, 100),
    ],
)
def test_texts_are_cut_where_sentence_transformers_cuts_them(
    folder: Path, stated: dict[str, Any], of_tokenizer: dict[str, Any], expected: int
) -> None:
    from sentence_transformers import SentenceTransformer

    change(folder / "sentence_bert_config.json", stated)
    change(folder / "tokenizer_config.json", of_tokenizer)
    settings = bi_encoder_settings(folder)
    assert settings is not None
    assert settings["max_length"] == expected
    assert SentenceTransformer(str(folder), device="cpu").max_seq_length == expected


@pytest.mark.parametrize("name", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_settings_of_older_folders_are_read_as_sentence_transformers_reads_them(folder: Path, name: str) -> None:
    from sentence_transformers import SentenceTransformer

    older = folder / f"sentence_{name}_config.json"
    (folder / "sentence_bert_config.json").rename(older)
    change(older, {"max_seq_length": 50})
    settings = bi_encoder_settings(folder)
    assert settings is not None
    assert settings["max_length"] == 50
    assert SentenceTransformer(str(folder), device="cpu").max_seq_length == 50
    change(older, {"do_lower_case": True})
    assert bi_encoder_settings(folder) is None


def test_of_several_files_of_settings_the_first_that_says_something_holds(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    for name, length in (("xlnet", 30), ("albert", 40)):
        (folder / f"sentence_{name}_config.json").write_text(json.dumps({"max_seq_length": length}), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text("{}", encoding="utf-8")
    settings = bi_encoder_settings(folder)
    assert settings is not None
    assert settings["max_length"] == SentenceTransformer(str(folder), device="cpu").max_seq_length == 40


def test_a_model_without_a_limit_or_with_a_decoder_is_no_plain_bi_encoder(folder: Path) -> None:
    assert bi_encoder_settings(folder) is not None
    change(folder / "config.json", {"is_encoder_decoder": True})
    assert bi_encoder_settings(folder) is None
    change(folder / "config.json", {"is_encoder_decoder": False, "max_position_embeddings": None})
    change(folder / "tokenizer_config.json", {"model_max_length": 10**30})
    assert bi_encoder_settings(folder) is None


def test_a_transformer_in_a_folder_of_its_own_is_no_plain_bi_encoder(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert bi_encoder_settings(folder) is None


def test_modules_are_named_by_their_class_in_their_order(tmp_path: Path) -> None:
    assert modules_of(tmp_path) == []
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        {"path": "own", "type": "Own"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert modules_of(tmp_path) == [
        ("Transformer", tmp_path), ("Pooling", tmp_path / "1_Pooling"), ("Own", tmp_path / "own"),
    ]  # fmt: skip
    assert bi_encoder_settings(tmp_path) is None


@pytest.mark.parametrize(
    ("stored", "query", "passage"),
    [
        (None, "", ""),
        ({}, "", ""),
        ({"prompts": None}, "", ""),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"query": None, "document": "", "corpus": "c: "}}, "", "c: "),
        ({"prompts": {"document": "d: ", "passage": "p: ", "other": "o: "}}, "", "d: "),
    ],
)
def test_prompts_of_a_folder(tmp_path: Path, stored: dict[str, Any] | None, query: str, passage: str) -> None:
    if stored is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(stored), encoding="utf-8")
    assert prompts_of(tmp_path) == {"query": query, "passage": passage}
