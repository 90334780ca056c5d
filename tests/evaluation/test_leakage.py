"""What of a task occurs in training: equal and nearly equal texts are counted, like words and translations are not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from retrofit.artefacts import write_json
from retrofit.data.curation.settings import DecontaminationSettings
from retrofit.data.records import Pair
from retrofit.data.selection import strata
from retrofit.data.storage import PAIRS, REPORT, PairSource, write_pairs
from retrofit.data.training_data import TrainingData, evaluation_sources
from retrofit.errors import UserError
from retrofit.evaluation.leakage import TrainingTexts, leakage, training_strata, training_texts
from retrofit.evaluation.tasks import (
    BitextTask,
    ClassificationTask,
    ClusteringTask,
    RetrievalTask,
    SimilarityTask,
    Task,
)
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs

STANDARD = DecontaminationSettings(exact=True, near=0.8, shared_run=50, run_share=0.5)
NOUNS = ("address", "bridge", "device", "password")
PARAGRAPH = (
    "The harbour of the old town silted up in the fourteenth century, and the merchants moved their warehouses to the "
    "mouth of the river, where ships of any draught could land at every tide."
)
JAPANESE = (
    "この港町は十四世紀に土砂で埋まり、商人たちは倉庫を河口へ移したため、どんな船でも潮を待たずに着くことができた。"
)


def clustering(*texts: str) -> ClusteringTask:
    return ClusteringTask("suite", "topics", "en", "en", texts, ["label"] * len(texts))


def found(training: str, text: str) -> bool:
    table = leakage([clustering(text)], TrainingTexts.of([training]), STANDARD)
    return bool(table["queries_in_training"].item())


def words(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)  # noqa: S311 -- made-up text
    return ["".join(generator.choices("aeioubdfgklmnrst", k=6)) for _ in range(count)]


@pytest.mark.parametrize(
    ("training", "text"),
    [
        ("Turn on the light", "Turn on the light"),
        ("Turn on the light", "  TURN on\tthe\u00a0light\n"),
        ("Turn on the light", "Ｔｕｒｎ ｏｎ ｔｈｅ ｌｉｇｈｔ"),  # full width
        ("Straße", "STRASSE"),
        ("照明をつける", "照明を\u200bつける"),
        ("ライト", "ﾗｲﾄ"),  # half width
    ],
)
def test_a_text_that_differs_in_case_width_or_blanks_is_equal(training: str, text: str) -> None:
    row = leakage([clustering(text)], TrainingTexts.of([training]), STANDARD).iloc[0]
    assert row["queries_in_training"] == row["queries_equal_in_training"] == 1


@pytest.mark.parametrize(
    ("training", "text"),
    [
        (PARAGRAPH, PARAGRAPH.replace("old", "ancient").replace("any", "every")),
        (PARAGRAPH, f"As was said before: {PARAGRAPH}"),
        (f"{' '.join(words(1, 200))} {PARAGRAPH} {' '.join(words(2, 200))}", PARAGRAPH),
        (JAPANESE, JAPANESE.replace("十四", "十五")),
        (JAPANESE, f"昔の話である。{JAPANESE}"),
    ],
)
def test_a_text_with_a_few_words_changed_or_within_another_is_found_and_not_equal(training: str, text: str) -> None:
    row = leakage([clustering(text)], TrainingTexts.of([training]), STANDARD).iloc[0]
    assert row["queries_in_training"] == 1
    assert row["queries_equal_in_training"] == 0


def test_texts_that_share_words_of_an_interface_are_not_found() -> None:
    assert not found("Enter the API key of your Hue bridge", "Enter the host name of your printer")
    assert not found("The device is already configured", "The account is already in use")
    assert not found("機器の設定が完了しました", "機器に接続できませんでした")


def test_pages_with_the_same_header_are_not_found() -> None:
    header = "Help and support for customers: frequently asked questions and answers."
    assert not found(f"{header} {' '.join(words(3, 60))}", f"{header} {' '.join(words(4, 60))}")


def test_a_translation_of_a_training_text_is_not_found() -> None:
    assert not found(PARAGRAPH, JAPANESE)
    assert not found("The station is closed.", "Der Bahnhof ist geschlossen.")


def test_every_kind_of_task_is_counted_by_what_it_asks_and_what_answers() -> None:
    names = ("suite", "task", "de", "en")
    training = TrainingTexts.of(["known question", "known answer", "known distractor"])
    tasks: list[Task] = [
        RetrievalTask(
            *names,
            queries={"1": "known question", "2": "another question"},
            corpus={"a": "known answer", "b": "known distractor", "c": "another answer", "d": "known answer"},
            qrels={"1": {"a": 1, "b": 0}, "2": {"a": 2, "c": 1, "d": 1}},
        ),
        BitextTask(*names, sentences=["one", "two"], translations=["known answer", "zwei"]),
        SimilarityTask(*names, first=["known question"] * 2, second=["three", "four"], scores=[0.0, 1.0]),
        ClusteringTask(*names, texts=["known answer", "five"], labels=["x", "y"]),
        ClassificationTask(
            *names, train_texts=["known answer"], train_labels=["x"], texts=["six", "seven"], labels=["x", "x"]
        ),
    ]
    table = leakage(tasks, training, STANDARD)
    counts = table[["queries", "queries_in_training", "passages", "passages_in_training"]]
    assert counts.to_numpy().tolist() == [[2, 1, 3, 2], [2, 0, 2, 1], [2, 2, 2, 0], [2, 1, 0, 0], [2, 0, 0, 0]]
    assert set(table["query_language"]) == {"de"}
    assert set(table["document_language"]) == {"en"}


def test_what_is_not_known_is_missing_and_not_zero(tmp_path: Path) -> None:
    table = leakage([clustering("a text")], None, STANDARD)
    assert table["queries"].tolist() == [1]
    assert table["queries_in_training"].isna().all()
    table.to_csv(tmp_path / "leakage.csv", index=False)
    assert (tmp_path / "leakage.csv").read_text(encoding="utf-8").splitlines()[1] == "suite,topics,en,en,1,,0,,,"


@given(st.lists(st.text(max_size=120), min_size=1, max_size=6), st.data())
def test_a_text_of_the_training_set_is_always_found(texts: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(texts))
    row = leakage([clustering(chosen)], TrainingTexts.of(texts), STANDARD).iloc[0]
    assert row["queries_equal_in_training"] == row["queries_in_training"] == 1


@pytest.fixture
def run(tmp_path: Path, small_run: list[str], train_config: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Return a function that writes what a run of a configuration says about its data."""

    def written(*overrides: str) -> Path:
        config = train_config(*small_run, f"paths.cache={tmp_path / 'cache'}", "curation=none", *overrides)
        data = TrainingData.prepare(config, evaluation_sources(config))
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        write_json(folder / "data_manifest.json", data.manifest())
        return folder

    return written


def test_all_that_a_run_selected_is_found_and_nothing_else(
    run: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    training = training_texts(run("task_mix=field_help", "languages=en"), str(tmp_path / "cache"))
    source = PairSource.open(corpus)

    def table(task: str) -> Any:
        tasks = tasks_from_pairs(source, "own", "train", [task], "task", None, None)
        return leakage(tasks, training, STANDARD).set_index("query_language")

    helps = table("field_help")
    assert helps.loc["en", "queries_equal_in_training"] == helps.loc["en", "queries"] == 7
    assert helps.loc["en", "passages_equal_in_training"] == helps.loc["en", "passages"]
    assert table("title_body").loc["en", "queries_equal_in_training"] == 0


def test_anchors_count_as_trained_on(run: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    training = training_texts(
        run("task_mix=field_help", "anchor=base", "anchor.tasks=[title_body]"), str(tmp_path / "cache")
    )
    tasks = tasks_from_pairs(PairSource.open(corpus), "own", "train", ["title_body"], "task", None, None)
    table = leakage(tasks, training, STANDARD)
    assert (table["queries_equal_in_training"] == table["queries"]).all()


@pytest.mark.parametrize(("given", "counted"), [(0, 0), (1, 1)])
def test_hard_negatives_count_where_a_run_takes_them(
    run: Callable[..., Path], tmp_path: Path, given: int, counted: int
) -> None:
    folder = tmp_path / "source" / "with_negatives"
    folder.mkdir(parents=True)
    labels = ("help", "en", "en", "made up")
    pairs = [Pair(f"query {word}", (f"answer {word}",), *labels, word, "train", (f"wrong {word}",)) for word in NOUNS]
    write_pairs(folder / PAIRS, pairs)
    (folder / REPORT).write_text("{}", encoding="utf-8")
    written = run(f"data_source.pairs._args_=['{folder}']", "task_mix=all", f"negatives.given={given}")
    training = training_texts(written, str(tmp_path / "cache"))
    table = leakage([clustering("wrong bridge", "never seen")], training, STANDARD)
    assert table["queries_equal_in_training"].tolist() == [counted]


def test_strata_are_those_of_the_selection(run: Callable[..., Path], corpus: Path) -> None:
    folder = run("task_mix=field_help", "languages=high_resource")
    expected = {("field_help", language, language) for language in ("de", "en")}
    assert set(training_strata(folder)) >= expected
    assert all(task == "field_help" for task, _, _ in training_strata(folder))
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    data = TrainingData.prepare(config, evaluation_sources(config))
    assert training_strata(folder) == sorted(strata(data.source.pairs, data.rows))


def test_data_that_changed_since_is_unknown_and_says_so(
    run: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run()
    manifest = json.loads((folder / "data_manifest.json").read_text(encoding="utf-8"))
    write_json(folder / "data_manifest.json", manifest | {"fingerprint": "another source"})
    assert training_texts(folder, str(tmp_path / "cache")) is None
    assert "leakage is unknown" in caplog.text


def test_the_cache_of_now_is_looked_into_and_that_of_the_run_is_not(run: Callable[..., Path], tmp_path: Path) -> None:
    folder = run("task_mix=field_help")
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert training_texts(folder, str(tmp_path / "moved")) is not None
    assert not (tmp_path / "cache").exists()


def test_data_that_is_gone_is_unknown_and_says_so(
    run: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run()
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["data_source"]["pairs"]["_args_"] = [str(folder / "nowhere")]
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert training_texts(folder, str(tmp_path / "cache")) is None
    assert "nowhere" in caplog.text
    del config["evaluation"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert training_texts(folder, str(tmp_path / "cache")) is None
    assert "no 'evaluation'" in caplog.text


def test_a_folder_that_is_no_run_has_no_strata(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_manifest\.json"):
        training_strata(tmp_path)
