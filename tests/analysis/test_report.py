"""The report: the run's own figures, one file, well-formed, safe, the same every time."""

from __future__ import annotations

import ast
import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from retrofit.analysis.figures import signed
from retrofit.analysis.report import write_report
from retrofit.errors import UserError

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Collects tags, attributes, table rows and text, and refuses tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def source(run_folder: Path) -> str:
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def page(source: str) -> Page:
    return Page(source)


def test_every_cell_of_the_csv_stands_in_a_row(page: Page, run_folder: Path) -> None:
    frame = pd.read_csv(run_folder / "metrics.csv", keep_default_na=False)
    keys = ["suite", "task", "query_language", "document_language", "n_queries"]
    wide = frame[frame["metric"] == "ndcg_at_10"].pivot_table(index=keys, columns="model", values="value")
    assert len(wide) == 20
    for (_, task, query, document, n), values in wide.iterrows():
        row = [task.replace("_", " "), f"{query} → {document}", f"{values['base']:.4f}", f"{values['retrofitted']:.4f}",
               signed(values["retrofitted"] - values["base"]), str(n)]  # fmt: skip
        assert row in page.rows


def test_tables_of_languages_and_tasks_are_means_of_the_csv(page: Page, run_folder: Path) -> None:
    frame = pd.read_csv(run_folder / "metrics.csv", keep_default_na=False)
    ndcg = frame[frame["metric"] == "ndcg_at_10"]
    for suite, by in (("held_out", "query_language"), ("held_out", "task"), ("retention", "task")):
        rows = ndcg[ndcg["suite"] == suite]
        queries = rows[rows["model"] == "base"].groupby(by)["n_queries"].sum()
        means = rows.pivot_table(index=by, columns="model", values="value")
        for name, values in means.iterrows():
            label = name.replace("_", " ") + (" (unseen)" if name in ("fi", "ga", "ru") else "")
            change = signed(values["retrofitted"] - values["base"])
            expected = [label, f"{values['base']:.4f}", f"{values['retrofitted']:.4f}", change, str(queries[name])]
            assert expected in page.rows


def test_the_headline_is_that_of_the_run_with_forgetting_in_it(page: Page, source: str, run_folder: Path) -> None:
    headline = json.loads((run_folder / "metrics.json").read_text())["headline"]
    cards = source[source.index('<section class="cards"') : source.index("</section>")]
    for figures in (headline["held_out"], headline["held_out"]["seen_languages"],
                    headline["held_out"]["unseen_languages"], headline["retention"]):  # fmt: skip
        assert f">{signed(figures['gain'])}<" in cards
        assert f"{figures['base']:.4f} → {figures['retrofitted']:.4f}" in cards
    assert headline["retention"]["gain"] < 0
    assert f'<span class="gain down">{signed(headline["retention"]["gain"])}</span>' in cards
    assert "task that changed worst: bitext" in cards


def test_the_page_asks_for_nothing_from_elsewhere(page: Page, source: str) -> None:
    assert "http" not in source.lower()
    assert "@import" not in source
    assert re.findall(r"url\((?!#)", source) == []
    tags = {tag for tag, _, _ in page.attributes}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    for _, name, value in page.attributes:
        assert name not in {"src", "srcset", "data", "action"}
        if name.endswith("href"):
            assert value.startswith("#")


def test_identifiers_are_unique_and_references_lead_somewhere(page: Page, source: str) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", source)) <= set(ids)
    assert {value[1:] for _, name, value in page.attributes if name.endswith("href")} <= set(ids)


def test_text_from_outside_is_shown_not_obeyed(page: Page, source: str) -> None:
    assert "<script" not in source
    assert "<b>" not in source
    assert "<script>alert('query')</script> & [bold]Host[/bold]" in page.texts
    assert "wrong <b>passage</b>\nof two lines" in page.texts


def test_right_answers_are_marked_and_directions_left_to_the_text(page: Page, source: str) -> None:
    assert page.texts.count("✓ right answer") == 3
    assert '<blockquote dir="auto" lang="he">שם המארח</blockquote>' in source
    assert source.count('<span dir="auto">') == 6


def test_what_was_trained_and_how(page: Page, source: str) -> None:
    assert ["de", "1200", "", "1000", "200"] in page.rows
    assert ["en → de", "34", "34", "", ""] in page.rows
    assert ["all", "1234", "34", "1000", "200"] in page.rows
    assert ["training, seconds", "203.4"] in page.rows
    assert ["evaluation precision", "bfloat16"] in page.rows
    assert ["0.5 (chosen)", "+0.0222", "+0.0001", "0"] in page.rows
    assert ["1.0", "+0.0333", "−0.0044", "2"] in page.rows
    assert "experiment_name: embedded" in source
    assert "/secret/" not in source, "where a machine keeps its files says nothing about a result"


def test_figures_name_every_language_and_gain(page: Page, run_folder: Path) -> None:
    drawn = set(page.texts)
    assert {"de", "zh-Hans", "fi (unseen)", "ga (unseen)", "ru (unseen)", "nDCG@10", "step", "loss"} <= drawn
    frame = pd.read_csv(run_folder / "metrics.csv", keep_default_na=False)
    rows = frame[(frame["metric"] == "ndcg_at_10") & (frame["suite"] == "held_out")]
    means = rows.pivot_table(index="query_language", columns="model", values="value")
    assert {signed(gain, 3) for gain in means["retrofitted"] - means["base"]} <= drawn


def test_bars_stand_in_the_order_of_the_gain(source: str) -> None:
    figure = source[source.index('id="suite0-figure_1"') :]
    labels = re.findall(r">([a-zA-Z-]+)(?: \(unseen\))?</text>", figure[: figure.index("</svg>")])
    assert labels == ["en", "ru", "zh-Hans", "de", "fi", "he", "ga", "el"]


def test_the_stand_in_is_called_one(source: str, run_folder: Path) -> None:
    assert "stand-in" in source
    assert "4 bits" in source
    config = (run_folder / "config.yaml").read_text().replace("name: embedded", "name: me5_small")
    (run_folder / "config.yaml").write_text(config)
    assert "stand-in" not in write_report(run_folder).read_text(encoding="utf-8")


def test_the_lines_that_load_the_model_are_python(page: Page, run_folder: Path) -> None:
    code = next(text for text in page.texts if text.startswith("from sentence_transformers"))
    assert len(ast.parse(code).body) == 3
    assert str(run_folder / "model") in code


def test_the_same_run_gives_the_same_bytes(run_folder: Path) -> None:
    first = write_report(run_folder).read_bytes()
    program = "from pathlib import Path; from retrofit.analysis.report import write_report; write_report(Path({!r}))"
    (run_folder / "report.html").unlink()
    subprocess.run([sys.executable, "-c", program.format(str(run_folder))], check=True, timeout=300)
    assert (run_folder / "report.html").read_bytes() == first


def test_a_language_spelled_like_a_missing_value_is_a_language(run_folder: Path) -> None:
    path = run_folder / "metrics.csv"
    path.write_text(path.read_text().replace(",fi,fi,", ",NA,NA,"))
    page = Page(write_report(run_folder).read_text(encoding="utf-8"))
    assert "NA (unseen)" in page.texts


def test_a_run_without_examples_says_so(run_folder: Path) -> None:
    (run_folder / "examples.json").write_text("[]")
    assert "There are none" in write_report(run_folder).read_text(encoding="utf-8")


def test_a_folder_from_elsewhere_is_not_what_was_trained_for(run_folder: Path) -> None:
    path = run_folder / "metrics.csv"
    metrics = pd.read_csv(path, keep_default_na=False)
    pd.concat([metrics, metrics[metrics["suite"] == "held_out"].assign(suite="xquad")]).to_csv(path, index=False)
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "texts from elsewhere (xquad) nDCG@10 went from" in page
    assert "what it was trained for (held out) nDCG@10 went from" in page
    assert page.count("what it was trained for") == 1


def test_a_run_of_one_suite_has_a_report(run_folder: Path) -> None:
    path = run_folder / "metrics.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "retention" not in line))
    Page(write_report(run_folder).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "model,suite\nbase,held_out\n"),
        ("metrics.csv", ""),
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("config.yaml", "model: ["),
        ("data_manifest.json", "{}"),
        ("examples.json", "{}"),
        ("interpolation.csv", "weight,gain,retention,languages_down,chosen\n0.5,a,b,c,d\n"),
        ("training_curve.csv", "step,loss\n"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(run_folder: Path, name: str, content: str) -> None:
    (run_folder / name).write_text(content)
    with pytest.raises(UserError) as caught:
        write_report(run_folder)
    assert str(run_folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run_folder / "report.html").exists()


def test_a_run_that_chose_no_weight_has_no_section_on_the_choice(run_folder: Path) -> None:
    heading = "Gain against forgetting"
    assert heading in write_report(run_folder).read_text(encoding="utf-8")
    (run_folder / "interpolation.csv").unlink()
    assert heading not in write_report(run_folder).read_text(encoding="utf-8")


def test_a_missing_file_is_named(run_folder: Path) -> None:
    (run_folder / "training_curve.csv").unlink()
    with pytest.raises(UserError, match=r"training_curve\.csv is missing"):
        write_report(run_folder)
    shutil.rmtree(run_folder)
    with pytest.raises(UserError, match="is missing"):
        write_report(run_folder)


def test_analysis_reads_run_folders_only() -> None:
    program = """
import sys
import retrofit.analysis.report, retrofit.analysis.terminal
print(sorted(name for name in sys.modules if name.startswith("retrofit.") or name in ("torch", "matplotlib.pyplot")))
"""
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)
    loaded = {name for name in ast.literal_eval(printed.stdout) if not name.startswith("retrofit.analysis")}
    assert loaded == {"retrofit.artefacts", "retrofit.errors"}


def test_numbers_keep_their_sign() -> None:
    assert [signed(value) for value in (0.05, -0.00126, 0.0, -0.00001)] == ["+0.0500", "−0.0013", "0.0000", "0.0000"]
