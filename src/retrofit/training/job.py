"""What a run is made from: its configuration, base, pairs, and how models are measured in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrofit.artefacts import ArtefactStore, fingerprint, write_json
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData, evaluation_sources
from retrofit.evaluation.suite_tasks import suites_of_folders
from retrofit.evaluation.suites import evaluate_suites
from retrofit.instantiation import instantiate
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import files_fingerprint, weights_fingerprint
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel, local_gpu
from retrofit.negatives.from_configuration import mined_negatives
from retrofit.negatives.mined import MinedNegatives
from retrofit.negatives.scoring import Reranker
from retrofit.training.lightning_trainer import is_first_process
from retrofit.training.run_folder import RunFolder


@dataclass
class Job:
    """A run's configuration and what it is made from.

    Attributes:
        config: the resolved configuration.
        run: its folder.
        store: the cache.
        checkpoint: folder of the base checkpoint.
        base: fingerprint of the base weights.
        base_files: fingerprint of what else decides about the base's output.
        sources: where the pairs of the evaluation come from, by name.
        data: the pairs that train.
        settings: how texts are encoded for evaluation.
    """

    config: dict[str, Any]
    run: RunFolder
    store: ArtefactStore
    checkpoint: Path
    base: str
    base_files: str
    sources: Mapping[str, PairSource]
    data: TrainingData
    settings: EncodingSettings

    @classmethod
    def prepare(cls, config: dict[str, Any], run: RunFolder) -> Job:
        """Return the job with its base checkpoint and data at hand, fetched or made where the cache lacks them."""
        checkpoint = Path(instantiate(config["model"]["checkpoint"]))
        sources = evaluation_sources(config)
        data = TrainingData.prepare(config, sources)
        settings = EncodingSettings.of(config["evaluation"])
        return cls(
            config,
            run,
            ArtefactStore(Path(config["paths"]["cache"])),
            checkpoint,
            weights_fingerprint(checkpoint),
            files_fingerprint(checkpoint),
            sources,
            data,
            settings,
        )

    def encoder(self, folder: Path | None = None, dropout: float | None = None) -> BiEncoder:
        """Return the bi-encoder of the base checkpoint, or of another folder with the same settings.

        Args:
            folder: the other folder.
            dropout: in training; None keeps the checkpoint's.
        """
        model = self.config["model"]
        return BiEncoder.load(
            folder or self.checkpoint,
            model["pooling"],
            model["prompts"],
            model["max_length"],
            self.config["trainer"]["attention"],
            dropout,
        )

    @property
    def base_model(self) -> str:
        """What identifies the base: its weights, and the files beside them (the tokenizer)."""
        return fingerprint([self.base, self.base_files])

    @property
    def other_models(self) -> dict[str, str]:
        """What identifies each model beside the base, by the key that names it: those that teach, mine and judge."""
        mined: Mapping[str, Any] = self.config["negatives"]["mined"] or {}
        veto: Mapping[str, Any] = mined.get("veto") or {}
        encoders = {
            "loss.teacher": self.config["loss"]["teacher"],
            "negatives.mined.model": mined.get("model"),
            "negatives.mined.veto.model": veto.get("model"),
        }
        rerankers = {
            "negatives.mined.reranker": mined.get("reranker"),
            "negatives.mined.veto.reranker": veto.get("reranker"),
        }
        identities = {key: SearchModel.of(model, key).identity for key, model in encoders.items() if model is not None}
        identities |= {key: Reranker.of(model).identity for key, model in rerankers.items() if model is not None}
        return {key: fingerprint(identity) for key, identity in identities.items()}

    def mined(self) -> MinedNegatives | None:
        """Return the negatives of the pairs that train, mined where the cache lacks them; None where none are asked."""
        mined = mined_negatives(self.config, self.data)
        if mined is not None and is_first_process():
            write_json(self.run.path / "mining.json", dict(mined.report))
        return mined

    def measure(self, encoder: BiEncoder, model: str, label: str, *, validation: bool = False) -> pa.Table:
        """Return per-query results on retrieval: the test split and ``folders``, or less of the validation split.

        Args:
            encoder: is left on the GPU where training is on one.
            model: what identifies it.
            label: its name in log lines.
            validation: which split.
        """
        evaluation = self.config["evaluation"]
        if self.config["trainer"]["accelerator"] == "gpu":
            encoder = encoder.to(local_gpu() or "cpu")
        suites = {
            name: dict(suite)
            for name, suite in evaluation["suites"].items()
            if suite["kind"] == "retrieval" and "source" in suite
        }
        if validation:
            for name, suite in suites.items():
                suite.update(evaluation["validation"].get(name, {}))
        else:
            suites.update(suites_of_folders(self.config["folders"]))
        return evaluate_suites(
            encoder,
            model,
            self.sources,
            suites,
            "validation" if validation else "test",
            self.settings,
            self.store,
            label,
        )
