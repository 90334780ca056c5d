"""The teacher of an objective: every text that may stand in a batch, embedded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrofit.data.batching import PlannedBatches
from retrofit.data.curation.artefact import Curation
from retrofit.data.records import Pair
from retrofit.data.selection import select
from retrofit.data.storage import PAIRS, REPORT, PairSource, write_pairs
from retrofit.data.training_data import TrainingData
from retrofit.models.bi_encoder import BiEncoder
from retrofit.negatives.from_configuration import mined_negatives
from retrofit.training.retrofit import planned_batches
from retrofit.training.teacher import Teacher

Compose = Callable[..., dict[str, Any]]
STEPS = 12


def part_of(folder: Path) -> TrainingData:
    """Every other training pair of a source; all may be searched."""
    source = PairSource.open(folder)
    kept = select(source.pairs, "train")
    return TrainingData(source, Curation(kept, source.pairs.slice(0, 0), {}), kept[::2])


@pytest.fixture
def with_negatives(tmp_path: Path) -> Path:
    """A source whose pairs have negatives that are nobody's positive."""
    folder = tmp_path / "source"
    folder.mkdir()
    pairs = [
        Pair(f"q{n}", (f"a{n}", f"b{n}"), "field_help", "en", "en", "s", f"g{n}", "train", (f"x{n}", f"y{n}"))
        for n in range(12)
    ]
    write_pairs(folder / PAIRS, pairs)
    (folder / REPORT).write_text("{}", encoding="utf-8")
    return folder


def configured(compose: Compose, cache: Path, *overrides: str) -> dict[str, Any]:
    return compose(
        "model=tiny", "loss=guided", "model@loss.teacher=tiny", "loss.teacher.checkpoint.seed=1",
        "batching.batch_size=4", f"batching.steps={STEPS}", f"paths.cache={cache}", *overrides,
    )  # fmt: skip


def assert_knows_every_text(teacher: Teacher, batches: PlannedBatches, of_teacher: BiEncoder) -> set[str]:
    """Compare what is looked up with what the teacher gives each text by itself, and return the passages."""
    seen: set[str] = set()
    for step in range(STEPS):
        texts = batches.texts(step)
        for ids, kind, of_kind in (
            (texts.query_ids, "query", texts.queries),
            (texts.passage_ids, "passage", texts.passages),
        ):
            found = teacher.queries.of(ids) if kind == "query" else teacher.passages.of(ids)
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found.numpy(), of_teacher.encode(of_kind, kind), atol=1e-5)  # type: ignore[arg-type]
        seen.update(texts.passages)
    return seen


@pytest.fixture
def other_tiny(cache: Path) -> BiEncoder:
    """The model that teaches: of another seed than the one that is trained."""
    from retrofit.models.checkpoints import tiny_checkpoint

    return BiEncoder.load(tiny_checkpoint(cache, seed=1), "mean", {"query": "query: ", "passage": "passage: "}, 128)


@pytest.mark.parametrize(
    "overrides",
    [
        ["negatives=in_batch"],
        ["negatives=random"],
        ["negatives=dense", "negatives.mined.per_query=2"],
        ["negatives=dense", "negatives.mined.pool=source"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_it_knows_every_text_of_every_step(
    train_config: Compose, corpus: Path, encoder: BiEncoder, cache: Path, other_tiny: BiEncoder, overrides: list[str]
) -> None:
    config, data = configured(train_config, cache, "evaluation.precision=float32", *overrides), part_of(corpus)
    teacher = Teacher.of(config, data)
    assert teacher is not None
    assert teacher.dimension == 32
    batches = planned_batches(config, data, encoder, mined_negatives(config, data))
    seen = assert_knows_every_text(teacher, batches, other_tiny)
    own = {text for row in data.source.pairs.take(data.rows).to_pylist() for text in row["positives"]}
    assert (seen <= own) is (overrides[-1] != "negatives.mined.pool=source")


def test_it_knows_the_negatives_that_the_source_gives(
    train_config: Compose, with_negatives: Path, encoder: BiEncoder, cache: Path, other_tiny: BiEncoder
) -> None:
    config = configured(train_config, cache, "evaluation.precision=float32", "negatives=given")
    data = part_of(with_negatives)
    teacher = Teacher.of(config, data)
    assert teacher is not None
    seen = assert_knows_every_text(teacher, planned_batches(config, data, encoder), other_tiny)
    assert {text[0] for text in seen} == {"a", "b", "x", "y"}


def test_texts_are_encoded_once(
    train_config: Compose, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = BiEncoder.encode

    def counted(self: BiEncoder, texts: list[str], kind: str, *arguments: Any, **options: Any) -> Any:
        encoded.extend(f"{kind} {text}" for text in texts)
        return encode(self, texts, kind, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BiEncoder, "encode", counted)
    config, data = configured(train_config, tmp_path / "cache"), part_of(corpus)
    Teacher.of(config, data)
    assert len(encoded) == len(set(encoded)) > 0
    encoded.clear()
    Teacher.of(config, data)
    assert encoded == []


def test_an_unknown_text_is_an_error(train_config: Compose, corpus: Path, cache: Path) -> None:
    teacher = Teacher.of(configured(train_config, cache), part_of(corpus))
    assert teacher is not None
    ids = teacher.passages.ids
    for unknown in (0, 12345, int(ids[len(ids) // 2]) + 1, 2**64 - 1):
        with pytest.raises(KeyError, match="not embedded"):
            teacher.passages.of(torch.from_numpy(np.array([ids[0], unknown], dtype=np.uint64).view(np.int64)))


def test_no_teacher_is_none(train_config: Compose, corpus: Path) -> None:
    assert Teacher.of(train_config("model=tiny"), part_of(corpus)) is None
