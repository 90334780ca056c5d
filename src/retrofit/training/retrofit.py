"""The main job: measure the base, train, choose the interpolation, export, measure again, and write it all down."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer

from retrofit.artefacts import fingerprint, write_json, write_text
from retrofit.data.batching import BatchContents, NegativesByRow, PlannedBatches
from retrofit.data.selection import strata
from retrofit.data.training_data import TrainingData
from retrofit.engine import LOCAL
from retrofit.evaluation.evaluate import write_results
from retrofit.evaluation.summary import headline, metrics_frame
from retrofit.instantiation import instantiate
from retrofit.losses.objective import check_dimensions
from retrofit.losses.step import Objective
from retrofit.models.adapters import apply_adapter, interpolate, merged_weights
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import files_fingerprint, state_fingerprint, weights_fingerprint
from retrofit.models.export import export_sentence_transformer
from retrofit.models.precision import resolve_precision
from retrofit.negatives.from_configuration import miner_of
from retrofit.provenance import checkout_commit
from retrofit.training.callbacks import TrainingCurve, checkpoint_every, training_seconds
from retrofit.training.checkpoint_files import newest_whole_checkpoint
from retrofit.training.datamodule import RetrievalDataModule
from retrofit.training.distributed import leave, load_trained, trained_weights
from retrofit.training.divergence import LossLevel, StopOnDivergence
from retrofit.training.examples import example_queries
from retrofit.training.folder_leakage import tell_leakage
from retrofit.training.interpolation import try_weights, weights_to_try
from retrofit.training.job import Job
from retrofit.training.lightning_trainer import fit, is_first_process, lightning_trainer, processes
from retrofit.training.module import RetrievalModule
from retrofit.training.refresh import CurrentNegatives, RefreshNegatives, steps_between
from retrofit.training.run_folder import RunFolder
from retrofit.training.teacher import Teacher
from retrofit.training.wandb_mirror import WandbMirror

log = logging.getLogger(__name__)


def retrofit(config: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    """Carry out a run and return its headline figures; what was done before in the same folder is not done again.

    Of several processes, this is what the first one does; the others :func:`take_part`.

    Args:
        config: the resolved configuration of ``retrofit train``.
        run: where to write; the parts of an interrupted run are taken up.

    Raises:
        UserError: something the user can put right in the configuration, the cache or the network.
    """
    started = time.monotonic()
    job = Job.prepare(config, run)
    run.begin_with(
        {
            "data_source": config["data_source"]["name"],
            "base_weights": job.base,
            "base_files": job.base_files,
            "other_models": job.other_models,
            **job.data.manifest(),
        }
    )
    base = job.encoder()
    check_dimensions(config["loss"]["dimensions"], base.dimension)
    several = processes(config["trainer"]) > 1
    base_results = None
    if (
        not several
    ):  # else the others would wait for the first process, and lose patience: it measures when they have left
        tell_leakage(config, job.data, run.path)
        base_results = job.measure(base, job.base_model, "base")
    seconds = {"base": time.monotonic() - started, "training": 0.0, "selection": 0.0}

    if not run.has_model and not several:  # the others would wait for the first process to train
        run.take_training()
    earlier = training_seconds(run.curve) if run.curve.exists() else 0.0  # of other starts, or of the run it is from
    with WandbMirror.start(config, run) as mirror:
        if not run.has_model:
            seconds["selection"] = _train_and_export(job, mirror)
        seconds["training"] = training_seconds(run.curve)
        if base_results is None:
            measured_at = time.monotonic()
            tell_leakage(config, job.data, run.path)
            base_results = job.measure(job.encoder(), job.base_model, "base")
            seconds["base"] += time.monotonic() - measured_at
        model = fingerprint([weights_fingerprint(run.model), files_fingerprint(run.model)])
        results = {"base": base_results, "retrofitted": job.measure(job.encoder(run.model), model, "retrofitted")}
        metrics = metrics_frame(results, set(strata(job.data.source.pairs, job.data.rows)))
        seconds["total"] = earlier + time.monotonic() - started
        figures = _write_results(job, results, metrics, seconds)
        mirror.finish(metrics, figures)
    return figures


def take_part(config: dict[str, Any], run: RunFolder) -> None:
    """Train beside the first process of a run, and write nothing.

    Args:
        config: the resolved configuration of ``retrofit train``.
        run: the run's folder.
    """
    if not run.has_model:
        _train(Job.prepare(config, run), WandbMirror(None, run))


def _train_and_export(job: Job, mirror: WandbMirror) -> float:
    """Leave the adapter and the model, and return how long the selection of weights took, in seconds."""
    run = job.run
    encoder = _train(job, mirror)
    trained_at = time.monotonic()
    base_encoder = job.encoder()
    base_weights = {name: tensor.clone() for name, tensor in base_encoder.backbone.state_dict().items()}
    retrofitted = merged_weights(encoder)
    if hasattr(encoder.backbone, "merge_and_unload"):
        encoder.backbone.save_pretrained(str(run.path / "adapter"))
    weight = _chosen_weight(job, base_encoder, base_weights, retrofitted)
    export_sentence_transformer(base_encoder, interpolate(base_weights, retrofitted, weight), run.model)
    return time.monotonic() - trained_at


def _chosen_weight(
    job: Job, encoder: BiEncoder, base_weights: dict[str, torch.Tensor], retrofitted: dict[str, torch.Tensor]
) -> float:
    """Return how far to go from the base towards the retrofitted weights; the only one asked for is not measured.

    Args:
        job: the run.
        encoder: the base; it is left with other weights.
        base_weights: its weights.
        retrofitted: those that training ended with.
    """
    export = job.config["export"]
    weights = weights_to_try(export["interpolation"])
    if len(weights) == 1:
        return weights[0]
    base_validation = job.measure(encoder, job.base_model, "base", validation=True)
    trained = state_fingerprint(retrofitted)

    def evaluate_at(weight: float) -> pa.Table:
        encoder.backbone.load_state_dict(interpolate(base_weights, retrofitted, weight))
        identity = fingerprint({"base": job.base_model, "trained": trained, "weight": weight})
        return job.measure(encoder, identity, f"interpolation {weight:.2f}", validation=True)

    chosen, candidates = try_weights(weights, evaluate_at, base_validation, export["max_drop"], export["gain_share"])
    candidates.to_csv(job.run.path / "interpolation.csv", index=False)
    log.info("interpolation %.2f chosen (run folder: interpolation.csv)", chosen.weight)
    return chosen.weight


def _train(job: Job, mirror: WandbMirror) -> BiEncoder:
    """Return the encoder after training, resumed from the newest checkpoint where there is one.

    In all but the first process of sharded weights it is untrained.
    """
    config, run = job.config, job.run
    pl.seed_everything(config["seed"], verbose=False)
    encoder = _adapted(job).train()
    mined = job.mined()
    current = None if mined is None else CurrentNegatives(mined)
    batches = planned_batches(config, job.data, encoder, current)
    teacher = Teacher.of(config, job.data)
    batching, trainer_config = config["batching"], config["trainer"]
    module = RetrievalModule(
        encoder,
        objective_of(config["loss"], encoder, teacher),
        instantiate(config["optimizer"]["optimizer"]),
        anchor_weight=config["anchor"]["weight"],
        total_steps=len(batches),
        warmup_fraction=config["optimizer"]["warmup_fraction"],
        chunk_tokens=batching["chunk_tokens"],
        kept_tokens=batching["kept_tokens"],
        precision=resolve_precision(
            trainer_config["precision"], "cuda" if trainer_config["accelerator"] == "gpu" else "cpu"
        ),
        seed=config["seed"],
        teacher=teacher,
    )
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    log.info(
        "training %d pairs in %d steps; %.2f million of %.1f million weights learn",
        len(job.data.rows),
        len(batches),
        trainable / 1e6,
        sum(p.numel() for p in module.parameters()) / 1e6,
    )
    timer = Timer()
    curve = TrainingCurve(run.curve, trainer_config["log_every"], timer, mirror.log)
    callbacks = [
        timer,
        StopOnDivergence(run.path, batches, LossLevel(**trainer_config["divergence"])),
        checkpoint_every(run.checkpoints, trainer_config["checkpoint_every"]),
        *([curve] if is_first_process() else []),
        *_refreshes(job, encoder, current),
    ]
    trainer = lightning_trainer(config, callbacks, run.path)
    last = newest_whole_checkpoint(run.checkpoints)
    if last is not None:
        log.info("resuming from %s", last.name)
    fit(trainer, module, RetrievalDataModule(batches, trainer_config["loader_workers"]), last)
    if module.device_mesh is not None:
        weights = trained_weights(encoder)
        encoder = _adapted(job)
        if is_first_process():
            load_trained(encoder, weights)
    leave()
    return encoder.eval()


def _adapted(job: Job) -> BiEncoder:
    """Return the base as it is before training, with what shall learn."""
    encoder = job.encoder(dropout=job.config["model"]["dropout"])
    adapter = job.config["adapter"]
    apply_adapter(encoder, instantiate(adapter["config"]), adapter["layers"], adapter["train_embeddings"])
    encoder.fused = job.config["trainer"]["fused_layers"]
    return encoder


def objective_of(loss: Mapping[str, Any], encoder: BiEncoder, teacher: Teacher | None) -> Objective:
    """Return the objective that the values of ``loss`` describe, for the embeddings of an encoder and a teacher.

    Raises:
        UserError: the embeddings are shorter than the loss asks for.
    """
    settings = {name: value for name, value in loss.items() if name != "teacher"}
    built: Objective = instantiate(
        {**settings, "dimension": encoder.dimension, "teacher_dimension": teacher.dimension if teacher else 0}
    )
    return built


def _refreshes(job: Job, encoder: BiEncoder, current: CurrentNegatives | None) -> list[RefreshNegatives]:
    """Return the callback that mines anew while the encoder is trained, where it is asked for."""
    if current is None:
        return []
    settings = job.config["negatives"]["mined"]
    every = steps_between(settings, partial(job.data.steps, job.config))
    if every is None:
        return []
    return [RefreshNegatives(job.run.path, miner_of(job.config, job.data, LOCAL), encoder, current, every)]


def planned_batches(
    config: Mapping[str, Any], data: TrainingData, encoder: BiEncoder, mined: NegativesByRow | None = None
) -> PlannedBatches:
    """Return the batches of all steps of a run.

    Args:
        config: the resolved configuration; ``batching``, ``task_mix``, ``negatives``, ``anchor`` and ``seed`` are read.
        data: the pairs that train.
        encoder: tokenises.
        mined: negatives of the pairs, where they were mined.
    """
    batching, negatives = config["batching"], config["negatives"]
    return PlannedBatches(
        data.source.pairs,
        data.plan(config),
        encoder.tokenization(batching["max_length"]),
        BatchContents(
            given_negatives=negatives["given"],
            mined_negatives=0 if mined is None else negatives["mined"]["per_query"],
            random_negatives=negatives["random"],
            anchors=config["anchor"]["texts"],
            seed=config["seed"],
        ),
        data.anchor_rows(config),
        mined,
    )


def _write_results(
    job: Job, results: Mapping[str, pa.Table], metrics: pd.DataFrame, seconds: Mapping[str, float]
) -> dict[str, Any]:
    path, suites = job.run.path, job.config["evaluation"]["suites"]
    figures = {
        "headline": headline(metrics),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "machine": {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "evaluation_precision": job.settings.precision,
            "commit": checkout_commit(),
        },
    }
    for model, table in results.items():
        write_results(path / f"queries_{model}.parquet", table)
    write_json(path / "examples.json", example_queries(job.sources[suites["held_out"]["source"]], results))
    write_text(path / "metrics.csv", metrics.to_csv(index=False, float_format="%.6f"))
    write_json(path / "metrics.json", figures)
    return figures
