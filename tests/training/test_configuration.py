"""Every rule of the configuration: broken, it is an error of one line that names the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrofit.errors import UserError
from retrofit.training.configuration import check, check_sweep

Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    "overrides",
    [(), ("experiment=smoke",), ("negatives=dense", "engine=ray"), ("adapter=full", "loss=info_nce_symmetric")],
)
def test_shipped_configurations_keep_the_rules(train_config: Compose, overrides: tuple[str, ...]) -> None:
    check(train_config(*overrides))


@pytest.mark.parametrize(
    "override",
    [
        "batching.batch_size=2",
        "batching.steps=1",
        "batching.epochs=0.1",
        "batching.alpha.task=0",
        "loss.symmetric_weight=1",
        "loss.queue_size=0",
        "loss.dimensions=[1]",
        "optimizer.warmup_fraction=0",
        "optimizer.warmup_fraction=1",
        "export.max_drop=0",
        "export.interpolation=0.5",
        "export.gain_share=0",
        "export.gain_share=1",
        "anchor=base",
        "batching.chunk_tokens=64",
        "negatives.random=0",
        "adapter.layers=-2",
        "adapter.layers=[0,1]",
        "trainer.divergence.factor=null",
        "trainer.divergence.patience=50",
        "trainer=ddp",
        "trainer=fsdp",
        "trainer.process_group_backend=gloo",
    ],
)
def test_the_ends_of_what_is_allowed_are_allowed(train_config: Compose, override: str) -> None:
    check(train_config(override))


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("batching.batch_size", ["batching.batch_size=1"]),
        ("batching.steps", ["batching.steps=0"]),
        ("batching.steps", ["batching.steps=-3"]),
        ("batching.epochs", ["batching.epochs=0"]),
        ("batching.epochs", ["batching.epochs=-1"]),
        ("batching.max_length", ["batching.max_length=7"]),
        ("batching.chunk_tokens", ["batching.chunk_tokens=63"]),
        ("batching.alpha", ["batching.alpha=0.5"]),
        ("batching.alpha.task", ["batching.alpha.task=-0.1"]),
        ("batching.alpha.language", ["batching.alpha.language=null"]),
        ("batching.homogeneous", ["batching.homogeneous=tasks"]),
        ("data_scale.pairs", ["data_scale.pairs=1"]),
        ("task_mix.n_tasks", ["task_mix.n_tasks=0"]),
        ("languages.n_languages", ["languages.n_languages=0.5"]),
        ("negatives.given", ["negatives.given=-1"]),
        ("evaluation.suites.held_out.source", ["evaluation.suites.held_out.source=own"]),
        ("evaluation.retention.max_drop", ["evaluation.retention.max_drop=-0.01"]),
        ("logger.mode", ["logger.mode=later"]),
        ("logger.mode", ["adapter=full", "logger.mode=later"]),
        ("model.prompts", ["model.prompts.query=null"]),
        ("model.max_length", ["model.max_length=7"]),
        ("loss.teacher", ["loss=guided", "model@loss.teacher=bm25"]),
        ("loss.teacher", ["loss.guide.margin=0", "loss.teacher=embedded"]),
        ("loss.teacher.pooling", ["loss=guided", "loss.teacher.pooling=max"]),
        ("loss.teacher.max_length", ["loss=guided", "loss.teacher.max_length=0"]),
        ("negatives.mined.model", ["negatives=dense", "model@negatives.mined.model=bm25"]),
        ("negatives.mined.veto.model", ["negatives=dense", "+negatives.mined.veto={model:m,reranker:null,margin:0}"]),
        ("negatives.mined.per_query", ["negatives=dense", "negatives.mined.per_query=8", "negatives.mined.count=4"]),
        ("anchor.weight", ["anchor.weight=5"]),
        ("anchor.tasks", ["anchor.weight=5", "anchor.texts=4"]),
        ("logger.upload_model", ["logger.upload_model=weights"]),
        ("evaluation.retention.groups.high_resource", ["evaluation.retention.groups.high_resource=en"]),
        ("evaluation.retention.groups.high_resource", ["evaluation.retention.groups.high_resource=[]"]),
        ("evaluation.suites.held_out.kind", ["evaluation.suites.held_out.kind=retreival"]),
        ("evaluation.suites.held_out.max_queries", ["evaluation.suites.held_out.max_queries=0"]),
        ("evaluation.suites", ["evaluation.suites=null"]),
        ("evaluation.suites.held_out", ["evaluation.suites.held_out=null"]),
        ("evaluation.sources", ["evaluation.sources=null"]),
        ("evaluation.retention.groups", ["evaluation.retention.groups=null"]),
        ("task_mix.weights", ["task_mix.weights=null"]),
        ("evaluation.validation", ["evaluation.validation=null"]),
        ("evaluation.validation.held_out", ["evaluation.validation.held_out=null"]),
        ("evaluation.validation.held_out.max_queries", ["evaluation.validation.held_out.max_queries=many"]),
        ("evaluation.validation.held_out", ["+evaluation.validation.held_out.kind=bitext"]),
        ("evaluation.validation.held_out.max_query", ["+evaluation.validation.held_out.max_query=3"]),
        ("evaluation.suites.held_out.source", ["evaluation.suites.held_out.source=[embedded]"]),
        ("evaluation.suites.held_out.kind", ["evaluation.suites.held_out.kind=[retrieval]"]),
        ("evaluation.suites.held_out.pool", ["evaluation.suites.held_out.pool=[task]"]),
        ("anchor.tasks", ["anchor=base", "anchor.tasks=5"]),
        ("adapter.config.target_modules", ["adapter.config.target_modules='['"]),
        ("adapter.config.target_modules", ["adapter.config.target_modules=5"]),
        ("adapter.config.target_modules", ["adapter.config.target_modules=[query,5]"]),
        ("optimizer.optimizer.weight_decay", ["optimizer.optimizer.weight_decay=-1"]),
        ("optimizer.optimizer.weight_decay", ["optimizer.optimizer.weight_decay=null"]),
        ("task_mix.tasks", ["task_mix.tasks=interface"]),
        ("languages.languages", ["languages.languages=en"]),
        ("languages.languages", ["languages.languages=[1]"]),
        ("model.checkpoint", ["model.checkpoint=here"]),
        ("model.prompts", ["model.prompts=none"]),
        ("model.prompts", ["model.prompts=null"]),
        ("optimizer.optimizer", ["optimizer.optimizer=null"]),
        ("optimizer.optimizer.lr", ["optimizer.optimizer.lr=-1"]),
        ("optimizer.optimizer.lr", ["optimizer.optimizer.lr=abc"]),
        ("trainer.attention", ["trainer.attention=fast"]),
        ("negatives.mined.veto", ["negatives=dense", "negatives.mined.veto=5"]),
        ("loss.temperature", ["loss.temperature=0"]),
        ("loss.temperature", ["loss.temperature=-0.02"]),
        ("loss.symmetric_weight", ["loss.symmetric_weight=1.1"]),
        ("loss.symmetric_weight", ["loss.symmetric_weight=-0.1"]),
        ("loss.hardness", ["loss.hardness=-0.5"]),
        ("loss.learn_temperature", ["loss.learn_temperature=sometimes"]),
        ("loss.temperature", ["loss.learn_temperature=true", "loss.temperature=0.009"]),
        ("loss.temperature", ["loss.learn_temperature=true", "loss.temperature=2"]),
        ("loss.teacher", ["loss.guide.margin=0"]),
        ("loss.teacher", ["loss.distillation.kind=margin_mse"]),
        ("loss.teacher", ["model@loss.teacher=tiny"]),
        ("loss.guide.margin", ["loss=guided", "loss.guide.margin=3"]),
        ("loss.guide.relative", ["loss=guided", "loss.guide.relative=2"]),
        ("loss.guide.in_batch_only", ["loss=guided", "loss.guide.in_batch_only=null"]),
        ("loss.distillation.kind", ["loss=distilled", "loss.distillation.kind=cosine"]),
        ("loss.distillation.weight", ["loss=distilled", "loss.distillation.weight=1.5"]),
        ("loss.distillation.teacher_temperature", ["loss=distilled", "loss.distillation.teacher_temperature=0"]),
        ("loss.dimensions", ["loss.dimensions=[]"]),
        ("loss.dimensions", ["loss.dimensions=128"]),
        ("loss.dimensions", ["loss.dimensions=[128,64,128]"]),
        ("loss.dimensions", ["loss.dimensions=[128,0.5]"]),
        ("loss.dimension_weights", ["loss.dimension_weights=[1]"]),
        ("loss.dimension_weights", ["loss=matryoshka", "loss.dimension_weights=[1,1,1]"]),
        ("loss.dimension_weights", ["loss=matryoshka", "loss.dimension_weights=[1,1,1,0]"]),
        ("loss.queue_size", ["loss.queue_size=-1"]),
        ("loss.queue_size", ["loss.queue_size=0.5"]),
        ("adapter.learning_rate", ["adapter.learning_rate=0"]),
        ("optimizer.warmup_fraction", ["optimizer.warmup_fraction=1.5"]),
        ("optimizer.warmup_fraction", ["optimizer.warmup_fraction=-0.5"]),
        ("negatives.random", ["negatives.random=-1"]),
        ("evaluation.suites", ["~evaluation.suites", "+evaluation.suites={}", "export=retrofitted"]),
        ("evaluation.suites", ["~evaluation.suites.held_out"]),
        (
            "export.interpolation",
            [
                "evaluation.suites=null",
                "+evaluation.suites.held_out={kind:retrieval,source:embedded,tasks:null,pool:task,max_queries:1,max_passages:1}",
            ],
        ),
        ("export.max_drop", ["export.max_drop=-0.01"]),
        ("export.gain_share", ["export.gain_share=1.01"]),
        ("export.gain_share", ["export.gain_share=-0.5"]),
        ("anchor.weight", ["anchor.weight=-1"]),
        ("anchor.texts", ["anchor.texts=-1"]),
        ("anchor.texts", ["anchor=base", "adapter=full"]),
        ("anchor.texts", ["anchor=base", "adapter.config.bias=lora_only"]),
        ("adapter.config.r", ["adapter.config.r=0"]),
        ("adapter.config.lora_alpha", ["adapter.config.lora_alpha=0"]),
        ("adapter.config.lora_dropout", ["adapter.config.lora_dropout=1.5"]),
        ("adapter.config.bias", ["adapter.config.bias=some"]),
        ("adapter.config.use_dora", ["adapter.config.use_dora=maybe"]),
        ("adapter.layers", ["adapter.layers=first"]),
        ("adapter.layers", ["adapter.layers=[]"]),
        ("adapter.layers", ["adapter.layers=[0.5]"]),
        ("adapter.train_embeddings", ["adapter.train_embeddings=true"]),
        ("adapter.train_embeddings", ["adapter=full", "adapter.train_embeddings=1.5"]),
        ("trainer.loader_workers", ["trainer.loader_workers=-1"]),
        ("trainer.loader_workers", ["negatives=refreshed", "trainer.loader_workers=1"]),
        ("trainer.devices", ["trainer.devices=0"]),
        ("trainer.devices", ["trainer.devices=auto"]),
        ("trainer.num_nodes", ["trainer.num_nodes=0"]),
        ("trainer.accelerator", ["trainer.accelerator=tpu"]),
        ("trainer.strategy", ["trainer.strategy=deepspeed"]),
        ("trainer.strategy", ["trainer.devices=2"]),
        ("trainer.strategy", ["trainer.num_nodes=2"]),
        ("trainer.strategy", ["trainer=fsdp", "negatives=refreshed"]),
        ("trainer.process_group_backend", ["trainer.process_group_backend=mpi"]),
        (
            "trainer.process_group_backend",
            ["trainer=ddp", "trainer.accelerator=cpu", "trainer.process_group_backend=nccl"],
        ),
        ("engine.workers", ["negatives=dense", "engine=ray", "engine.workers=0"]),
        ("engine.cpus_per_worker", ["negatives=dense", "engine=ray", "engine.cpus_per_worker=0.5"]),
        ("engine.gpus_per_worker", ["negatives=dense", "engine=ray", "engine.gpus_per_worker=-1"]),
    ],
)
def test_a_broken_rule_names_its_key(train_config: Compose, key: str, overrides: list[str]) -> None:
    config = train_config(*overrides)
    with pytest.raises(UserError) as caught:
        check(config)
    message = str(caught.value)
    assert message.startswith(f"{key}=")
    assert ": expected " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ("FOLDER", "folders=FOLDER: expected a list"),
        ("[FOLDER/nowhere]", "folders[0]=FOLDER/nowhere: no such folder"),
        ("[{path:FOLDER,max_queries:0}]", "folders.own.max_queries"),
        ("[{path:FOLDER,name:2024}]", "folders[0].name=2024: expected a name"),
        ("[{path:FOLDER,name:[a]}]", "folders[0].name=['a']: expected a name"),
        ("[{path:FOLDER,kind:[bitext]}]", "folders.own.kind: expected one of"),
        ("[{path:FOLDER,kind:bitext}]", "folders: own is of kind bitext: expected retrieval"),
        (
            "[{path:FOLDER,name:held_out}]",
            "folders=[{'path': 'FOLDER', 'name': 'held_out'}]: expected folders with names",
        ),
    ],
)
def test_folders_that_training_cannot_measure(
    train_config: Compose, tmp_path: Path, folders: str, message: str
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(UserError) as caught:
        check(train_config("folders=" + folders.replace("FOLDER", str(folder))))
    assert str(caught.value).startswith(message.replace("FOLDER", str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("export.interpolation", ["export.interpolation=2"]),
        ("export.interpolation", ["export.interpolation=[]"]),
        ("export.interpolation", ["export.interpolation=[0,1]"]),
    ],
)
def test_what_would_only_fail_after_the_training_is_found_before_it(
    train_config: Compose, key: str, overrides: list[str]
) -> None:
    with pytest.raises(UserError, match=f"^{key}="):
        check(train_config(*overrides))


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("batching.batch_size", ["batching.batch_size=many"]),
        ("batching.epochs", ["batching.epochs=null"]),
        ("loss.temperature", ["loss.temperature=null"]),
        ("trainer.checkpoint_every", ["trainer.checkpoint_every=0"]),
        ("trainer.log_every", ["trainer.log_every=0"]),
        ("trainer.keep_checkpoints", ["trainer.keep_checkpoints=0"]),
        ("trainer.divergence.factor", ["trainer.divergence.factor=1"]),
        ("trainer.divergence.window", ["trainer.divergence.window=0"]),
        ("trainer.divergence.patience", ["trainer.divergence.patience=0"]),
        ("trainer.divergence.patience", ["trainer.divergence.patience=51"]),
        ("data_scale.pairs_per_language", ["data_scale.pairs_per_language=0"]),
        ("task_mix.weights", ["+task_mix.weights.field_help=-1"]),
        ("task_mix.weights", ["task_mix=field_help", "+task_mix.weights.field_help=0"]),
        ("task_mix.weights", ["+task_mix.weights.fild_help=2"]),
        ("model.pooling", ["model.pooling=max"]),
        ("evaluation.suites.held_out.pool", ["evaluation.suites.held_out.pool=langauge"]),
        ("trainer.precision", ["trainer.precision=float16"]),
        ("evaluation.precision", ["evaluation.precision=int8"]),
        ("seed", ["seed=-1"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_values_that_cannot_be_carried_out_name_their_key(
    train_config: Compose, key: str, overrides: list[str]
) -> None:
    """Without a rule these end in a traceback, are blamed on another key, or silently do something else."""
    config = train_config(*overrides)
    with pytest.raises(UserError) as caught:
        check(config)
    assert key in str(caught.value)


def test_a_job_of_a_sweep_is_one_process(train_config: Compose) -> None:
    check_sweep(train_config("trainer=gpu"))
    for key, overrides in (("trainer.devices", ("trainer=ddp",)), ("trainer.num_nodes", ("trainer.num_nodes=2",))):
        with pytest.raises(UserError, match=f"^{key}=[28]: expected 1 in a multirun"):
            check_sweep(train_config(*overrides))
