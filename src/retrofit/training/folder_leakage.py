"""What of the folders that a run is measured on stands in the texts it trains on.

Curation leaves out of training what the suites of a data source ask; folders are not made of one, so theirs is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrofit.artefacts import write_text
from retrofit.data.curation.settings import CurationSettings
from retrofit.data.training_data import TrainingData
from retrofit.evaluation.leakage import LEAKAGE, TrainingTexts, leakage, trained_texts
from retrofit.evaluation.suite_tasks import suites_of_folders, tasks_of_suite

log = logging.getLogger(__name__)


def tell_leakage(config: Mapping[str, Any], data: TrainingData, run: Path) -> None:
    """Write ``leakage.csv`` into a run folder, and warn of each folder of which something is trained on.

    Nothing is written where a run is measured on no folder, or where ``curation.decontamination`` is null: it says what
    counts as the same text.

    Args:
        config: the resolved configuration of ``retrofit train``; ``folders``, ``curation``, ``negatives`` and
            ``anchor`` are read.
        data: the pairs that train.
        run: the run's folder; the file has the columns of :func:`retrofit.evaluation.leakage.leakage`.

    Raises:
        UserError: a folder cannot be read.
    """
    same = CurationSettings.parse(config["curation"], "curation").decontamination
    suites = suites_of_folders(config["folders"])
    if same is None or not suites:
        return
    tasks = [task for suite, asked in suites.items() for task in tasks_of_suite(suite, asked, {})]
    table = leakage(tasks, TrainingTexts.of(trained_texts(data, config)), same)
    write_text(run / LEAKAGE, table.to_csv(index=False))
    for suite, rows in table.groupby("suite", sort=False):
        counts = rows.sum(numeric_only=True)
        if counts["queries_in_training"] or counts["passages_in_training"]:
            log.warning(
                "folders: %s: %d of %d queries and %d of %d relevant passages are in the training texts, "
                "equal or nearly (run folder: %s)",
                suite,
                counts["queries_in_training"],
                counts["queries"],
                counts["passages_in_training"],
                counts["passages"],
                LEAKAGE,
            )
