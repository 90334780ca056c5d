import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from retrofit.data.storage import PairSource
from retrofit.errors import UserError


def test_the_report_accounts_for_every_row(build: Any, write_lines: Any) -> None:
    rows = [
        {"query": "a", "positive": "1", "split": "train", "group": "x"},
        {"query": "a", "positive": "2", "split": "train", "group": "x"},  # merged
        {"query": "a", "positive": "2", "split": "train", "group": "x"},  # duplicate
        {"query": "b", "positive": "3", "split": "test", "group": "y"},
        {"query": "c", "positive": "3", "split": "train", "group": "x"},  # leaks
        {"query": "d", "positive": "4", "negative": ["1", "3"], "split": "train", "group": "x"},
        {"query": "e", "positive": None, "split": "train", "group": "x"},
        {"query": "f", "positive": "5", "split": "dev", "group": "z"},
        {"query": "a", "positive": "6", "negative": ["2"], "task": "other", "split": "train", "group": "w"},
    ]
    columns = {name: name for name in ("negative", "split", "group", "task")}
    source = build(
        "folder",
        path=str(write_lines("rows.jsonl", rows)),
        language="en",
        columns=columns,
        max_refused=0.2,
        licence="CC0",
    )
    report = {name: value for name, value in source.report.items() if name != "seconds"}
    assert report == {
        "source": "folder",
        "licence": "CC0",
        "pairs": {"other": {"en": {"train": 1}}, "retrieval": {"en": {"test": 1, "train": 2, "validation": 1}}},
        "rows": 9,
        "refused": {"duplicate row": 1, "null field": 1},
        "unused": {},
        "merged": 1,
        "positives_shared": 3,
        "answering_negatives": 1,
        "leaks": {
            "train: negative also in test": 1,
            "train: no positive left": 1,
            "train: positive also in test": 1,
        },
    }
    assert set(source.report["seconds"]) == {"read", "build"}
    pairs = {(row["query"], row["task"]): row for row in source.pairs.to_pylist()}
    assert pairs["a", "retrieval"]["positives"] == ["1", "2", "6"]
    assert pairs["a", "other"]["positives"] == ["6", "1", "2"]
    assert pairs["d", "retrieval"]["negatives"] == ["1"]


def test_a_failed_source_is_built_once_its_file_is_mended(tmp_path: Path, build: Any, write_lines: Any) -> None:
    path = write_lines("rows.jsonl", [{"query": "a"}, {"query": "b", "positive": "c"}])
    with pytest.raises(UserError, match="1 of 2 rows refused"):
        build("folder", path=str(path), language="en")
    assert not list((tmp_path / "cache" / "corpora").glob("*/"))
    write_lines("rows.jsonl", [{"query": "a", "positive": "d"}, {"query": "b", "positive": "c"}])
    assert len(build("folder", path=str(path), language="en").pairs) == 2


def test_two_builds_give_the_same_bytes(tmp_path: Path, build: Any, write_lines: Any) -> None:
    rows = [{"query": f"q{n % 70}", "positive": f"p{n % 90}"} for n in range(300)]
    path = write_lines("rows.jsonl", rows)
    first: PairSource = build("folder", path=str(path), language="en", max_refused=1)
    content = (first.folder / "pairs.arrow").read_bytes()
    (first.folder / "manifest.json").unlink()
    again: PairSource = build("folder", path=str(path), language="en", max_refused=1)
    assert (again.folder / "pairs.arrow").read_bytes() == content


def test_a_row_costs_some_dozen_bytes_of_memory_however_long_its_texts(
    tmp_path: Path, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrofit.data.storage._ROWS_A_BATCH", 500)

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as file:
            for number in range(rows):
                text = f"{number} " + "long " * 300
                file.write(json.dumps({"query": f"q{number}", "positive": text}) + "\n")
        tracemalloc.start()
        try:
            build("folder", path=str(path), language="en")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)  # what is imported on the way costs memory once
    # One batch of the writer is always held; what 5,000 rows more add is what a row costs.
    assert peak(7_000) - peak(2_000) < 5_000 * 200
