"""``retrofit encode`` from outside: a process with the tiny model and files, killed, damaged and given bad rows."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.commands.forked import retrofit

from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import tiny_checkpoint
from retrofit.models.export import export_sentence_transformer

PROMPTS: dict[Any, str] = {"query": "query: ", "passage": "passage: "}
QUANTIZERS = ("nncf", "openvino")
WORDS = ["tea", "Kaffee", "お茶", "קפה", "a longer word", "."]


def phrases(count: int) -> list[str]:
    generator = random.Random(0)  # noqa: S311 -- a fixture, not a secret
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 6))) for _ in range(count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> BiEncoder:
    return BiEncoder.load(tiny_checkpoint(cache), "mean", PROMPTS, 128)


def start(cache: Path, work: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "retrofit", "encode", "model=tiny", "precision=float32", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", cwd=work,
        env={**os.environ, "RETROFIT_CACHE": str(cache), **environment},
    )  # fmt: skip


def encode(cache: Path, work: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return retrofit(
        work, "encode", "model=tiny", "precision=float32", *arguments, RETROFIT_CACHE=str(cache), **environment
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_array_holds_what_the_encoder_gives(cache: Path, encoder: BiEncoder, tmp_path: Path) -> None:
    texts = phrases(60)
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": n, "title": "T", "text": text} for n, text in enumerate(texts)])
    done = encode(cache, tmp_path, "input=corpus.jsonl", "output=out", "block_texts=25")
    assert done.returncode == 0, done.stderr
    vectors = np.load(tmp_path / "out" / "vectors.npy", mmap_mode="r")
    assert (vectors.dtype, vectors.shape) == (np.float32, (60, 32))
    np.testing.assert_allclose(vectors, encoder.encode([f"T {text}" for text in texts], "passage"), atol=1e-6)
    assert (tmp_path / "out" / "ids.txt").read_text(encoding="utf-8").split() == [str(n) for n in range(60)]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["texts"], manifest["dimension"]) == (60, 32)
    assert manifest["different_texts"] == len(set(texts)) < 60
    assert manifest["inputs"]["model"]["prompts"] == PROMPTS

    before = contents(tmp_path / "out")
    again = encode(cache, tmp_path, "input=corpus.jsonl", "output=out", "block_texts=25")
    assert "is complete" in again.stderr
    other = encode(cache, tmp_path, "input=corpus.jsonl", "output=out", "block_texts=25", "model.checkpoint.seed=1")
    assert other.returncode == 2
    assert "another model" in other.stderr
    assert other.stderr.count("\n") == 1
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out"]


def test_fewer_dimensions_have_unit_length(cache: Path, encoder: BiEncoder, tmp_path: Path) -> None:
    texts = phrases(5)
    (tmp_path / "queries.txt").write_text("\n\n".join(texts), encoding="utf-8")
    arguments = ("input=queries.txt", "output=out", "kind=query", "dtype=float16")
    done = encode(cache, tmp_path, *arguments, "dimensions=8")
    assert done.returncode == 0, done.stderr
    vectors = np.load(tmp_path / "out" / "vectors.npy")
    expected = encoder.encode(texts, "query")[:, :8]
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)
    assert (tmp_path / "out" / "ids.txt").read_text(encoding="utf-8").split() == ["1", "3", "5", "7", "9"]
    most = encode(cache, tmp_path, *arguments[:1], "output=more", "dimensions=33")
    assert most.stderr == "retrofit encode: dimensions=33: expected at most the model's 32\n"


def test_a_beir_folder_gives_its_corpus_or_its_queries_and_parquet_the_same(
    cache: Path, encoder: BiEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "beir"
    folder.mkdir()
    write_jsonl(folder / "corpus.jsonl", [{"_id": "d", "title": "", "text": "tea"}])
    write_jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "coffee"}])
    pq.write_table(pa.table({"name": ["d"], "body": ["tea"]}), tmp_path / "corpus.parquet")
    for arguments, text, identifier in (
        (["input=beir", "output=passages"], ("tea", "passage"), "d\n"),
        (["input=beir", "output=queries", "kind=query"], ("coffee", "query"), "q\n"),
        (["input=corpus.parquet", "output=parquet", "text_field=body", "id_field=name"], ("tea", "passage"), "d\n"),
    ):
        done = encode(cache, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        output = tmp_path / arguments[1].removeprefix("output=")
        np.testing.assert_allclose(np.load(output / "vectors.npy"), encoder.encode([text[0]], text[1]), atol=1e-6)
        assert (output / "ids.txt").read_text(encoding="utf-8") == identifier


def test_an_exported_model_is_used_as_it_says_itself_wherever_it_lies(
    cache: Path, encoder: BiEncoder, tmp_path: Path
) -> None:
    encoder.prompts = {**PROMPTS, "passage": "of the model: "}
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), tmp_path / "run" / "model")
    (tmp_path / "corpus.txt").write_text("tea\nKaffee\n", encoding="utf-8")
    expected = encoder.encode(["tea", "Kaffee"], "passage")
    beside = {"pooling": "cls", "prompts": PROMPTS, "max_length": 8}
    for output in ("alone", "of_a_run"):
        done = encode(cache, tmp_path, "model_folder=run/model", "input=corpus.txt", f"output={output}")
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(np.load(tmp_path / output / "vectors.npy"), expected, atol=1e-5)
        (tmp_path / "run" / "config.yaml").write_text(json.dumps({"model": beside}), encoding="utf-8")
    encoder.prompts = PROMPTS


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_killed_at_any_time_it_goes_on_and_gives_the_same_bytes(cache: Path, tmp_path: Path, precision: str) -> None:
    if precision == "int8":
        for package in QUANTIZERS:
            pytest.importorskip(package)
    texts = phrases(600)
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": n, "text": text} for n, text in enumerate(texts)])
    arguments = ("input=corpus.jsonl", "block_texts=4", f"precision={precision}")
    whole = encode(cache, tmp_path, *arguments, "output=whole")
    assert whole.returncode == 0, whole.stderr

    manifest = tmp_path / ".out.partial" / "manifest.json"
    process = start(cache, tmp_path, *arguments, "output=out")
    done = 0
    while process.poll() is None and done < 40:
        time.sleep(0.001)
        done = json.loads(manifest.read_text(encoding="utf-8"))["done"] if manifest.exists() else 0
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 40 <= done < 600
    assert not (tmp_path / "out").exists()
    other = encode(cache, tmp_path, *arguments, "output=out", "kind=query")
    assert other.returncode == 2
    assert "another kind" in other.stderr

    last = encode(cache, tmp_path, *arguments, "output=out")
    assert last.returncode == 0, last.stderr
    assert "going on after" in last.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(all(map(importlib.util.find_spec, QUANTIZERS)), reason="int8 can be had")
def test_int8_without_its_packages_names_the_extra_and_writes_nothing(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("tea", encoding="utf-8")
    refused = encode(cache, tmp_path, "input=corpus.txt", "output=out", "precision=int8")
    assert refused.returncode == 2
    assert refused.stderr == ("retrofit encode: precision=int8 needs OpenVINO and NNCF: pip install -e '.[openvino]'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]


def test_int8_is_near_float32_and_said_in_the_manifest(cache: Path, encoder: BiEncoder, tmp_path: Path) -> None:
    for package in QUANTIZERS:
        pytest.importorskip(package)
    texts = phrases(60)
    (tmp_path / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    arguments = ("input=corpus.txt", "output=out")
    done = encode(cache, tmp_path, *arguments, "precision=int8")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    cosine = (np.load(tmp_path / "out" / "vectors.npy") * encoder.encode(texts, "passage")).sum(axis=1)
    assert 0.98 < cosine.min() < 0.999999
    made_of = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["inputs"]
    assert made_of["precision"] == "int8"
    assert made_of["int8"].keys() == {"all_else", "calibration_texts", *QUANTIZERS}
    other = encode(cache, tmp_path, *arguments)
    assert other.returncode == 2
    assert "another precision" in other.stderr


def test_int8_leaves_no_identifier_to_send_with(cache: Path, tmp_path: Path) -> None:
    for package in QUANTIZERS:
        pytest.importorskip(package)
    (tmp_path / "corpus.txt").write_text("a text that no other test has quantised on", encoding="utf-8")
    (tmp_path / "home").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "CI": "", "TF_BUILD": "", "XDG_CACHE_HOME": str(tmp_path)}
    done = encode(cache, tmp_path, "input=corpus.txt", "output=out", "precision=int8", **environment)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home" / "intel").exists()


def test_int8_of_a_model_that_is_no_plain_bi_encoder_is_refused_before_anything_is_written(
    cache: Path, encoder: BiEncoder, tmp_path: Path
) -> None:
    (tmp_path / "corpus.txt").write_text("tea that is not in the cache", encoding="utf-8")
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), tmp_path / "lower_case")
    settings = tmp_path / "lower_case" / "sentence_bert_config.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text(encoding="utf-8")), "do_lower_case": True}), encoding="utf-8"
    )
    before = sorted([*tmp_path.rglob("*"), *cache.rglob("*")])
    refused = encode(
        cache,
        tmp_path,
        "input=corpus.txt",
        "output=new/out",
        f"model_folder={tmp_path / 'lower_case'}",
        "precision=int8",
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        f"retrofit encode: precision=int8: {tmp_path / 'lower_case'} is not the model of a run"
    )
    assert refused.stderr.count("\n") == 1
    assert sorted([*tmp_path.rglob("*"), *cache.rglob("*")]) == before


def test_a_damaged_part_is_made_again(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(phrases(30)), encoding="utf-8")
    arguments = ("input=corpus.txt", "output=out")
    assert encode(cache, tmp_path, *arguments).returncode == 0
    whole = contents(tmp_path / "out")
    vectors = tmp_path / "out" / "vectors.npy"
    vectors.write_bytes(whole["vectors.npy"][:-100])
    refused = encode(cache, tmp_path, *arguments)
    assert refused.returncode == 2
    assert "damaged" in refused.stderr

    (tmp_path / "out").rename(tmp_path / ".out.partial")  # as if it had been damaged before it was complete
    again = encode(cache, tmp_path, *arguments)
    assert "is damaged" in again.stderr
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ('{"_id": "2"}', "row 2, field text: missing field"),
        ('{"_id": "2", "text": null}', "row 2, field text: null field"),
        ('{"_id": "2", "text": 3}', "row 2, field text: not a text (int)"),
        ('{"_id": "2", "text": " "}', "row 2, field text: only white space"),
        ('{"_id": "2", "text": "\\ud800"}', "row 2, field text: lone surrogate"),
        ('{"text": "tea"}', "row 2, field _id: missing field"),
        ('{"_id": "a\\nb", "text": "tea"}', "row 2, field _id: not an identifier"),
        ('{"_id": 1, "text": "tea"}', "row 2, field _id: duplicate identifier (1, as in row 1 of bad.jsonl)"),
        ('{"_id": "2", "text"', "row 2: broken JSON"),
        ("[]", "row 2: not an object"),
    ],
)
def test_a_bad_row_is_one_line_and_nothing_is_written(tmp_path: Path, second: str, expected: str) -> None:
    from retrofit.artefacts import ArtefactStore
    from retrofit.errors import UserError
    from retrofit.evaluation.corpus_texts import CheckedCorpus, Corpus

    (tmp_path / "bad.jsonl").write_text('{"_id": "1", "text": "fine"}\n' + second + "\n", encoding="utf-8")
    corpus = Corpus.find(str(tmp_path / "bad.jsonl"), "auto", ["title", "text"], "_id", "passage")
    with pytest.raises(UserError) as caught:
        CheckedCorpus.check(corpus, ArtefactStore(tmp_path / "cache"))
    message = str(caught.value).replace(f"{tmp_path}/", "")
    assert message.startswith(f"bad.jsonl, {expected}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["output=out"], "input=None: expected a file"),
        (["input=corpus.txt"], "output=None: expected a folder"),
        (["input=none.txt", "output=out"], "input=none.txt: no such file"),
        (["input=corpus.txt", "output=out", "kind=both"], "kind=both: expected one of query, passage"),
        (["input=corpus.txt", "output=out", "dtype=int8"], "dtype=int8: expected one of float32, float16"),
        (["input=corpus.txt", "output=out", "text_field=null"], "text_field=None: expected the name of a field"),
        (["input=corpus.txt", "output=out", "text_field=5"], "text_field=5: expected the name of a field"),
        (["input=corpus.txt", "output=out", "id_field=5"], "id_field=5: expected the name of a field, or null"),
        (["input=corpus.txt", "output=out", "format=xml"], "format=xml: expected auto or one of"),
        (["input=corpus.txt", "output=out", "dimensions=0"], "dimensions=0: expected a whole number"),
        (["input=corpus.txt", "output=out", "model_folder=none"], "model_folder=none: no such folder"),
        (["input=empty.txt", "output=out"], "input=empty.txt: holds no text"),
        (["input=corpus.txt", "output=."], "exists and holds something else"),
        (["input=corpus.txt", "output=corpus.txt"], "corpus.txt: is a file; expected a folder"),
    ],
)
def test_what_the_user_can_mend_is_one_line(cache: Path, tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "corpus.txt").write_text("tea\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    done = encode(cache, tmp_path, *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "empty.txt"]
