"""How much of what a run is measured on occurs in what it was trained on.

Texts are compared as curation compares them: equal once normalised, similar, or with a long run of characters in
common. What no comparison of texts shows is not counted: a translation of a training text (parallel corpora are known
by their ``group``, not by their wording), a paraphrase, or what the base was trained on before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from hydra.errors import InstantiationException

from retrofit.data.curation.decontamination import RULES, Decontamination, Match
from retrofit.data.curation.settings import DecontaminationSettings
from retrofit.data.curation.texts import normalised
from retrofit.data.selection import STRATUM_COLUMNS, Stratum
from retrofit.data.storage import RowReader
from retrofit.data.training_data import TrainingData, evaluation_sources
from retrofit.errors import UserError
from retrofit.evaluation.run_configuration import replaced
from retrofit.evaluation.tasks import BitextTask, RetrievalTask, SimilarityTask, Task

CONFIG = "config.yaml"
MANIFEST = "data_manifest.json"
LEAKAGE = "leakage.csv"
"""Where what :func:`leakage` tells is left, in a run folder or an evaluation's."""
_LABELS = ["suite", "task", "query_language", "document_language"]
_COUNTS = [
    "queries",
    "queries_in_training",
    "passages",
    "passages_in_training",
    "queries_equal_in_training",
    "passages_equal_in_training",
]
COLUMNS = (*_LABELS, *_COUNTS)
"""What :func:`leakage` tells of each task."""

_ROWS_A_BATCH = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTexts:
    """The texts that a run was trained on.

    Attributes:
        texts: normalised, all different.
    """

    texts: Sequence[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> TrainingTexts:
        """Return texts as they are compared."""
        return cls(list(dict.fromkeys(map(normalised, texts))))

    def batches(self) -> Iterator[Sequence[str]]:
        """Yield all texts at once; a text's number is its place."""
        yield self.texts

    @property
    def text(self) -> Callable[[int], str]:
        """A function that returns the text of a number."""
        return self.texts.__getitem__


def training_strata(run: Path) -> list[Stratum]:
    """Return the task, query language and document language of the pairs that a run was trained on, sorted.

    Args:
        run: folder of a run that ``retrofit train`` made; its ``data_manifest.json`` is read.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    counted = _manifest(run)["pairs_by_task_and_language"]
    return sorted(tuple(stratum[name] for name in STRATUM_COLUMNS) for stratum in counted)


def training_texts(run: Path, cache: str) -> TrainingTexts | None:
    """Return the texts that a run was trained on, or None, and why in a log line, where they cannot be had any more.

    The run's configuration is carried out up to its selection of pairs, which costs nothing where the cache (that of
    now, whichever the run had) still holds source and curation. It is trusted if source and number of pairs are those
    of the run's ``data_manifest.json``: the files behind a source, or this package, may have changed since.

    Args:
        run: folder of a run that ``retrofit train`` made.
        cache: the cache.
    """
    try:
        manifest = _manifest(run)
        config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
        config = replaced(config, config["paths"]["cache"], cache)
        data = TrainingData.prepare(config, evaluation_sources(config))
        if (data.source.fingerprint, len(data.rows)) != (manifest["fingerprint"], manifest["pairs"]):
            raise UserError(f"its configuration no longer selects the {manifest['pairs']} pairs it was trained on")
        return TrainingTexts.of(trained_texts(data, config))
    # A configuration of another version of this package may lack a key, or name what is gone.
    except (UserError, OSError, LookupError, InstantiationException) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        log.warning("%s: leakage is unknown, its training texts cannot be had: %s", run, reason)
        return None


def trained_texts(data: TrainingData, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that a configuration trains on, some of them several times.

    They are queries and all positives of the selected pairs (those that were written by a generator among them), the
    hard negatives of the source where the run takes them, and the texts that anchors are drawn from. Mined and random
    negatives are positives of the selection, and so among them, unless ``negatives.mined.pool`` is ``source``.

    Args:
        data: the pairs that train.
        config: resolved; ``negatives`` and ``anchor`` are read.
    """
    with_negatives = config["negatives"]["given"] > 0
    reader = RowReader(data.source.pairs.select(["query", "positives", "negatives"]))
    anchors = data.anchor_rows(config)
    rows = data.rows if anchors is None else np.union1d(data.rows, anchors)
    for start in range(0, len(rows), _ROWS_A_BATCH):
        for row in reader.rows(rows[start : start + _ROWS_A_BATCH]):
            yield row["query"]
            yield from row["positives"]
            if with_negatives:
                yield from row["negatives"]


def leakage(tasks: Sequence[Task], training: TrainingTexts | None, settings: DecontaminationSettings) -> pd.DataFrame:
    """Return how many texts of each task occur in training: exactly, nearly, or by a long run of characters.

    Queries are the texts that a task asks about: queries, sentences of bitext, first sentences of pairs, texts that are
    clustered or classified. Passages are the texts that would answer: the relevant passages of all queries, each once,
    and none of the others of a corpus; translations; second sentences. A text that a task has twice counts twice.

    Args:
        tasks: of any kind. A text that several have is looked up once.
        training: what is compared with; None where it is not known.
        settings: what counts as the same text. Runs are comparable where this does not depend on the run.

    Returns:
        A row a task: ``suite``, ``task``, ``query_language``, ``document_language``, and counts, Int64: ``queries``,
        ``queries_in_training``, ``passages``, ``passages_in_training``; of these ``queries_equal_in_training`` and
        ``passages_equal_in_training`` are equal once normalised. What is in training is missing, not 0, where it is
        not known.
    """
    texts = [(asked_texts(task), answering_texts(task)) for task in tasks]
    rows = []
    matches = (
        None
        if training is None
        else _matches((text for both in texts for each in both for text in each), training, settings)
    )
    for task, (queries, passages) in zip(tasks, texts, strict=True):
        rows.append(
            {
                **{name: getattr(task, name) for name in _LABELS},
                **_counts("queries", queries, matches),
                **_counts("passages", passages, matches),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_COUNTS, "Int64"))


def asked_texts(task: Task) -> Sequence[str]:
    """Return the texts that a task asks about."""
    if isinstance(task, RetrievalTask):
        return list(task.queries.values())
    if isinstance(task, BitextTask):
        return task.sentences
    if isinstance(task, SimilarityTask):
        return task.first
    return task.texts


def answering_texts(task: Task) -> Sequence[str]:
    """Return the texts that answer what a task asks; of a corpus the relevant passages only."""
    if isinstance(task, RetrievalTask):
        judged = (grades.items() for grades in task.qrels.values())
        relevant = dict.fromkeys(passage_id for grades in judged for passage_id, grade in grades if grade > 0)
        return [task.corpus[passage_id] for passage_id in relevant]
    if isinstance(task, BitextTask):
        return task.translations
    if isinstance(task, SimilarityTask):
        return task.second
    return []


def _counts(name: str, texts: Sequence[str], matches: Mapping[str, Match] | None) -> dict[str, int | None]:
    if matches is None:
        return {name: len(texts), f"{name}_in_training": None, f"{name}_equal_in_training": None}
    reasons = [matches[text].reason for text in texts if text in matches]
    return {
        name: len(texts),
        f"{name}_in_training": len(reasons),
        f"{name}_equal_in_training": reasons.count(RULES[0]),
    }


def _matches(texts: Iterable[str], training: TrainingTexts, settings: DecontaminationSettings) -> dict[str, Match]:
    """Return what training has of each text; a text that it has nothing of is left out."""
    compared = {text: normalised(text) for text in dict.fromkeys(texts)}
    different = list(dict.fromkeys(compared.values()))
    found = dict(zip(different, Decontamination(training, settings).find(different), strict=True))
    return {text: match for text, form in compared.items() if (match := found[form]) is not None}


def _manifest(run: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run / MANIFEST}: expected the account that retrofit train writes of its data") from error
    return manifest
