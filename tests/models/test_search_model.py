"""Folders that are plain bi-encoders give the same either way; which GPU a process uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrofit.errors import UserError
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.export import export_sentence_transformer
from retrofit.models.search_model import SearchModel, SentenceTransformerEncoder, local_gpu

TEXTS = ["Host", " お茶 \n", "A much longer text about the password of the bridge. " * 6, "קפה", ""]
Load = Callable[..., BiEncoder]


def exported(load_tiny: Load, folder: Path, **options: Any) -> Path:
    encoder = load_tiny(**options)
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), folder)
    return folder


def change(path: Path, **changes: Any) -> None:
    stated = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stated, **changes}), encoding="utf-8")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("layout", ["of today", "of 2021"])
def test_a_plain_folder_gives_the_same_as_a_bi_encoder(
    load_tiny: Load, tmp_path: Path, pooling: str, normalised: bool, layout: str
) -> None:
    folder = exported(load_tiny, tmp_path / "m", pooling=pooling, max_length=48, prompts={"query": "q ", "passage": ""})
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(json.dumps(modules[: 3 if normalised else 2]), encoding="utf-8")
    if layout == "of 2021":
        flags = {
            f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")
        }
        old = json.dumps({"word_embedding_dimension": 32, **flags})
        (folder / "1_Pooling" / "config.json").write_text(old, encoding="utf-8")
        old = json.dumps({"max_seq_length": 48, "do_lower_case": False})
        (folder / "sentence_bert_config.json").write_text(old, encoding="utf-8")
    model = SearchModel.of_folder(folder)
    assert (model.pooling, model.prompts, model.max_length) == (pooling, {"query": "q ", "passage": ""}, 48)
    assert model.kind == "bi-encoder"
    slow = SentenceTransformerEncoder(folder, None, None)
    for kind in ("query", "passage"):
        fast = model.load().encode(TEXTS, kind, 256, "float32", "")  # type: ignore[arg-type]
        np.testing.assert_allclose(fast, slow.encode(TEXTS, kind, 256, "float32", ""), atol=1e-5)  # type: ignore[arg-type]


def test_what_is_not_said_beside_a_pooling_is_taken_from_the_folder(load_tiny: Load, tmp_path: Path) -> None:
    folder = exported(load_tiny, tmp_path / "m", pooling="mean", max_length=48, prompts={"query": "q ", "passage": ""})

    def named(**changes: Any) -> SearchModel:
        checkpoint = {"_target_": "pathlib.Path", "_args_": [str(folder)]}
        nothing = dict.fromkeys(("pooling", "prompts", "max_length"))
        return SearchModel.of({"name": "mine", "checkpoint": checkpoint, **nothing, **changes}, "loss.teacher")

    asked, own = named(pooling="cls"), named()
    assert (asked.pooling, asked.prompts, asked.max_length) == ("cls", {"query": "q ", "passage": ""}, 48)
    assert (own.pooling, own.prompts, own.max_length) == (None, None, None)
    assert named(pooling="cls", max_length=16).max_length == 16
    found, expected = (
        model.load().encode(TEXTS, "query", 256, "float32", "") for model in (own, named(pooling="mean"))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(asked.load().encode(TEXTS, "query", 256, "float32", "") - expected).max() > 1e-3
    change(folder / "1_Pooling" / "config.json", pooling_mode="max")
    with pytest.raises(UserError, match=r"^loss\.teacher=mine: expected prompts and max_length with pooling=cls"):
        named(pooling="cls")


@pytest.mark.parametrize(
    "otherwise", ["max pooling", "two poolings", "lower case", "without prompt", "dense", "pickled"]
)
def test_any_other_folder_is_used_as_it_is(load_tiny: Load, tmp_path: Path, otherwise: str) -> None:
    folder = exported(load_tiny, tmp_path / "m")
    pooling = folder / "1_Pooling" / "config.json"
    if otherwise == "max pooling":
        change(pooling, pooling_mode="max")
    elif otherwise == "two poolings":
        change(pooling, pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True)
    elif otherwise == "lower case":
        change(folder / "sentence_bert_config.json", do_lower_case=True)
    elif otherwise == "without prompt":
        change(pooling, include_prompt=False)
    elif otherwise == "dense":
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        (folder / "modules.json").write_text(json.dumps([*modules[:2], dense]), encoding="utf-8")
    else:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert SearchModel.of_folder(folder) == SearchModel(folder, None, None, None)


@pytest.mark.parametrize(("rank", "gpus", "expected"), [(None, 2, 0), ("1", 2, 1), ("3", 1, 0)])
def test_every_process_of_a_machine_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, gpus: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert local_gpu() == f"cuda:{expected}"


def test_without_a_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_gpu() is None


def test_another_tokenizer_is_another_model(load_tiny: Load, tmp_path: Path) -> None:
    folder = exported(load_tiny, tmp_path / "m")
    prompts: dict[Any, str] = {"query": "", "passage": ""}
    before = SearchModel(folder, "mean", prompts, 48).identity
    assert SearchModel(folder, "mean", prompts, 48).identity == before
    change(folder / "tokenizer.json", truncation=None, version="1.1")
    assert SearchModel(folder, "mean", prompts, 48).identity != before
