"""What an entry of ``models`` stands for, and which are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.conftest import PROMPTS

from retrofit.commands.application import configuration_folder
from retrofit.errors import UserError
from retrofit.evaluation.evaluated_model import EvaluatedModel, models_from_configuration
from retrofit.models.adapters import apply_adapter, interpolate, merged_weights
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.bm25 import LexicalSearcher
from retrofit.models.checkpoints import tiny_checkpoint, weights_fingerprint
from retrofit.models.export import export_sentence_transformer

TEXTS = ["a lamp", "die Küche", "住所", "another text that is longer"]
OPTIONS = configuration_folder() / "model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run: adapter, exported model at weight 0.5, configuration of another machine. Not to be changed."""
    import peft

    folder = tmp_path_factory.mktemp("runs") / "short" / "0123456789abcdef"
    folder.mkdir(parents=True)
    base = BiEncoder.load(tiny_checkpoint(cache), "mean", PROMPTS, 128)
    plain = {name: tensor.clone() for name, tensor in base.backbone.state_dict().items()}
    apply_adapter(base, peft.LoraConfig(r=2, target_modules=["query", "dense"]))
    with torch.no_grad():
        for parameter in base.parameters():
            parameter += parameter.requires_grad * 0.3 * torch.randn_like(parameter)
    adapted = merged_weights(base)
    base.backbone.save_pretrained(str(folder / "adapter"))
    export_sentence_transformer(base, interpolate(plain, adapted, 0.5), folder / "model")
    model = yaml.safe_load((OPTIONS / "tiny.yaml").read_text(encoding="utf-8"))
    model["checkpoint"]["cache"]["_args_"] = ["/elsewhere"]
    config = {"model": model, "paths": {"cache": "/elsewhere"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manifest = {"base_weights": weights_fingerprint(tiny_checkpoint(cache))}
    (folder / "data_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def models(cache: Path) -> Callable[..., list[EvaluatedModel]]:
    """Return a function from entries to models."""

    def of(*entries: Any) -> list[EvaluatedModel]:
        return models_from_configuration({"models": list(entries), "paths": {"cache": str(cache)}}, OPTIONS)

    return of


def vectors(model: EvaluatedModel, kind: Any = "query") -> np.ndarray:
    encoder = model.load()
    assert not isinstance(encoder, LexicalSearcher)
    return encoder.encode(TEXTS, kind, 256, "float32", "")


def test_an_option_is_composed_against_the_paths_of_now(
    models: Callable[..., list[EvaluatedModel]], tiny: Path, encoder: BiEncoder
) -> None:
    base, short, lexical = models("tiny", {"option": "tiny", "max_length": 8, "name": 2024}, "bm25")
    assert (base.name, base.source, base.kind, base.dimension, base.run) == ("tiny", "tiny", "bi-encoder", 32, None)
    assert base.parameters == sum(parameter.numel() for parameter in encoder.parameters())
    assert base.prompts == PROMPTS
    np.testing.assert_allclose(vectors(base), encoder.encode(TEXTS, "query"), atol=1e-6)
    assert (short.name, short.source) == ("2024", "tiny")
    assert short.identity != base.identity
    assert np.abs(vectors(short) - vectors(base)).max() > 1e-3
    assert (lexical.kind, lexical.parameters, lexical.dimension, lexical.megabytes) == ("bm25", None, None, None)
    assert isinstance(lexical.load(), LexicalSearcher)


def test_a_run_is_its_exported_model_and_an_adapter_is_merged_to_any_weight(
    models: Callable[..., list[EvaluatedModel]], run: Path, encoder: BiEncoder, tmp_path: Path
) -> None:
    exported, same, adapter, none, half = models(
        str(run), str(run / "model"), str(run / "adapter"), {"folder": str(run), "interpolation": 0},
        {"folder": str(run), "interpolation": 0.5, "name": "half"},
    )  # fmt: skip
    short = f"short/{run.name}"
    assert [model.name for model in (exported, same, adapter, none, half)] == [
        short, f"{run.name}/model", f"{run.name}/adapter", f"{short}@0", "half",
    ]  # fmt: skip
    assert half.source == f"{short}@0.5"
    assert {model.run for model in (exported, same, adapter, none, half)} == {run}
    assert exported.identity == same.identity
    assert len({json.dumps(model.identity) for model in (exported, adapter, none, half)}) == 4
    assert {model.parameters for model in (exported, adapter)} == {sum(p.numel() for p in encoder.parameters())}
    for kind in ("query", "passage"):
        np.testing.assert_allclose(vectors(none, kind), encoder.encode(TEXTS, kind), atol=1e-6)  # type: ignore[arg-type]
        np.testing.assert_allclose(vectors(half, kind), vectors(exported, kind), atol=1e-5)
    assert np.abs(vectors(adapter) - vectors(exported)).max() > 1e-2
    assert np.abs(vectors(adapter) - vectors(none)).max() > 1e-2
    assert next(half.load("bfloat16").parameters()).dtype == torch.bfloat16  # type: ignore[union-attr]


def test_any_folder_keeps_its_prompts_unless_others_are_given_and_e5_without_any_is_named(
    models: Callable[..., list[EvaluatedModel]], encoder: BiEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("m/plain", "m/multilingual-e5-tiny", "m/the5"):
        encoder.prompts = {"query": "", "passage": ""}
        (tmp_path / name).parent.mkdir(exist_ok=True)
        export_sentence_transformer(encoder, encoder.backbone.state_dict(), tmp_path / name)
    plain, e5, _ = models(*(str(tmp_path / name) for name in ("m/plain", "m/multilingual-e5-tiny", "m/the5")))
    assert (plain.name, plain.prompts, plain.run) == ("m/plain", {"query": "", "passage": ""}, None)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("retrofit")]
    assert warning.startswith("m/multilingual-e5-tiny: its folder names no prompts")
    (given,) = models({"folder": str(tmp_path / "m/multilingual-e5-tiny"), "prompts": PROMPTS})
    assert given.prompts == PROMPTS
    assert given.identity != e5.identity
    encoder.prompts = PROMPTS
    np.testing.assert_allclose(vectors(given), encoder.encode(TEXTS, "query"), atol=1e-6)


def refused(models: Callable[..., list[EvaluatedModel]], *entries: Any) -> str:
    with pytest.raises(UserError) as caught:
        models(*entries)
    message = str(caught.value)
    assert message.startswith("models")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("no_such", "no_such: no such folder, and no option of conf/model (bm25, embedded, "),
        (3, "expected a name, or a mapping with either an option or a folder"),
        ({"name": "x"}, "expected a name, or a mapping with either an option or a folder"),
        ({"option": "tiny", "max_lenght": 3}, "tiny: Key 'max_lenght' is not in struct"),
        ({"option": "tiny", "pooling": "max"}, "tiny: pooling=max: expected one of mean, cls, or null"),
        ({"option": "tiny", "max_length": "long"}, "tiny: max_length=long: expected a whole number of 8 or more"),
        ({"option": "tiny", "prompts": None, "pooling": None, "max_length": 7}, "tiny: max_length=7: expected"),
        ({"option": "tiny", "prompts": {"query": 5}}, "tiny: prompts={'query': 5, 'passage': 'passage: '}: expected"),
        ({"option": "bm25", "evaluated": {"shortest": 5}}, "bm25: evaluated.shortest=5, evaluated.longest=4: expected"),
        ({"option": "nowhere"}, "nowhere: no such folder"),
        ({"folder": "."}, "expected a run, the adapter/ of one, or a sentence-transformers folder"),
        ({"folder": ".", "interpolations": 1}, "interpolations: expected folder, interpolation, name, prompts"),
        ({"folder": ".", "interpolation": 1}, "interpolation goes with the folder of a run"),
    ],
)
def test_what_names_no_model_is_refused_in_one_line(
    models: Callable[..., list[EvaluatedModel]], entry: Any, expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert expected in refused(models, entry)


def test_runs_that_differ_in_nothing_but_the_seed_have_the_same_in_common(
    models: Callable[..., list[EvaluatedModel]], run: Path, tmp_path: Path
) -> None:
    stated = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))

    def common(
        name: str, seed: int, cache: str = "/elsewhere", mined: dict[str, Any] | None = None, workers: int = 1
    ) -> str | None:
        copy = tmp_path / "short" / name
        shutil.copytree(run, copy)
        model = json.loads(json.dumps(stated["model"]).replace("/elsewhere", cache))
        negatives = {"mined": {"count": 4, "seed": seed, **(mined or {})}}
        config = {
            "seed": seed,
            "model": model,
            "negatives": negatives,
            "paths": {"cache": cache},
            "engine": {"workers": workers},
            "data_source": {"pairs": {"engine": {"workers": workers}}},
        }
        (copy / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return models(str(copy))[0].unseeded

    first = common("first", 0)
    assert first is not None
    assert common("second", 1) == common("third", 2, "/somewhere else", workers=3) == first
    assert len({first, common("more", 1, mined={"count": 8}), common("own", 1, mined={"seed": 0})}) == 3


def test_names_are_different_and_there_is_a_model(models: Callable[..., list[EvaluatedModel]], run: Path) -> None:
    assert "tiny stands there twice" in refused(models, "tiny", "bm25", "tiny")
    assert "expected a list of options" in refused(models)
    weight = {"folder": str(run), "interpolation": 2}
    assert "interpolation=2: expected a number from 0 to 1" in refused(models, weight)


def test_a_run_that_was_changed_or_is_of_another_base_is_refused(
    models: Callable[..., list[EvaluatedModel]], run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "short" / "copy"
    shutil.copytree(run, copy)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))

    def write(model: dict[str, Any]) -> None:
        (copy / "config.yaml").write_text(yaml.safe_dump({**config, "model": model}), encoding="utf-8")

    write({**config["model"], "prompts": {"query": "", "passage": ""}})
    assert "its model/ says prompts={'query': 'query: ', 'passage': 'passage: '}, its config.yaml" in refused(
        models, str(copy)
    )
    checkpoint = {**config["model"]["checkpoint"], "seed": 1}
    write({**config["model"], "checkpoint": checkpoint})
    assert "its base tiny has other weights" in refused(models, str(copy / "adapter"))

    write(config["model"])
    from safetensors.torch import load_file, save_file

    path = copy / "adapter" / "adapter_model.safetensors"
    weights = load_file(str(path))
    save_file({name: torch.zeros(*(2 * size for size in tensor.shape)) for name, tensor in weights.items()}, str(path))
    assert "copy/adapter is no adapter of " in refused(models, str(copy / "adapter"))
    save_file({name.replace("layer.0", "layer.7"): tensor for name, tensor in weights.items()}, str(path))
    assert "the base has no such layer" in refused(models, {"folder": str(copy), "interpolation": 1})

    shutil.rmtree(copy / "model")
    assert "the run has no model yet" in refused(models, str(copy))
    shutil.rmtree(copy / "adapter")
    assert "the run has no adapter/" in refused(models, {"folder": str(copy), "interpolation": 1})
    (copy / "config.yaml").write_text("- another", encoding="utf-8")
    assert "config.yaml is not that of a run" in refused(models, str(copy))
