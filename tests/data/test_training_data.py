"""From the configuration to the rows that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrofit.data.records import Pair
from retrofit.data.storage import PAIRS, REPORT, write_pairs
from retrofit.data.training_data import TrainingData
from retrofit.errors import UserError


def pair(number: int, task: str, query: str | None = None) -> Pair:
    return Pair(query or f"query {number}", (f"answer {number}",), task, "de", "de", "made up", f"g {number}", "train")


PAIRS_OF_TWO_TASKS = [*(pair(n, "help", "x") for n in range(5)), *(pair(n, "title") for n in range(20))]


def prepared(place: Path, **changes: Any) -> TrainingData:
    """Rows whose query is "x" are too short to be kept."""
    folder = place / "0123456789abcdef"
    folder.mkdir()
    write_pairs(folder / PAIRS, PAIRS_OF_TWO_TASKS)
    (folder / REPORT).write_text("{}")
    bounds = {"query": {"min": 2, "max": None}, "passage": {"min": None, "max": None}}
    config: dict[str, Any] = {
        "data_source": {"pairs": {"_target_": "pathlib.Path", "_args_": [str(folder)]}},
        "curation": {"length": bounds},
        "paths": {"cache": str(place / "cache")},
        "task_mix": {"tasks": None, "n_tasks": None},
        "languages": {"languages": None, "n_languages": None},
        "data_scale": {"pairs_per_language": None, "pairs": None},
        "seed": 0,
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return TrainingData.prepare(config, {})


def test_what_curation_keeps_and_the_configuration_selects_trains(tmp_path: Path) -> None:
    assert prepared(tmp_path).rows.tolist() == list(range(5, 25))


CURATED = "25 have these tasks in these languages .task_mix.tasks, languages.languages., curation leaves 20"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"task_mix__tasks": ["help"]},
            r"^fewer than two training pairs are selected: 5 have these tasks in these languages \(task_mix.tasks, "
            r"languages.languages\), curation leaves 0$",
        ),
        ({"task_mix__tasks": ["help"], "task_mix__n_tasks": 1}, "curation leaves 0$"),
        ({"data_scale__pairs_per_language": 1}, rf"selected: {CURATED}, data_scale.pairs_per_language leaves 1$"),
        ({"data_scale__pairs": 1}, rf"selected: {CURATED}, data_scale.pairs leaves 1$"),
        ({"data_scale__pairs": 21}, rf"^data_scale.pairs=21: only 20 training pairs are left \({CURATED}\)$"),
        (
            {"data_scale__pairs": 9, "data_scale__pairs_per_language": 7},
            rf"^data_scale.pairs=9: only 7 .*{CURATED}, data_scale.pairs_per_language leaves 7\)$",
        ),
    ],
)
def test_a_selection_that_is_too_small_names_the_stage_that_made_it_so(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        prepared(tmp_path, **changes)
