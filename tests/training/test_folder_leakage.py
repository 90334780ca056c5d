"""What of a folder a run trains on is counted and said; what is clean, or not asked for, is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.evaluation.beir_folders import beir

from retrofit.data.storage import RowReader
from retrofit.data.training_data import TrainingData, evaluation_sources
from retrofit.evaluation.leakage import LEAKAGE
from retrofit.training.folder_leakage import tell_leakage

Tell = Callable[..., Path]
FAQ = "folders=[FAQ]"


@pytest.fixture
def tell(train_config: Callable[..., dict[str, Any]], small_run: list[str], tmp_path: Path) -> Tell:
    """Return a function that tells the leakage of a folder with one trained query and passage, and one of neither."""

    def told(*overrides: str, leaks: bool = True) -> Path:
        faq = tmp_path / "faq"
        config = train_config(
            *small_run, f"paths.cache={tmp_path / 'cache'}", *(text.replace("FAQ", str(faq)) for text in overrides)
        )
        data = TrainingData.prepare(config, evaluation_sources(config))
        (row,) = RowReader(data.source.pairs.select(["query", "positives"])).rows(data.rows[:1])
        query, passage = (row["query"].upper(), row["positives"][0]) if leaks else ("Wo ist der Hafen?", "Am Fluss.")
        beir(
            faq,
            [{"_id": "p0", "text": passage}, {"_id": "p1", "text": "Das Boot fährt um neun."}],
            [{"_id": "q0", "text": query, "lang": "de"}, {"_id": "q1", "text": "Wann fährt das Boot?", "lang": "de"}],
            "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t1\n",
        )
        run = tmp_path / "run"
        run.mkdir()
        tell_leakage(config, data, run)
        return run / LEAKAGE

    return told


def test_what_is_trained_on_is_counted_and_said(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    table = pd.read_csv(tell(FAQ)).set_index("suite")
    assert table.loc["faq", ["queries", "queries_in_training", "passages", "passages_in_training"]].tolist() == [
        2, 1, 2, 1,
    ]  # fmt: skip
    assert "folders: faq: 1 of 2 queries and 1 of 2 relevant passages are in the training texts" in caplog.text


def test_a_clean_folder_is_counted_and_not_warned_of(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    table = pd.read_csv(tell(FAQ, leaks=False)).set_index("suite")
    assert table.loc["faq", ["queries_in_training", "passages_in_training"]].tolist() == [0, 0]
    assert "folders:" not in caplog.text


@pytest.mark.parametrize("overrides", [(), (FAQ, "curation.decontamination=null"), (FAQ, "curation=none")])
def test_nothing_is_told_where_it_is_not_asked(tell: Tell, overrides: tuple[str, ...]) -> None:
    assert not tell(*overrides).exists()
