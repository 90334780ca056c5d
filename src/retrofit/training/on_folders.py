"""A finished run measured on data it did not come with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from retrofit.artefacts import ArtefactStore, fingerprint, write_text
from retrofit.errors import UserError
from retrofit.evaluation.evaluate import write_results
from retrofit.evaluation.judged_folder import folder_fingerprint
from retrofit.evaluation.suites import evaluate_tasks
from retrofit.evaluation.summary import metrics_frame
from retrofit.evaluation.tasks_from_folder import tasks_from_beir
from retrofit.instantiation import instantiate
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import weights_fingerprint
from retrofit.models.precision import EncodingSettings
from retrofit.training.run_folder import RunFolder


def evaluate_on_folders(config: Mapping[str, Any]) -> Iterator[Path]:
    """Measure every run on every folder and yield ``<run>/evaluation_<folder>.csv``, long form like ``metrics.csv``.

    Beside it stand the scores of every query, ``evaluation_<folder>_<model>.parquet``.

    What was measured before on the same weights and texts is read from the cache.

    Args:
        config: the resolved configuration of ``retrofit evaluate``.

    Raises:
        UserError: no run or folder is named, a run is not finished, or a folder cannot be read.
    """
    for key in ("runs", "folders"):
        if not config[key]:
            raise UserError(f"{key}=[]: expected at least one folder")
    settings = EncodingSettings.of(config)
    store = ArtefactStore(Path(config["paths"]["cache"]))
    for path in map(Path, config["runs"]):
        if not RunFolder(path).is_finished:
            raise UserError(f"{path}: not the folder of a finished run (runs)")
        run_config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        model = run_config["model"]
        checkpoints = {"base": Path(instantiate(model["checkpoint"])), "retrofitted": RunFolder(path).model}
        weights = {name: weights_fingerprint(checkpoint) for name, checkpoint in checkpoints.items()}
        encoders = {
            name: BiEncoder.load(checkpoint, model["pooling"], model["prompts"], model["max_length"])
            for name, checkpoint in checkpoints.items()
        }
        for folder in map(Path, config["folders"]):
            tasks = tasks_from_beir(folder, folder.name, config["max_queries"])
            data = fingerprint({"folder": folder_fingerprint(folder), "max_queries": config["max_queries"]})
            results = {
                name: evaluate_tasks(encoder, weights[name], tasks, data, settings, store, f"{name} on {folder.name}")
                for name, encoder in encoders.items()
            }
            metrics = metrics_frame(results, trained_on=())
            name = folder.resolve().name
            for measured, scores in results.items():
                write_results(path / f"evaluation_{name}_{measured}.parquet", scores)
            table = path / f"evaluation_{name}.csv"
            write_text(table, metrics.to_csv(index=False, float_format="%.6f"))
            yield table
