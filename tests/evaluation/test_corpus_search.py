"""Searching a file: what is read, what is refused, and that the answers are those of sentence-transformers itself."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrofit.artefacts import ArtefactStore
from retrofit.errors import UserError
from retrofit.evaluation import corpus_search
from retrofit.evaluation.corpus_search import CorpusPassage, CorpusSearch, load_model, read_corpus
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import tiny_checkpoint
from retrofit.models.export import export_sentence_transformer

TEXTS = [
    "The cat sleeps on the sofa.", "Die Katze schläft auf dem Sofa.", "猫がソファで寝ています。", "شاي", "x",
    "Kedi kanepede uyuyor.", "How do I file my taxes?", "The cat sleeps on the sofa, or on the other sofa.",
]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    checkpoint = tiny_checkpoint(work / "cache")
    encoder = BiEncoder.load(checkpoint, "mean", {"query": "query: ", "passage": "passage: "}, 64)
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), work / "model")
    return work / "model"


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "cache")


def passages(texts: list[str] = TEXTS) -> list[CorpusPassage]:
    return [CorpusPassage(f"p{number}", text) for number, text in enumerate(texts)]


def test_answers_are_the_cosines_of_sentence_transformers(model_folder: Path, store: ArtefactStore) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(model_folder), device="cpu")
    documents = reference.encode([f"passage: {text}" for text in TEXTS], normalize_embeddings=True)
    search = CorpusSearch.open(model_folder, passages(), store, batch_size=3)
    np.testing.assert_allclose(search.embeddings, documents, atol=1e-5)
    for query in ("cat", "猫", "taxes and more taxes"):
        scores = documents @ reference.encode(f"query: {query}", normalize_embeddings=True)
        best = np.argsort(-scores)[:3]
        hits = search.search(query, top_k=3)
        assert [hit.passage.passage_id for hit in hits] == [f"p{row}" for row in best]
        assert [hit.rank for hit in hits] == [1, 2, 3]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)


def test_equal_scores_keep_the_order_of_the_corpus(model_folder: Path, store: ArtefactStore) -> None:
    search = CorpusSearch.open(model_folder, passages(["same", "same", "other", "same"]), store)
    hits = search.search("same", top_k=10)
    assert len(hits) == 4
    assert [hit.passage.passage_id for hit in hits if hit.passage.text == "same"] == ["p0", "p1", "p3"]


class Counted:
    """Counts how often passages are encoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        original = corpus_search._encode_passages

        def encode(*arguments: Any) -> Any:
            self.calls += 1
            return original(*arguments)

        monkeypatch.setattr(corpus_search, "_encode_passages", encode)


def test_passages_are_encoded_once(model_folder: Path, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    first = CorpusSearch.open(model_folder, passages(), store).search("cat", 2)
    assert CorpusSearch.open(model_folder, passages(), store).search("cat", 2) == first
    assert counted.calls == 1
    CorpusSearch.open(model_folder, passages([*TEXTS, "one more"]), store)
    assert counted.calls == 2


def test_where_texts_end_is_part_of_the_key(
    model_folder: Path, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    CorpusSearch.open(model_folder, passages(["ab", "c"]), store)
    CorpusSearch.open(model_folder, passages(["a", "bc"]), store)
    assert counted.calls == 2


@pytest.mark.parametrize("file", ["config_sentence_transformers.json", "sentence_bert_config.json"])
def test_another_prompt_or_limit_is_another_artefact(
    model_folder: Path, tmp_path: Path, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    counted = Counted(monkeypatch)
    CorpusSearch.open(model_folder, passages(), store)
    changed = tmp_path / "changed"
    shutil.copytree(model_folder, changed)
    config = json.loads((changed / file).read_text())
    if "prompts" in config:
        config["prompts"] = {"query": "q: ", "passage": "p: "}
    else:
        config["max_seq_length"] = 8
    (changed / file).write_text(json.dumps(config))
    CorpusSearch.open(changed, passages(), store)
    assert counted.calls == 2


def test_a_model_without_a_query_prompt_is_warned_of_and_works(
    model_folder: Path, tmp_path: Path, store: ArtefactStore, caplog: pytest.LogCaptureFixture
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(model_folder, plain)
    config = json.loads((plain / "config_sentence_transformers.json").read_text())
    (plain / "config_sentence_transformers.json").write_text(json.dumps(config | {"prompts": {}}))
    search = CorpusSearch.open(plain, passages(), store)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("no 'query' prompt" in line for line in warnings)
    assert search.search(TEXTS[0], 1)[0].passage.text == TEXTS[0]  # nothing tells the two apart


def test_folders_that_are_no_model(tmp_path: Path, model_folder: Path) -> None:
    with pytest.raises(UserError, match=r"^model_folder=.*: no such folder"):
        load_model(tmp_path / "none")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"^model_folder=.*: not a sentence-transformers model; it has no modules"):
        load_model(tmp_path / "run")
    shutil.copytree(model_folder, tmp_path / "run" / "model")
    with pytest.raises(UserError, match=r"did you mean .*model\?$"):
        load_model(tmp_path / "run")
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"^model_folder=.*can be loaded") as caught:
        load_model(tmp_path / "run" / "model")
    assert "\n" not in str(caught.value)


def test_text_is_a_passage_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufefferster\r\n\r\n  zweiter \nשלישי".encode())
    assert read_corpus(path) == [
        CorpusPassage("1", "erster"),
        CorpusPassage("3", "zweiter"),
        CorpusPassage("4", "שלישי"),
    ]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_json_lines_with_titles_and_identifiers(tmp_path: Path, ending: str) -> None:
    rows = [
        {"_id": "a", "title": "Tea", "text": "A drink."},
        {"_id": 7, "title": "", "text": "Coffee\nis another."},
        {"title": None, "text": "No name."},
        {"_id": "empty", "text": " "},
    ]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    path = tmp_path / f"corpus.{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert read_corpus(path) == [
        CorpusPassage("a", "Tea A drink."), CorpusPassage("7", "Coffee\nis another."), CorpusPassage("3", "No name.")
    ]  # fmt: skip


def test_fields_can_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"key": "k", "body": "B", "text": 3}\n')
    assert read_corpus(path, text_field="body", id_field="key") == [CorpusPassage("k", "B")]
    path.write_text('{"_id": "k", "title": "T"}\n')
    assert read_corpus(path, text_field="title") == [CorpusPassage("k", "T")]


@pytest.mark.parametrize(
    ("second_row", "expected"),
    [
        (b"{", "row 2: not JSON"),
        (b"[1]", "row 2: expected a JSON object with the field 'text', found a list"),
        (b'{"_id": "b"}', "row 2, field 'text': missing"),
        (b'{"_id": "b", "text": 3}', "row 2, field 'text': expected text, found a number"),
        (b'{"_id": "b", "text": null}', "row 2, field 'text': expected text, found null"),
        (b'{"_id": "b", "text": "t", "title": ["t"]}', "row 2, field 'title': expected text, found a list"),
        (b'{"_id": true, "text": "t"}', "row 2, field '_id': expected text or a whole number, found a truth value"),
        (b'{"_id": "a", "text": "t"}', "row 2, field '_id': 'a' names row 1 already"),
        (b'{"_id": "b", "text": "\\ud800"}', "row 2, field 'text': half a surrogate pair"),
        (b'{"_id": "\\ud800", "text": "t"}', "row 2, field '_id': half a surrogate pair"),
        (b'{"_id": "b", "text": "\xff"}', "row 2: not UTF-8"),
        (b"[" * 100_000, "row 2: not JSON"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, second_row: bytes, expected: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"_id": "a", "text": "fine"}\n' + second_row + b"\n")
    with pytest.raises(UserError) as caught:
        read_corpus(path)
    assert str(caught.value).startswith(f"{path}, {expected}")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^corpus=.*no such file"):
        read_corpus(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"^corpus=.*cannot be read"):
        read_corpus(tmp_path)
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"^corpus=.*holds no text"):
        read_corpus(tmp_path / "blank.txt")
    whole = gzip.compress(b"\n".join(f"line {n}".encode() for n in range(10_000)))
    for name, content in (("cut.txt.gz", whole[: len(whole) // 2]), ("not.txt.gz", b"plain text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"^corpus=.*cannot be read"):
            read_corpus(tmp_path / name)
