"""Which texts of a corpus are the same, found in parts, and some from all over it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrofit.artefacts import ArtefactStore
from retrofit.evaluation.corpus_texts import CheckedCorpus, Corpus, first_of_equals, new_array


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(1, 45))
def test_the_first_of_equals_is_that_of_a_dictionary(values: list[int], at_once: int) -> None:
    known: dict[int, int] = {}
    expected = [known.setdefault(value, position) for position, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        found = first_of_equals(np.array(values, dtype=np.uint64), Path(folder) / "first.npy", at_once)
        assert found.tolist() == expected


def test_a_new_array_has_its_place_on_the_disk(tmp_path: Path) -> None:
    array = new_array(tmp_path / "array.npy", (1000, 300), "float32")
    assert (array.shape, array.dtype) == ((1000, 300), np.float32)
    assert (tmp_path / "array.npy").stat().st_blocks * 512 >= array.nbytes


def test_different_texts_come_from_all_over_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join([*map(str, range(90)), *["tea"] * 9, "end"]), encoding="utf-8")
    corpus = Corpus.find(str(tmp_path / "corpus.txt"), "auto", "text", None, "passage")
    checked = CheckedCorpus.check(corpus, ArtefactStore(tmp_path / "cache"))
    assert checked.spread(4) == ["0", "33", "66", "end"]
    assert checked.spread(12) == [*map(str, range(0, 90, 9)), "tea", "end"]
    assert checked.spread(1000) == [*map(str, range(90)), "tea", "end"]
