"""``retrofit search`` from outside: a process with a model, a file and queries on standard input."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.commands.forked import retrofit

from retrofit.commands.search import quoted, with_overrides
from retrofit.errors import UserError
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import tiny_checkpoint
from retrofit.models.export import export_sentence_transformer

TEXTS = ["tea\tor coffee", "Tee oder Kaffee", "お茶", "קפה", "A much longer passage about neither of the two."]
QUERIES = ["tea", "קפה", "longer passage"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("search")
    encoder = BiEncoder.load(tiny_checkpoint(work / "cache"), "mean", {"query": "query: ", "passage": "passage: "}, 64)
    # A name that is a riddle to every parser on the way.
    export_sentence_transformer(encoder, encoder.backbone.state_dict(), work / "model = it's ${a}, {b}")
    (work / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return work


def search(work: Path, *arguments: str, queries: str = "") -> subprocess.CompletedProcess[str]:
    return retrofit(work, "search", *arguments, stdin=queries)


def test_piped_queries_get_the_answers_of_sentence_transformers(work: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = work / "model = it's ${a}, {b}"
    first = search(work, str(folder), "texts.txt", "top_k=2", queries="\n".join(QUERIES) + "\n\n")
    assert first.returncode == 0, first.stderr
    assert "encoding 5 passages" in first.stderr

    reference = SentenceTransformer(str(folder), device="cpu")
    documents = reference.encode([f"passage: {text}" for text in TEXTS])
    expected = []
    for query in QUERIES:
        scores = documents @ reference.encode(f"query: {query}")
        for rank, row in enumerate(np.argsort(-scores)[:2], start=1):
            expected.append([query, str(rank), f"{scores[row]:.3f}", str(row + 1), TEXTS[row].replace("\t", " ")])
    got = [line.split("\t") for line in first.stdout.splitlines()]
    assert [[*cells[:2], *cells[3:]] for cells in got] == [[*cells[:2], *cells[3:]] for cells in expected]
    np.testing.assert_allclose([float(c[2]) for c in got], [float(c[2]) for c in expected], atol=2e-3)

    again = search(work, folder.name, "texts.txt", "top_k=2", queries="\n".join(QUERIES))
    assert again.stdout == first.stdout
    assert "encoding" not in again.stderr, "the second search finds the passages encoded"


def test_nothing_is_left_where_the_command_is_given(work: Path, tmp_path: Path) -> None:
    assert search(tmp_path, "none", str(work / "texts.txt")).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_bad_row_is_one_line_and_status_2(work: Path) -> None:
    (work / "bad.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    done = search(work, "model = it's ${a}, {b}", "bad.jsonl", queries="tea\n")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "retrofit search: bad.jsonl, row 2, field 'text': expected text, found a number\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "model_folder is not given; usage: retrofit search MODEL CORPUS"),
        (["model"], "corpus is not given"),
        (["none", "texts.txt"], "model_folder=none: no such folder"),
        (["none", "none.txt"], "corpus=none.txt: no such file"),
        (["none", "texts.txt", "more"], "unexpected argument 'more'"),
        (["none", "texts.txt", "top_k=0"], "top_k=0: expected a whole number"),
        (["none", "texts.txt", "batch_size=many"], "batch_size=many: expected a whole number"),
    ],
)
def test_what_the_user_can_mend_is_one_line(work: Path, arguments: list[str], expected: str) -> None:
    done = search(work, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"retrofit search: {expected}")
    assert done.stderr.count("\n") == 1


def test_help_is_quick_and_explains_the_arguments(work: Path) -> None:
    started = time.monotonic()
    done = search(work, "--help")
    seconds = time.monotonic() - started
    assert done.returncode == 0
    assert "retrofit search MODEL CORPUS" in done.stdout
    assert "top_k: 5" in done.stdout
    # Two seconds on an idle machine; nothing heavy is imported for it, which is what matters.
    assert seconds < 6
    program = "import sys, retrofit.commands.search; print(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout == "[]\n"


def test_a_reader_that_stops_early_is_no_error(work: Path) -> None:
    queries = work / "queries.txt"
    queries.write_text("tea\n" * 300)
    command = (
        f"'{sys.executable}' -m retrofit search \"model = it's \\${{a}}, {{b}}\" texts.txt < queries.txt | head -n 1"
    )
    environment = {**os.environ, "RETROFIT_CACHE": str(work / "cache")}
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=work, env=environment,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("tea\t1\t")
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@given(st.text(st.characters(exclude_categories=["C"])) | st.text(st.sampled_from("\\'\"${}[],:=~a "), max_size=12))
@example("a\\'")
@example("\\")
@example("\\\\${x}")
def test_any_path_comes_back_from_the_override(path: str) -> None:
    override = OverridesParser.create().parse_override(f"corpus={quoted(path)}")
    config = OmegaConf.create({"corpus": None})
    OmegaConf.update(config, "corpus", override.value())
    assert OmegaConf.to_container(config, resolve=True) == {"corpus": path}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["m", "c.txt"], ["model_folder='m'", "corpus='c.txt'"]),
        (["m", "top_k=3", "c.txt", "+x.y=1"], ["model_folder='m'", "top_k=3", "corpus='c.txt'", "+x.y=1"]),
        (["runs/a=b/m", "./c=d"], ["model_folder='runs/a=b/m'", "corpus='./c=d'"]),
        (["corpus=c", "model_folder=m"], ["corpus=c", "model_folder=m"]),
        (["~/m", "c"], ["model_folder='~/m'", "corpus='c'"]),
        (["~text_field", "hydra/launcher=x"], ["~text_field", "hydra/launcher=x"]),
        (["--cfg", "job", "-cn", "x", "m"], ["--cfg", "job", "-cn", "x", "model_folder='m'"]),
        ([], []),
    ],
)
def test_which_arguments_are_model_and_corpus(arguments: list[str], expected: list[str]) -> None:
    assert with_overrides(arguments) == expected


def test_a_file_that_exists_is_no_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.txt").write_text("text")
    assert with_overrides(["m", "a=b.txt"]) == ["model_folder='m'", "corpus='a=b.txt'"]
    with pytest.raises(UserError, match="unexpected argument 'c'"):
        with_overrides(["a", "b", "c"])
