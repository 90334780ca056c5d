from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrofit.data.sources.building import Intake, build_source
from retrofit.data.sources.columns import ExampleReader, RowMapping
from retrofit.data.sources.refusals import Row
from retrofit.data.sources.union import build_union
from retrofit.data.storage import PairSource
from retrofit.errors import UserError


@pytest.fixture
def parts(build: Any, write_lines: Any) -> dict[str, PairSource]:
    one = [{"query": "ask", "positive": "a", "split": "train"}, {"query": "held", "positive": "b", "split": "test"}]
    two = [{"query": "ask", "positive": "c", "split": "train"}, {"query": "leak", "positive": "b", "split": "train"}]
    two += [{"query": f"t{n}", "positive": f"p{n}", "split": "test" if n else "dev"} for n in range(2)]
    columns = {"split": "split"}
    return {
        name: build("folder", path=str(write_lines(f"{name}.jsonl", rows)), language="en", columns=columns, name=name)
        for name, rows in (("one", one), ("two", two))
    }


def union(parts: dict[str, PairSource], cache: Path) -> PairSource:
    described = {name: {"pairs": source.folder, "licence": f"licence of {name}"} for name, source in parts.items()}
    return PairSource.open(build_union(name="both", parts=described, cache=cache))


def test_parts_share_answers_and_keep_their_splits_apart(parts: dict[str, PairSource], tmp_path: Path) -> None:
    source = union({f"part {name}": part for name, part in parts.items()}, tmp_path)
    rows = {(row["source"], row["query"]): row for row in source.pairs.to_pylist()}
    assert source.report["rows"] == sum(len(part.pairs) for part in parts.values())
    assert ("part two", "leak") not in rows
    train = [row for (_, query), row in rows.items() if query == "ask"]
    assert {frozenset(row["positives"]) for row in train} == {frozenset("ac")}
    assert source.report["licence"] == "part one: licence of part one; part two: licence of part two"
    assert source.passages is None


def test_a_union_holds_out_what_its_parts_hold_out_and_nothing_else(
    build: Any, cache: Path, write_lines: Any, tmp_path: Path
) -> None:
    def take(intake: Intake) -> None:
        rows = [Row("made", n, {"query": f"{intake.name} q{n}", "positive": f"{intake.name} p{n}"}) for n in range(40)]
        mapping = RowMapping({"query": "query", "positive": "positive"}, "t", "en", None, {})
        intake.take_all(rows, lambda values: replace(ExampleReader(mapping).read(values), split="train"))

    made = {
        name: PairSource.open(build_source(cache, "made", name, None, None, {}, take, derive_splits=False))
        for name in ("one", "two")
    }
    assert set(union(made, tmp_path).pairs["split"].to_pylist()) == {"train"}
    rows = [{"query": f"q{n}", "positive": f"p{n}"} for n in range(40)]
    with_splits = build("folder", path=str(write_lines("rows.jsonl", rows)), language="en")
    joined = Counter(union({**made, "three": with_splits}, tmp_path).pairs["split"].to_pylist())
    assert joined == Counter(with_splits.pairs["split"].to_pylist()) + Counter(train=80)


def test_a_union_depends_on_its_parts(parts: dict[str, PairSource], tmp_path: Path) -> None:
    both = union(parts, tmp_path)
    assert union(parts, tmp_path).folder == both.folder
    assert union({"one": parts["one"]}, tmp_path).folder != both.folder


def test_passages_of_all_parts_are_kept_once(build: Any, write_lines: Any, tmp_path: Path) -> None:
    folders = {}
    for name, documents in (("one", ["x", "y"]), ("two", ["y", "z"])):
        write_lines(f"{name}/corpus.jsonl", [{"_id": text, "text": text} for text in documents])
        write_lines(f"{name}/queries.jsonl", [{"_id": "q", "text": f"query of {name}"}])
        (tmp_path / name / "qrels").mkdir()
        (tmp_path / name / "qrels" / "test.tsv").write_text(f"q\t{documents[0]}\t1\n")
        folders[name] = build("folder", path=str(tmp_path / name), language="en")
    passages = union(folders, tmp_path).passages
    assert passages is not None
    assert [(row["passage"], row["source"]) for row in passages.to_pylist()] == [
        ("x", "one"),
        ("y", "one"),
        ("z", "two"),
    ]


def test_no_parts_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected at least one source"):
        build_union(name="none", parts={}, cache=tmp_path)
