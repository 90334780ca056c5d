"""Pairs on disk: what is written is read back, in whatever batches, and nothing half written is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data import storage
from retrofit.data.records import PAIR_SCHEMA, PASSAGE_SCHEMA, Pair, Passage, content_id, to_table
from retrofit.data.storage import PairSource, RecordWriter, RowReader, nested, read_records, write_pairs, write_passages


def pair(number: int, task: str = "field_help", language: str = "de") -> Pair:
    query, positives = f"Frage {number} 主机", (f"Antwort {number}", f"B {number}")
    return Pair(query, positives, task, language, language, "made up", f"g{number}", "train")


LABELS = st.lists(st.sampled_from("abcdefgh"), max_size=30)


@given(LABELS, st.integers(1, 7))
@settings(max_examples=30)
def test_pairs_come_back_whatever_the_batches(tasks: list[str], rows_a_batch: int) -> None:
    # Labels turn up in any order: each batch's dictionary is the last one's with more at its end.
    import tempfile

    pairs = [pair(number, task) for number, task in enumerate(tasks)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_ROWS_A_BATCH", rows_a_batch)
        path = Path(folder) / "pairs.arrow"
        assert write_pairs(path, iter(pairs)) == len(pairs)
        table = read_records(path)
        assert table.schema.equals(PAIR_SCHEMA)
        assert table.to_pylist() == to_table(pairs).to_pylist()
        assert [file.name for file in Path(folder).iterdir()] == ["pairs.arrow"]


def test_opening_reads_no_text(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.arrow", (pair(number) for number in range(30_000)))
    before = pa.total_allocated_bytes()
    table = read_records(tmp_path / "pairs.arrow")
    assert pa.total_allocated_bytes() - before < 100_000 < table.nbytes
    assert table.num_rows == 30_000


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
@settings(max_examples=40)
def test_rows_are_read_in_the_order_asked_for(sizes: list[int], data: st.DataObject) -> None:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    parts = [to_table([pair(n) for n in range(start, start + size)]) for start, size in zip(starts, sizes, strict=True)]
    table = pa.concat_tables(parts)
    numbers = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=10))
    assert RowReader(table).rows(np.array(numbers, dtype=np.int64)) == [table.to_pylist()[n] for n in numbers]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Pair]:
        yield pair(0)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_pairs(tmp_path / "pairs.arrow", broken())
    assert not list(tmp_path.iterdir())


def test_a_row_of_another_shape_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RecordWriter(tmp_path / "pairs.arrow", PAIR_SCHEMA) as writer:
        writer.write({"query": "a"})
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "pairs.arrow"
    write_pairs(path, [pair(0)])
    with pytest.raises(RuntimeError), RecordWriter(path, PAIR_SCHEMA):
        raise RuntimeError
    assert read_records(path).num_rows == 1


def test_a_batch_holds_no_more_text_than_a_column_of_arrow_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_CHARACTERS_A_BATCH", 25)
    schema = pa.schema([("text", pa.string()), ("others", pa.list_(pa.string())), ("ids", pa.list_(pa.uint64()))])
    rows = [{"text": "ä" * 10, "others": ["b" * 3, "c" * 2], "ids": [1, 2]} for _ in range(7)]
    with RecordWriter(tmp_path / "rows.arrow", schema) as writer:
        for row in rows:
            writer.write(row)
    file = pa.ipc.open_file(pa.memory_map(str(tmp_path / "rows.arrow")))
    assert [file.get_batch(number).num_rows for number in range(file.num_record_batches)] == [2, 2, 2, 1]
    assert file.read_all().to_pylist() == rows


def test_a_source_opens_with_and_without_passages(tmp_path: Path) -> None:
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    write_pairs(folder / "pairs.arrow", [pair(0)])
    (folder / "report.json").write_text(json.dumps({"rows": 1}))
    source = PairSource.open(folder)
    assert (source.fingerprint, source.passages, dict(source.report)) == (folder.name, None, {"rows": 1})
    write_passages(folder / "passages.arrow", [Passage("Text", "de", "made up")])
    passages = PairSource.open(folder).passages
    assert passages is not None
    assert passages.schema.equals(PASSAGE_SCHEMA)
    expected = {"passage_id": content_id("Text"), "passage": "Text", "language": "de", "source": "made up"}
    assert passages.to_pylist() == [expected]


def test_nested_counts() -> None:
    assert nested({("b", "x"): 1, ("a", "y"): 2, ("a", "x"): 3}) == {"a": {"x": 3, "y": 2}, "b": {"x": 1}}
