"""Every hub set, read by ``datasets`` from a tiny local copy with the set's configurations, splits and columns."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from retrofit.commands.application import configuration_folder
from retrofit.errors import UserError

Rows = Sequence[Mapping[str, Any]]
Tables = Mapping[tuple[str, str], Rows]
"""Rows by configuration and split."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")  # shared, so that a mix finds its parts


@pytest.fixture(autouse=True)
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def write_copy(folder: Path, tables: Tables) -> Path:
    """Write a folder as a set of the hub is laid out: Parquet by configuration and split, named in the README."""
    configs: dict[str, list[dict[str, str]]] = {}
    for (config, split), rows in tables.items():
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        configs.setdefault(config, []).append({"split": split, "path": f"{config}/{split}-*"})
    described = [{"config_name": config, "data_files": files} for config, files in configs.items()]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': described})}---\n# A copy\n")
    return folder


def pairs(query: str, positive: str, negative: str | None = None, tag: str = "") -> Rows:
    names = [query, positive, *([negative] if negative else [])]
    return [{name: f"{tag}{name} {number}" for name in names} for number in range(12)]


def beir(corpus: tuple[str, str], queries: tuple[str, str], qrels: str, splits: Sequence[str], tag: str = "") -> Tables:
    documents = [{"_id": f"d{n}", "title": f"{tag}title {n}", "text": f"text {n}"} for n in range(16)]
    asked = [{"_id": f"q{n}", "text": f"{tag}query {n}"} for n in range(12)]
    judged = {
        (qrels, split): [
            {"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1.0} for n in range(12) if n % len(splits) == place
        ]
        for place, split in enumerate(splits)
    }
    return {corpus: documents, queries: asked, **judged}


def by_language(languages: str, config: str, *columns: str, tag: str = "") -> Tables:
    return {(config.format(code), "train"): pairs(*columns, tag=f"{tag}{code} ") for code in languages.split()}


MMARCO = "arabic chinese dutch french german hindi indonesian italian japanese portuguese russian spanish vietnamese"
MKQA = "ar da de en es fi fr he hu it ja km ko ms nl no pl pt ru sv th tr vi zh_cn zh_hk zh_tw"
OPUS = "ar-en bn-en de-en en-es en-fa en-fr en-hi en-id en-ja en-ko en-ru en-th en-zh"


def opus() -> Tables:
    codes = {config: next(code for code in config.split("-") if code != "en") for config in OPUS.split()}
    return {
        (config, "train"): [{"translation": {"en": f"sentence {n}", code: f"{code} {n}"}} for n in range(12)]
        for config, code in codes.items()
    }


def mkqa() -> Tables:
    tables: dict[tuple[str, str], Rows] = {}
    for code in MKQA.split():
        corpus, queries, qrels = (f"{code}-{table}" for table in ("corpus", "queries", "qrels"))
        tables |= beir((corpus, "train"), (queries, "train"), qrels, ["train"], tag=f"{code} ")
    return tables


# Name of the YAML file → the set's configurations, splits and columns, as written down for each set.
COPIES: dict[str, Tables] = {
    "msmarco": {
        ("triplet", "train"): pairs("query", "positive", "negative"),
        ("triplet-all", "train"): [{"query": "no"}],
    },
    "nq": {("pair", "train"): pairs("query", "answer")},
    "hotpotqa": {
        ("triplet", "train"): pairs("anchor", "positive", "negative", "hotpot "),
        ("triplet-20", "train"): [{"a": "no"}],
    },
    "fever": beir(("corpus", "corpus"), ("queries", "queries"), "default", ["train", "dev", "test"]),
    "squad": {("pair", "train"): pairs("question", "answer")},
    "trivia_qa": {("pair", "train"): pairs("query", "answer", tag="trivia ")},
    "eli5": {("pair", "train"): pairs("question", "answer", tag="eli5 ")},
    "quora": {
        ("pair", "train"): [{"a": "no"}],
        ("triplet", "train"): pairs("anchor", "positive", "negative", "quora "),
    },
    "all_nli": {("triplet", "train"): pairs("anchor", "positive", "negative"), ("triplet", "dev"): [{"anchor": "no"}]},
    "gooaq": {("pair", "train"): pairs("question", "answer", tag="gooaq ")},
    "miracl": by_language(
        "ar bn en es fa fi fr hi id ja ko ru sw te th zh", "{}-triplet", "anchor", "positive", "negative"
    ),
    "mr_tydi": by_language(
        "ar bn en fi id ja ko ru sw te th", "{}-triplet", "anchor", "positive", "negative", tag="tydi "
    ),
    "mmarco": by_language(MMARCO, "{}-triplet", "query", "positive", "negative"),
    "mkqa": mkqa(),
    "tatoeba": by_language("ar cs de es fi fr he hi id it ja ko nl pl pt ru tr vi", "en-{}", "english", "non_english"),
    "opus_100": opus(),
}
BITEXTS = {"tatoeba", "opus_100"}
MIXES = {"en_mix": list(COPIES)[:10], "multilingual_mix": list(COPIES)[10:]}


@functools.cache
def configuration(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", [f"data_source={name}"]).data_source)
    return dict(config)


def languages_of(config: Mapping[str, Any]) -> set[str]:
    codes = config["configs"] if "configs" in config else config["languages"]
    return {config["language_codes"].get(code, code) for code in codes}


@pytest.mark.parametrize("name", COPIES)
def test_a_hub_set_is_read_from_a_copy_of_its_form(name: str, tmp_path: Path, build: Any) -> None:
    source = build(name, path=str(write_copy(tmp_path / "copy", COPIES[name])))
    config = configuration(name)
    rows = source.pairs.to_pylist()
    assert {row["task"] for row in rows} == {config["task"]}
    assert {row["source"] for row in rows} == {name}
    assert {row["language"] for row in rows} == languages_of(config)
    assert {row["document_language"] for row in rows} == ({"en"} if name in BITEXTS else languages_of(config))
    per_language = Counter(row["language"] for row in rows)
    if name != "opus_100":  # in whose copy all languages share their English side
        assert set(per_language.values()) == {12}
    assert source.report["refused"] == {}
    assert source.report["licence"] == config["licence"]
    negatives = any("negative" in row for table in COPIES[name].values() for row in table)
    assert any(row["negatives"] for row in rows) == negatives
    assert all(len(row["positives"]) == 1 for row in rows)


def test_fever_keeps_the_splits_of_its_judgements(tmp_path: Path, build: Any) -> None:
    source = build("fever", path=str(write_copy(tmp_path / "copy", COPIES["fever"])))
    assert source.report["pairs"] == {"fact_checking": {"en": {"train": 4, "validation": 4, "test": 4}}}
    assert source.passages is None
    assert source.pairs["positives"].to_pylist()[0] == ["title 0 text 0"]


def test_bitext_has_the_other_language_as_query(tmp_path: Path, build: Any) -> None:
    source = build("opus_100", path=str(write_copy(tmp_path / "copy", COPIES["opus_100"])))
    row = next(row for row in source.pairs.to_pylist() if row["language"] == "zh-Hans")
    assert row["query"].startswith("zh ")
    assert row["positives"][0].startswith("sentence ")


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_has_the_pairs_of_all_its_parts(name: str, tmp_path: Path, build: Any) -> None:
    paths = {f"parts__{part}__path": str(write_copy(tmp_path / part, COPIES[part])) for part in MIXES[name]}
    source = build(name, **paths)
    assert set(configuration(name)["parts"]) == set(MIXES[name])
    assert set(source.pairs["source"].to_pylist()) == set(MIXES[name])
    assert all(f"{part}: " in source.report["licence"] for part in MIXES[name])


def test_every_set_says_what_it_is() -> None:
    for name in COPIES:
        config = configuration(name)
        assert config["name"] == name
        assert config["licence"]
        assert "/" in config["path"]


@pytest.mark.parametrize("streaming", [False, True])
def test_only_the_first_rows_are_read_where_a_limit_is_set(streaming: bool, tmp_path: Path, build: Any) -> None:
    path = str(write_copy(tmp_path / "copy", COPIES["nq"]))
    source = build("nq", path=path, rows=5, streaming=streaming)
    assert sorted(source.pairs["query"].to_pylist()) == [f"query {number}" for number in range(5)]


def test_any_set_is_read_by_its_columns(tmp_path: Path, build: Any) -> None:
    rows = [
        {
            "question": {"text": f"Frage {n}"},
            "hits": [{"body": f"gut {n}", "ok": True}, {"body": f"auch {n}", "ok": True}],
        }
        for n in range(9)
    ]
    path = str(write_copy(tmp_path / "copy", {("german", "validation"): rows}))
    columns = {"query": "question.text", "positive": "hits.body"}
    source = build("hub", path=path, configs={"de": "german"}, split="validation", columns=columns)
    assert {len(row["positives"]) for row in source.pairs.to_pylist()} == {2}


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("nq", {"path": None}, "data_source.path=null: expected the name of a set"),
        ("nq", {"path": "nobody/nothing"}, "data_source.path=nobody/nothing: .*HF_HUB_CACHE.*or a local folder"),
        ("nq", {"path": "nobody/nothing", "streaming": True}, "data_source.path=nobody/nothing: .*HF_HUB_CACHE"),
        ("nq", {"configs": {"en": "triplet"}}, "copy/triplet/train cannot be read: .*triplet"),
        ("nq", {"split": "test"}, "copy/test cannot be read: .*test"),
        ("nq", {"rows": 0}, "data_source.rows=0: expected a whole number of 1 or more"),
        (
            "nq",
            {"columns": {"positive": "passage"}},
            "12 of 12 rows refused.*missing field .passage; there are query, answer",
        ),
        ("hub", {}, "data_source.configs={}: expected the set's configuration by language"),
        ("hub_beir", {}, "data_source.qrels_splits: expected at least one"),
        ("hub", {"configs": "de"}, "data_source.configs=de: expected"),
        (
            "hub_beir",
            {"qrels_splits": {"dev": "dev"}},
            "data_source.qrels_splits=.*dev.*: expected the set's",
        ),
        ("hub_beir", {"qrels_splits": "test"}, "data_source.qrels_splits=test: expected the set's split by ours"),
        (
            "hub_beir",
            {"qrels_splits": {"test": "test"}, "languages": "en"},
            "data_source.languages=en: expected a list",
        ),
        ("hub_beir", {"qrels_splits": {"test": "test"}, "queries": None}, "data_source.queries=None: expected"),
        (
            "hub_beir",
            {"qrels_splits": {"test": "test"}, "corpus": ["corpus"]},
            "data_source.corpus=.*configuration, split",
        ),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(
    name: str, overrides: dict[str, Any], message: str, tmp_path: Path, build: Any
) -> None:
    path = str(write_copy(tmp_path / "copy", COPIES["nq"]))
    with pytest.raises(UserError, match=message) as raised:
        build(name, **{"path": path, **overrides})
    assert "\n" not in str(raised.value)
