"""The training step: chunking changes nothing, dropout replays, checkpoints hold what was trained."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer

from retrofit.data.batching import PlannedBatches, TokenBatch
from retrofit.data.curation.artefact import Curation
from retrofit.data.selection import select
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData
from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.losses.info_nce import InfoNCE
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder, pad
from retrofit.training.callbacks import CURVE_COLUMNS, TrainingCurve, checkpoint_every, training_seconds
from retrofit.training.checkpoint_files import CheckpointFiles
from retrofit.training.datamodule import RetrievalDataModule
from retrofit.training.module import RetrievalModule
from retrofit.training.retrofit import planned_batches

Load = Callable[..., BiEncoder]
Compose = Callable[..., dict[str, Any]]
STEPS = 6


def whole_source(corpus: Path) -> TrainingData:
    """All training pairs of the tiny corpus."""
    source = PairSource.open(corpus)
    rows = select(source.pairs, "train")
    return TrainingData(source, Curation(rows, source.pairs.slice(0, 0), {}), rows)


@pytest.fixture
def config(train_config: Compose) -> dict[str, Any]:
    return train_config("model=tiny", "batching.batch_size=4", f"batching.steps={STEPS}", "negatives=random")


@pytest.fixture
def batches(config: dict[str, Any], corpus: Path, encoder: BiEncoder) -> PlannedBatches:
    return planned_batches(config, whole_source(corpus), encoder)


def test_batches_can_be_sent_to_processes_that_are_spawned(batches: PlannedBatches) -> None:
    sent = pickle.loads(pickle.dumps(batches))  # noqa: S301 -- made here
    assert sent[0].token_ids == batches[0].token_ids


def adapted(load: Load, compose: Compose, adapter: str, **options: Any) -> BiEncoder:
    encoder = load(**options)
    torch.manual_seed(0)
    apply_adapter(encoder, instantiate(compose(f"adapter={adapter}")["adapter"]["config"]))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    return encoder


def module_of(
    encoder: BiEncoder,
    chunk_tokens: int = 256,
    seed: int = 0,
    loss: Any = None,
    anchor_weight: float = 0.0,
    kept_tokens: int | None = None,
) -> RetrievalModule:
    return RetrievalModule(
        encoder,
        loss or InfoNCE(0.05, 0.3),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        anchor_weight=anchor_weight,
        total_steps=STEPS,
        warmup_fraction=0.2,
        chunk_tokens=chunk_tokens,
        kept_tokens=kept_tokens,
        precision="float32",
        seed=seed,
    )


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("adapter", ["lora", "dora", "full"])
@pytest.mark.parametrize(("chunk_tokens", "kept_tokens"), [(1, None), (150, 0), (150, 300), (100_000, None)])
def test_a_step_has_the_loss_and_gradient_of_one_plain_forward(
    load_tiny: Load,
    train_config: Compose,
    batches: PlannedBatches,
    adapter: str,
    chunk_tokens: int,
    kept_tokens: int | None,
) -> None:
    encoder = adapted(load_tiny, train_config, adapter, dropout=0.0).train().double()
    module, batch = module_of(encoder, chunk_tokens, loss=InfoNCE(0.5, 0.3), kept_tokens=kept_tokens), batches[0]
    loss = module.training_step(batch, 0)
    loss.backward()
    chunked = gradients(encoder)
    encoder.zero_grad()

    # No padding and no chunks here: every text by itself.
    rows = []
    for ids in batch.token_ids:
        input_ids, mask = pad([ids], encoder.tokenizer.pad_token_id)
        hidden = encoder.backbone(input_ids=input_ids, attention_mask=mask).last_hidden_state[0].mean(0)
        rows.append((hidden / hidden.norm()).float())
    embeddings = torch.stack(rows)
    plain = module.loss(module.step_embeddings(*embeddings.tensor_split((batch.n_queries,)), batch))
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    expected = gradients(encoder)
    assert chunked.keys() == expected.keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in expected.items():
        # Attention does not see a key's bias: its gradient is noise around zero.
        torch.testing.assert_close(
            chunked[name], gradient, atol=1e-6, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("kept_tokens", [0, 400])
def test_a_step_that_computes_activations_again_has_the_gradients_of_one_that_keeps_them(
    load_tiny: Load,
    train_config: Compose,
    batches: PlannedBatches,
    kept_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RetrievalModule, "global_step", 4)
    found = []
    for kept in (None, kept_tokens):
        encoder = adapted(load_tiny, train_config, "lora", dropout=0.3).train()
        loss = InfoNCE(0.5, 0.3, learn_temperature=True)
        module = module_of(encoder, chunk_tokens=150, loss=loss, kept_tokens=kept)
        module.on_train_batch_start(batches[0], 4)
        outcome = module.training_step(batches[0], 4)
        torch.rand(7)  # whatever is drawn between the two passes does not matter
        outcome.backward()
        found.append({"loss": outcome.detach(), **gradients(module)})
    kept_all, computed_again = found
    assert kept_all.keys() == computed_again.keys()
    assert "loss.temperature.log_inverse" in kept_all
    for name, tensor in kept_all.items():
        torch.testing.assert_close(computed_again[name], tensor, atol=1e-6, rtol=0, msg=name)


def test_embeddings_come_in_the_order_of_the_texts(load_tiny: Load) -> None:
    encoder = load_tiny()
    texts = ["a longer text than the others", "b", "the third one", "d", "xyz"]
    with torch.inference_mode():
        embedded = module_of(encoder, chunk_tokens=40).embed(encoder.tokenize(texts, "query"))
    np.testing.assert_allclose(embedded.numpy(), encoder.encode(texts, "query"), atol=1e-6)


def run_step(module: RetrievalModule, batch: TokenBatch, step: int, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.setattr(RetrievalModule, "global_step", step)
    module.on_train_batch_start(batch, step)
    return module.training_step(batch, step).detach()


def test_dropout_replays_by_seed_and_step(
    load_tiny: Load, batches: PlannedBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = module_of(load_tiny(dropout=0.3).train()), batches[0]
    losses = [run_step(module, batch, step, monkeypatch) for step in (3, 4, 3)]
    assert torch.equal(losses[0], losses[2])
    assert not torch.equal(losses[0], losses[1])
    other = module_of(load_tiny(dropout=0.3).train(), seed=1)
    assert not torch.equal(run_step(other, batch, 3, monkeypatch), losses[0])
    # What was drawn in between does not matter.
    drawn = random.random(), np.random.random(), torch.rand(17)  # noqa: S311
    again = module_of(load_tiny(dropout=0.3).train())
    assert torch.equal(run_step(again, batch, 3, monkeypatch), losses[0])
    again.on_train_batch_start(batch, 3)
    first = random.random(), np.random.random(), torch.rand(17)  # noqa: S311
    again.on_train_batch_start(batch, 3)
    second = random.random(), np.random.random(), torch.rand(17)  # noqa: S311
    assert first[:2] == second[:2] != drawn[:2]
    assert torch.equal(first[2], second[2])


def test_processes_drop_out_differently_and_the_same_whenever_asked(
    load_tiny: Load, batches: PlannedBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, drawn = module_of(load_tiny()), []
    for rank, seed, step in [(0, 0, 3), (1, 0, 3), (0, 0, 4), (0, 1, 3), (1, 0, 3)]:
        monkeypatch.setattr(RetrievalModule, "global_rank", rank)
        monkeypatch.setattr(RetrievalModule, "global_step", step)
        module.seed = seed
        module.on_train_batch_start(batches[0], step)
        drawn.append(torch.rand(8).tolist())
    assert drawn[1] == drawn[4]
    assert len(set(map(tuple, drawn))) == 4


def fit(
    module: RetrievalModule, batches: PlannedBatches, folder: Path, stop: int = STEPS, resume: Path | None = None
) -> list[dict[str, float]]:
    mirrored: list[dict[str, float]] = []
    folder.mkdir(parents=True, exist_ok=True)

    class StopAfter(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
            if trainer.global_step == stop < STEPS:
                raise KeyError("killed")

    timer = Timer()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, default_root_dir=folder,
        callbacks=[
            timer,
            checkpoint_every(folder / "checkpoints", 2),
            TrainingCurve(folder / "training_curve.csv", 2, timer, mirrored.append),
            StopAfter(),
        ],
        plugins=[CheckpointFiles(keep=1)],
    )  # fmt: skip
    trainer.fit(module, datamodule=RetrievalDataModule(batches), ckpt_path=resume, weights_only=True)
    return mirrored


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_resumed_training_ends_with_the_weights_and_the_curve_of_an_uninterrupted_one(
    load_tiny: Load, train_config: Compose, batches: PlannedBatches, tmp_path: Path, stop: int
) -> None:
    whole = module_of(adapted(load_tiny, train_config, "lora", dropout=0.2).train())
    mirrored = fit(whole, batches, tmp_path / "whole")
    curve = (tmp_path / "whole" / "training_curve.csv").read_text().splitlines()
    assert curve[0] == ",".join(CURVE_COLUMNS)
    assert [row["step"] for row in mirrored] == [2, 4, 6]
    assert len(curve) == 4

    folder = tmp_path / "parts"
    with pytest.raises(KeyError, match="killed"):
        fit(module_of(adapted(load_tiny, train_config, "lora", dropout=0.2).train()), batches, folder, stop)
    (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
    assert checkpoint.name == ("step=4.ckpt" if stop == 5 else "step=2.ckpt")
    torch.rand(5)
    resumed = module_of(adapted(load_tiny, train_config, "lora", dropout=0.2).train())
    rows = fit(resumed, batches, folder, resume=checkpoint)
    assert [row["step"] for row in rows] == ([6] if stop == 5 else [4, 6])
    for (name, expected), parameter in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(parameter, expected), name
    again = (folder / "training_curve.csv").read_text().splitlines()
    assert again[0] == curve[0]
    assert [values(line) for line in again[1:]] == [values(line) for line in curve[1:]]


def test_the_seconds_of_a_resumed_training_include_those_before_its_checkpoint(
    load_tiny: Load, batches: PlannedBatches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(KeyError, match="killed"):
        fit(module_of(load_tiny().train()), batches, tmp_path, stop=5)
    before = training_seconds(tmp_path / "training_curve.csv")  # at step 4, where the checkpoint is
    (checkpoint,) = (tmp_path / "checkpoints").glob("*.ckpt")
    clock = itertools.count(10_000)
    (row,) = fit(module_of(load_tiny().train()), batches, tmp_path, resume=checkpoint)
    assert before < row["seconds"] < 2 * before + 10
    assert training_seconds(tmp_path / "training_curve.csv") == row["seconds"]


def test_a_curve_of_another_version_is_named(load_tiny: Load, batches: PlannedBatches, tmp_path: Path) -> None:
    (tmp_path / "training_curve.csv").write_text("step,loss\n2,0.5\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"training_curve\.csv has no column seconds: .* delete its folder"):
        fit(module_of(load_tiny().train()), batches, tmp_path)


def values(line: str) -> list[float]:
    return [float(value) for value in line.split(",")[:3]]


def test_steps_in_a_resumed_curve_are_spelled_as_in_an_uninterrupted_one(
    load_tiny: Load, batches: PlannedBatches, tmp_path: Path
) -> None:
    with pytest.raises(KeyError, match="killed"):
        fit(module_of(load_tiny().train()), batches, tmp_path, stop=3)
    (checkpoint,) = (tmp_path / "checkpoints").glob("*.ckpt")
    fit(module_of(load_tiny().train()), batches, tmp_path, resume=checkpoint)
    curve = (tmp_path / "training_curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in curve] == ["step", "2", "4", "6"]


def test_training_moves_what_is_trainable_and_nothing_else(
    load_tiny: Load, train_config: Compose, batches: PlannedBatches, tmp_path: Path
) -> None:
    module = module_of(adapted(load_tiny, train_config, "lora", dropout=0.0).train())
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    fit(module, batches, tmp_path)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name]) is not parameter.requires_grad, name


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_checkpoint_holds_trainable_weights_only(
    load_tiny: Load, train_config: Compose, batches: PlannedBatches, tmp_path: Path, adapter: str
) -> None:
    module = module_of(adapted(load_tiny, train_config, adapter).train())
    fit(module, batches, tmp_path)
    (checkpoint,) = (tmp_path / "checkpoints").glob("*.ckpt")
    assert checkpoint.name == f"step={STEPS}.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert stored["state_dict"].keys() == trainable.keys()
    for name, tensor in stored["state_dict"].items():
        assert torch.equal(tensor, trainable[name])
    assert not any("word_embeddings" in name for name in stored["state_dict"])
    (optimizer,) = stored["optimizer_states"]
    assert len(optimizer["state"]) == len(trainable)
    assert {int(state["step"]) for state in optimizer["state"].values()} == {STEPS}
    assert [scheduler["last_epoch"] for scheduler in stored["lr_schedulers"]] == [STEPS]
    assert stored["RetrievalDataModule"] == {"done": STEPS}
    assert stored["global_step"] == STEPS


def test_the_learning_rate_rises_and_falls_linearly() -> None:
    encoder: Any = torch.nn.Linear(2, 2)
    module = RetrievalModule(
        encoder,
        InfoNCE(1.0),
        lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        0.0,
        10,
        0.2,
        10,
        None,
        "float32",
        0,
    )
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert optimizer.param_groups[0]["lr"] == 0


@pytest.fixture
def anchored(train_config: Compose, corpus: Path, encoder: BiEncoder) -> PlannedBatches:
    config = train_config(
        "model=tiny",
        "batching.batch_size=4",
        f"batching.steps={STEPS}",
        "anchor=base",
        "anchor.texts=5",
        "anchor.tasks=[definition]",
    )
    return planned_batches(config, whole_source(corpus), encoder)


def test_anchors_are_drawn_by_seed_and_step(anchored: PlannedBatches, batches: PlannedBatches) -> None:
    drawn = [anchored[step].anchors for step in range(STEPS)]
    assert drawn == [anchored[step].anchors for step in range(STEPS)]
    assert all(len(texts) == 5 for texts in drawn)
    assert len({str(texts) for texts in drawn}) == STEPS
    assert all(batches[step].anchors == [] for step in range(STEPS))


def test_anchors_are_queries_and_passages_of_their_own_pairs(
    anchored: PlannedBatches, encoder: BiEncoder, corpus: Path
) -> None:
    table = PairSource.open(corpus).pairs
    pairs = table.take(select(table, "train", ["definition"])).to_pylist()
    texts = {f"query: {row['query']}" for row in pairs} | {f"passage: {row['positives'][0]}" for row in pairs}
    spelled = {
        encoder.tokenizer.decode(ids, skip_special_tokens=True)
        for step in range(STEPS)
        for ids in anchored[step].anchors
    }
    assert spelled <= texts
    assert {text.split(":")[0] for text in spelled} == {"query", "passage"}


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_the_anchor_is_the_distance_to_the_base(
    load_tiny: Load, train_config: Compose, anchored: PlannedBatches, tmp_path: Path, adapter: str
) -> None:
    module = module_of(adapted(load_tiny, train_config, adapter, dropout=0.0).train(), anchor_weight=2.0)
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    base, batch = load_tiny(dropout=0.0), anchored[0]
    expected = []
    with torch.inference_mode():
        for ids in batch.anchors:
            padded = pad([ids], base.tokenizer.pad_token_id)
            expected.append(1 - (module.encoder(*padded) * base(*padded)).sum().item())
    drift = module.drift(module.embed(batch.anchors), batch.anchors, batch.n_anchors)
    assert drift.item() == pytest.approx(np.mean(expected), abs=1e-6)
    assert drift.item() > 1e-4
    plain = dataclasses.replace(batch, anchors=[], n_anchors=0)
    with_anchor, without = module.training_step(batch, 0), module.training_step(plain, 0)
    assert with_anchor.item() == pytest.approx(without.item() + 2 * drift.item(), abs=1e-5)
    drift.backward()
    assert any(gradient.abs().max() > 0 for gradient in gradients(module.encoder).values())


def test_an_untrained_adapter_has_not_drifted(
    load_tiny: Load, train_config: Compose, anchored: PlannedBatches, tmp_path: Path
) -> None:
    encoder = load_tiny(dropout=0.0).train()
    apply_adapter(encoder, instantiate(train_config("adapter=lora")["adapter"]["config"]))
    module = module_of(encoder, anchor_weight=1.0)
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    batch = anchored[0]
    assert module.drift(module.embed(batch.anchors), batch.anchors, batch.n_anchors).item() == pytest.approx(
        0, abs=1e-6
    )


def test_a_heavy_anchor_keeps_a_model_near_its_base(
    load_tiny: Load, train_config: Compose, anchored: PlannedBatches, tmp_path: Path
) -> None:
    moved = []
    for weight in (0.0, 1000.0):
        encoder = load_tiny(dropout=0.0).train()
        torch.manual_seed(0)
        apply_adapter(encoder, instantiate(train_config("adapter=lora")["adapter"]["config"]))
        fit(module_of(encoder, anchor_weight=weight), anchored, tmp_path / str(weight))
        texts = ["Host", "お茶", "the password of the bridge"]
        moved.append(np.abs(encoder.encode(texts, "query") - load_tiny().encode(texts, "query")).max())
    assert moved[1] < moved[0] / 2


def test_the_anchor_is_where_the_base_is_without_dropout(
    load_tiny: Load, train_config: Compose, anchored: PlannedBatches, tmp_path: Path
) -> None:
    module = module_of(adapted(load_tiny, train_config, "lora", dropout=0.3).train(), anchor_weight=1.0)
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    anchors = anchored[0].anchors
    with torch.no_grad():
        of_the_base = module_of(load_tiny()).embed(anchors)
    assert module.drift(of_the_base, anchors, len(anchors)).item() == pytest.approx(0, abs=1e-6)
    assert all(part.training for part in module.encoder.modules())
