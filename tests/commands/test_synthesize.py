"""``retrofit synthesize`` from outside, the pairs it leaves for ``retrofit train``, and a key that is left nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.commands.forked import retrofit

from retrofit.data.storage import PairSource

WORDS = ["harbour", "lighthouse", "bakery", "orchard", "railway", "library", "monastery", "quarry", "windmill", "canal"]
KEY = "sk-test-1f7c4e9a2b8d4c60a5e3"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A file of titled passages."""
    path = tmp_path / "notes.jsonl"
    rows = [
        {
            "title": f"{word.title()} {other.title()}",
            "text": f"The {word} of {other} was founded in 18{number:02d} and its keeper wrote to the {other} council.",
        }
        for number, (word, other) in enumerate((a, b) for a in WORDS for b in WORDS if a != b)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def own(notes: Path, small_run: list[str]) -> list[str]:
    """The overrides that write for the file with the tiny model, and keep away from the embedded corpus."""
    kept = [override for override in small_run if "evaluation.sources" in override]
    return [
        "data_source=synthetic", "passages@data_source.passages.leads=folder",
        f"data_source.passages.leads.path={notes}", "data_source.passages.leads.language=en",
        "data_source.round_trip.k=10", "model=tiny", *kept,
    ]  # fmt: skip


@pytest.fixture
def training(small_run: list[str]) -> list[str]:
    """The overrides of a run of seconds that come on top of those."""
    return [override for override in small_run if "data_source." not in override and "evaluation." not in override]


@pytest.fixture
def real(small_run: list[str]) -> list[str]:
    """The overrides that compare with the tiny corpus."""
    (target,) = (override for override in small_run if override.startswith("+data_source.pairs._args_"))
    place = "real.embedded.pairs"
    return [f"{place}._target_=pathlib.Path", f"~{place}.cache", target.replace("data_source.pairs", place)]


def test_queries_are_written_shown_and_trained_with(
    tmp_path: Path, own: list[str], real: list[str], training: list[str]
) -> None:
    done = retrofit(tmp_path, "synthesize", *own, *real)
    assert done.returncode == 0, done.stderr
    assert "template: 90 passages" in done.stdout
    (folder,) = (tmp_path / "runs" / "synthesis").iterdir()
    account = json.loads((folder / "synthesis.json").read_text(encoding="utf-8"))
    assert account["kept"] > 50
    distances = pd.read_csv(folder / "bias_distances.csv")
    assert distances.query("language == 'en' and property == 'all'")["distance"].item() > 0.1
    assert "synthetic" in (folder / "report.html").read_text(encoding="utf-8")
    (built,) = (path for path in (tmp_path / "cache" / "corpora").iterdir() if path.is_dir())
    assert PairSource.open(built).pairs.num_rows == account["kept"]

    trained = retrofit(tmp_path, "train", *own, *training, "task_mix=all", "data_scale=all")
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs" / "train").iterdir()
    manifest = json.loads((run / "data_manifest.json").read_text(encoding="utf-8"))
    assert manifest["fingerprint"] == built.name
    assert {row["task"].split("_")[0] for row in manifest["pairs_by_task_and_language"]} == {"synthetic"}

    again = retrofit(tmp_path, "synthesize", *own, *real)
    assert again.returncode == 0, again.stderr
    assert "texts to write" not in again.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data_source.passages.leads.path=nothing.jsonl", "data_source.passages.*.path=nothing.jsonl: no such file"),
        ("data_source.filters.max_copied=2", "data_source.filters.max_copied=2: expected a share"),
        ("data_source.plan.cross_lingual=null", "data_source.plan.cross_lingual=None: expected a list of names"),
        ("data_source.plan.families=null", "data_source.plan.families=None: expected a mapping"),
        ("data_source.passages.leads.columns=null", "data_source.passages.*.columns=None: expected a mapping"),
        ("model=bm25", "model=bm25: expected a model with a checkpoint"),
        ("seed=-1", "seed=-1: expected a whole number"),
        ("sample=0", "sample=0: expected a whole number"),
        ("paths.templates=nowhere", "paths.templates=nowhere: no templates"),
        ("generator@data_source.generator=openai data_source.generator.chat.api_key_variable=NOT_SET", "NOT_SET"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, own: list[str], real: list[str], override: str, said: str) -> None:
    done = retrofit(tmp_path, "synthesize", *own, *real, *override.split())
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("retrofit synthesize: ")
    assert said in last
    assert "Traceback" not in done.stderr


def test_another_data_source_is_refused(tmp_path: Path, small_run: list[str]) -> None:
    done = retrofit(tmp_path, "synthesize", "data_source=embedded", "model=tiny")
    assert done.returncode == 2
    assert done.stderr == "retrofit synthesize: data_source=embedded: expected data_source=synthetic\n"


def test_the_key_is_nowhere(tmp_path: Path, own: list[str], real: list[str], training: list[str]) -> None:
    """Not where a server echoes it in an error, and not where it is used to write, train and mirror to W&B."""
    pytest.importorskip("openai")
    pytest.importorskip("wandb")
    from tests.synthesis.fault_server import FaultServer

    with FaultServer() as server:
        chat = "data_source.generator.chat"
        through = [
            *own, "generator@data_source.generator=openai", f"{chat}.base_url={server.url}", f"{chat}.model=small",
            "data_source.round_trip.k=null", "data_source.filters.max_copied=null",
            "data_source.filters.language_confidence=null",
        ]  # fmt: skip
        done = retrofit(tmp_path, "synthesize", *through, *real, OPENAI_API_KEY=KEY)
        shown = retrofit(tmp_path, "synthesize", *through, "--cfg", "job", OPENAI_API_KEY=KEY)
    outputs = [done.stdout, done.stderr, shown.stdout, shown.stderr]
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(shown.stdout)["data_source"]["generator"]["chat"]["api_key_variable"] == "OPENAI_API_KEY"
    trained = retrofit(
        tmp_path, "train", *through, *(one for one in training if one != "logger=none"), "task_mix=all",
        "curation=none", "data_scale=all", "logger=wandb_offline", OPENAI_API_KEY=KEY,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    outputs += [trained.stdout, trained.stderr]
    assert not any(KEY in output for output in outputs)
    searched = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("replies" in str(path) for path in searched)
    assert any("wandb" in str(path) for path in searched)
    assert [path for path in searched if KEY.encode() in path.read_bytes()] == []
