"""What stands in the way of encoding a corpus: a full disk, a damaged model, another process."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from retrofit.artefacts import ArtefactStore
from retrofit.errors import UserError
from retrofit.evaluation.corpus_encoding import Encoding, encode_corpus
from retrofit.evaluation.corpus_texts import CheckedCorpus, Corpus
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "cache")


@pytest.fixture
def texts(tmp_path: Path, store: ArtefactStore) -> Corpus:
    """A corpus that was checked before."""
    (tmp_path / "corpus.txt").write_text("tea\nKaffee\ntea\n", encoding="utf-8")
    found = Corpus.find(str(tmp_path / "corpus.txt"), "auto", "text", None, "passage")
    CheckedCorpus.check(found, store)
    return found


@pytest.fixture
def encoding(tiny: Path) -> Encoding:
    model = SearchModel(tiny, "mean", {"query": "query: ", "passage": "passage: "}, 128)
    return Encoding(model, "passage", EncodingSettings("float32", 512), None, "float32")


def test_a_full_disk_is_said_before_anything_is_encoded(
    texts: Corpus, encoding: Encoding, store: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"out: cannot be written \(No space left on device\)"):
            encode_corpus(texts, encoding, tmp_path / "out", store)
    encode_corpus(texts, encoding, tmp_path / "out", store)
    assert np.load(tmp_path / "out" / "vectors.npy").shape == (3, 32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "corpus.txt", "out"]


def test_a_model_without_weights_is_no_fault_of_the_output(
    texts: Corpus, encoding: Encoding, store: ArtefactStore, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    damaged = dataclasses.replace(encoding, model=dataclasses.replace(encoding.model, folder=folder))
    with pytest.raises(UserError, match="damaged: not a model that can be loaded") as caught:
        encode_corpus(texts, damaged, tmp_path / "out", store)
    assert "output" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "corpus.txt", "damaged"]


def test_of_two_processes_one_is_told_of_the_other(
    texts: Corpus, encoding: Encoding, store: ArtefactStore, tmp_path: Path
) -> None:
    with (
        filelock.FileLock(tmp_path / ".out.lock"),
        pytest.raises(UserError, match="another process is writing it"),
    ):
        encode_corpus(texts, encoding, tmp_path / "out", store)
    assert not (tmp_path / ".out.partial").exists()


def test_what_another_process_finished_meanwhile_is_taken(
    texts: Corpus, encoding: Encoding, store: ArtefactStore, tmp_path: Path
) -> None:
    class Overtaken(SearchModel):
        def load(self, precision: Any = "float32") -> Any:
            encode_corpus(texts, encoding, tmp_path / "out", store)
            return super().load(precision)

    overtaken = dataclasses.replace(encoding, model=Overtaken(**vars(encoding.model)))
    encode_corpus(texts, overtaken, tmp_path / "out", store)
    assert np.load(tmp_path / "out" / "vectors.npy").shape == (3, 32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "corpus.txt", "out"]
