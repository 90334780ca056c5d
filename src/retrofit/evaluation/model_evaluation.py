"""Several models measured on the suites of a configuration, and the folder that says what came out."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from retrofit.artefacts import ArtefactStore, fingerprint, write_json, write_text, written_aside
from retrofit.data.curation.settings import DecontaminationSettings
from retrofit.errors import UserError
from retrofit.evaluation.evaluated_model import EvaluatedModel
from retrofit.evaluation.evaluated_suites import EvaluatedSuite, TaskKey, suites_of
from retrofit.evaluation.leakage import COLUMNS, CONFIG, LEAKAGE, leakage, training_strata, training_texts
from retrofit.evaluation.mteb_scoring import ITEM_SCHEMA, item_groups
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models import embeddings
from retrofit.models.bm25 import LexicalSearcher
from retrofit.models.precision import EncodingSettings

CODE_VERSION = 1  # raise it whenever the same model and tasks would give other scores

SCORES, METRICS, MODELS, TRAINING = "scores.parquet", "metrics.csv", "models.csv", "training.csv"

CELL = list(TaskKey._fields)
STRATUM = ["task", "query_language", "document_language"]

_VALUE = ["metric", "value", "n_items"]
_VALUES, _ENCODING = "values.parquet", "encoding.json"

log = logging.getLogger(__name__)


def evaluate_models(config: Mapping[str, Any], models: Sequence[EvaluatedModel]) -> Path:
    """Measure every model on every suite and return the folder that holds what came out.

    A model and suite that were measured before are read from the cache, so an interrupted evaluation goes on where it
    was. A lexical model is measured on the kinds of task that need no vectors.

    Args:
        config: the resolved configuration of ``retrofit evaluate``.
        models: what to measure; the names differ.

    Raises:
        UserError: a suite cannot be made, a model cannot be had, a key has a value it cannot have, or ``output`` holds
            something else.
    """
    names = [model.name for model in models]
    if config["reference"] not in (None, *names):
        raise UserError(f"reference={config['reference']}: expected one of the models ({', '.join(names)}), or null")
    given = _writable(Path(config["output"]).expanduser()) if config["output"] else None
    same = DecontaminationSettings.parse(config["leakage"], "leakage")
    settings = EncodingSettings.of(config["evaluation"])
    store = ArtefactStore(Path(config["paths"]["cache"]))
    strata = {model.name: training_strata(model.run) for model in models if model.run is not None}
    suites = suites_of(config)
    folder = given or _writable(_default_output(config, settings, models, suites))
    # All of them are read before a model is loaded: what cannot be read is said before work starts.
    log.info("%d tasks in %d suites, %d models", sum(len(suite.tasks) for suite in suites), len(suites), len(models))
    measured: dict[str, list[Path]] = {}
    for model in models:
        session = _Session(model, settings, store)
        for number, suite in enumerate(suites, start=1):
            log.info("%s on %s (%d of %d)", model.name, suite.name, number, len(suites))
            measured.setdefault(model.name, []).append(session.measure(suite))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    _write_results(folder, models, suites, measured)
    _write_leakage(folder, models, suites, same, config["paths"]["cache"])
    trained = [
        (name, *stratum)
        for name, its in strata.items()
        for stratum in sorted(set(its).union(*(suite.trained_under(its) for suite in suites)))
    ]
    write_text(folder / TRAINING, pd.DataFrame(trained, columns=["model", *STRATUM]).to_csv(index=False))
    return folder


class _Session:
    """A model that is loaded when the first suite that the cache lacks is measured."""

    def __init__(self, model: EvaluatedModel, settings: EncodingSettings, store: ArtefactStore) -> None:
        self._model = model
        self._settings = settings
        self._store = store

    @functools.cached_property
    def _searcher(self) -> TextEmbeddings | LexicalSearcher:
        loaded = self._model.load(self._settings.precision)
        if isinstance(loaded, LexicalSearcher):
            return loaded
        return TextEmbeddings(loaded, self._settings, self._model.name)

    def _spent(self) -> tuple[int, float]:
        """Return how many texts were encoded, and how long that took."""
        searcher = self._searcher
        return (0, 0.0) if isinstance(searcher, LexicalSearcher) else (searcher.encoded_texts, searcher.seconds)

    def measure(self, suite: EvaluatedSuite) -> Path:
        """Return the folder with the scores of a suite."""
        inputs = {
            "version": CODE_VERSION,
            "embeddings": embeddings.CODE_VERSION,
            "packages": {name: importlib.metadata.version(name) for name in ("mteb", "bm25s")},
            "model": self._model.identity,
            "suite": suite.identity,
            "settings": asdict(self._settings),
        }

        def build(folder: Path) -> None:
            texts, seconds = self._spent()
            items, values = [_no_items()], []
            for key, scores, n_items in suite.scores(self._searcher):
                items.append(_labelled(scores.items, key._asdict()))
                values += [(*key, metric, value, n_items) for metric, value in scores.values.items()]
            pq.write_table(pa.concat_tables(items), folder / SCORES, compression="zstd")
            pd.DataFrame(values, columns=[*CELL, *_VALUE]).to_parquet(folder / _VALUES)
            all_texts, all_seconds = self._spent()
            write_json(folder / _ENCODING, {"texts": all_texts - texts, "seconds": all_seconds - seconds})

        return self._store.get("model_scores", inputs, build)


def _labelled(table: pa.Table, labels: Mapping[str, str]) -> pa.Table:
    """Return a table with columns in front that hold the same text in every row."""
    columns = [pa.array([text] * len(table), pa.string()) for text in labels.values()]
    return pa.table([*columns, *table.columns], names=[*labels, *table.column_names])


def _groups(suite: EvaluatedSuite) -> dict[tuple[str, ...], str]:
    """Return what items of a suite belong together by, by the task's key and the item."""
    return {
        (*(getattr(task, name) for name in CELL), item): group
        for task in suite.tasks
        for item, group in item_groups(task).items()
    }


def _with_groups(items: pa.Table, groups: Mapping[tuple[str, ...], str]) -> pa.Table:
    """Return the items of a suite with what they belong together by; one that has nothing is by itself."""
    keys = zip(*(items[name].to_pylist() for name in (*CELL, "item_id")), strict=True)
    return items.append_column("item_group", pa.array([groups.get(key, key[-1]) for key in keys], pa.string()))


def _no_items() -> pa.Table:
    return _labelled(ITEM_SCHEMA.empty_table(), dict.fromkeys(CELL, ""))


def _default_output(
    config: Mapping[str, Any],
    settings: EncodingSettings,
    models: Sequence[EvaluatedModel],
    suites: Sequence[EvaluatedSuite],
) -> Path:
    """Return a folder that is named by what is measured."""
    measured = {
        "models": {model.name: model.identity for model in models},
        "suites": {suite.name: suite.identity for suite in suites},
        "reference": config["reference"],
        "settings": asdict(settings),
    }
    return Path(config["paths"]["runs"]) / "evaluations" / fingerprint(measured)


def _writable(folder: Path) -> Path:
    """Return a folder that results may go to; it need not exist yet.

    Raises:
        UserError: it holds something else, or may not be written.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MODELS).exists() or not any(folder.iterdir()))):
        raise UserError(f"output={folder}: holds something else than an evaluation; expected a folder to write")
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise UserError(f"output={folder}: may not be written; expected a folder to write")
    return folder


def _write_results(
    folder: Path,
    models: Sequence[EvaluatedModel],
    suites: Sequence[EvaluatedSuite],
    measured: Mapping[str, Sequence[Path]],
) -> None:
    items, values, about = [], [], []
    configurations, groups = _configurations(models), [_groups(suite) for suite in suites]
    for model in models:
        parts = measured[model.name]
        named = {"model": model.name}
        for part, of_suite in zip(parts, groups, strict=True):
            items.append(_labelled(_with_groups(pq.read_table(part / SCORES), of_suite), named))
        values += [pd.read_parquet(part / _VALUES).assign(**named) for part in parts]
        spent = [json.loads((part / _ENCODING).read_text(encoding="utf-8")) for part in parts]
        texts, seconds = (sum(part[name] for part in spent) for name in ("texts", "seconds"))
        about.append(
            {
                **named, "configuration": configurations.get(model.name), "seed": model.seed, "source": model.source,
                "kind": model.kind, "query_prompt": model.prompts["query"], "passage_prompt": model.prompts["passage"],
                "parameters": model.parameters, "dimension": model.dimension,
                "megabytes": model.megabytes, "texts_per_second": texts / seconds if seconds else None,
                "encoded_texts": texts, "seconds": seconds,
            }
        )  # fmt: skip
    with written_aside(folder / SCORES) as partial:
        pq.write_table(pa.concat_tables(items), partial, compression="zstd")
    metrics = pd.concat(values)[["model", *CELL, *_VALUE]]
    write_text(folder / METRICS, metrics.to_csv(index=False, float_format="%.6f"))
    write_text(folder / MODELS, pd.DataFrame(about).to_csv(index=False, float_format="%.2f"))


def _write_leakage(
    folder: Path,
    models: Sequence[EvaluatedModel],
    suites: Sequence[EvaluatedSuite],
    same: DecontaminationSettings,
    cache: str,
) -> None:
    """Write what of the suites the models were trained on."""
    tasks = [task for suite in suites for task in suite.tasks]
    leaks = [pd.DataFrame(columns=["model", *COLUMNS])]
    for model in models:
        if model.run is not None and tasks:
            leaks.append(leakage(tasks, training_texts(model.run, cache), same).assign(model=model.name))
    write_text(folder / LEAKAGE, pd.concat(leaks).to_csv(index=False))


def _configurations(models: Sequence[EvaluatedModel]) -> dict[str, str]:
    """Return, by name of a model, the name of the first model that differs from it in nothing but the seed.

    Models without such a companion are left out.
    """
    groups: dict[str, list[str]] = {}
    for model in models:
        if model.unseeded is not None:
            groups.setdefault(model.unseeded, []).append(model.name)
    return {name: names[0] for names in groups.values() if len(names) > 1 for name in names}
