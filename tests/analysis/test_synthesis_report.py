"""The report of synthetic queries as a page and at the terminal: every figure of the files, foreign text escaped."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.analysis.page_words import Words

from retrofit.analysis.synthesis_figures import share_bars
from retrofit.analysis.synthesis_report import funnel, show_synthesis, write_synthesis_report
from retrofit.errors import UserError

HOSTILE = "<script>alert('שלום')</script>"

ACCOUNT: dict[str, Any] = {
    "passages": 771,
    "requests": {"long_question": 600, "keywords": 400},
    "written": 910,
    "failures": {"no_form": 60, "timed_out": 30},
    "rejected": {"other_language": 113, "near_duplicate": 47},
    "kept": 750,
    "pairs_by_language": {"de": 701, "nan": 49},
    "pairs_by_task": {"synthetic_question": 750},
    "seconds": {"writing": 12.34, "filtering": 3.0},
    "generator": "made up & tested",
    "examples": [
        {
            "language": "he", "task": "synthetic_question", "query": HOSTILE, "passage": f"passage \x1b[31m {HOSTILE}",
            "template": "he/question/3", "kept": True, "reason": "",
        },
        {
            "language": "de", "task": "synthetic_question", "query": "Was?", "passage": "Text", "kept": False,
            "template": "de/faq/2", "reason": "near_duplicate",
        },
    ],
}  # fmt: skip

# The language ``nan`` (Min Nan) and the words ``null`` and ``nan`` are no missing values.
DISTANCES = """language,property,distance,noise,synthetic_queries,real_queries
de,length,0.111000,0.011000,345,678
de,first_word,0.222000,0.022000,345,678
de,copying,0.333000,0.033000,345,678
de,query_type,0.444000,0.044000,345,678
de,all,0.277500,0.027500,345,678
ga,all,,,17,901
nan,length,0.500000,0.050000,41,43
nan,first_word,0.600000,0.060000,41,43
nan,copying,0.700000,0.070000,41,43
nan,query_type,0.800000,0.080000,41,43
nan,all,0.650000,0.065000,41,43
"""


def shares_of(language: str) -> list[str]:
    rows = [f"{language},length,{value},{share},0.5" for value, share in (("0–1", 0.25), ("2", 0.75))]
    first = ["東京", "ภา", "null", "$a$ & <b>", *(f"word{number:02d}" for number in range(26)), "(other)"]
    rows += [f"{language},first_word,{value},0.03,0.01" for value in first]
    rows += [f"{language},copying,{value},0.5,0.5" for value in ("0–10%", "90–100%")]
    return rows + [f"{language},query_type,{value},0.5,0.5" for value in ("longer_phrase", "question_without_mark")]


SHARES = "\n".join(["language,property,value,synthetic,real", *shares_of("de"), *shares_of("nan")]) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "synthesis.json").write_text(json.dumps(ACCOUNT), encoding="utf-8")
    (tmp_path / "bias_distances.csv").write_text(DISTANCES, encoding="utf-8")
    (tmp_path / "bias_shares.csv").write_text(SHARES, encoding="utf-8")
    return tmp_path


def page_of(folder: Path) -> str:
    path = write_synthesis_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_funnel_says_what_was_lost_and_left() -> None:
    assert [(row["step"], row["lost"], row["left"], row["share"]) for row in funnel(ACCOUNT)] == [
        ("requests", None, 1000, 1.0),
        ("no form", 60, 940, 0.94),
        ("timed out", 30, 910, 0.91),
        ("written", None, 910, 0.91),
        ("other language", 113, 797, 0.797),
        ("near duplicate", 47, 750, 0.75),
        ("kept", None, 750, 0.75),
    ]


def test_what_does_not_add_up_is_seen_and_nothing_asked_is_no_error() -> None:
    assert [row["left"] for row in funnel(ACCOUNT | {"written": 900, "kept": 1})][-4:] == [900, 787, 740, 1]
    nothing = {"requests": {}, "written": 0, "failures": {}, "rejected": {}, "kept": 0}
    assert [row["share"] for row in funnel(nothing)] == [0.0, 0.0, 0.0]


def test_the_page_says_what_the_account_holds(folder: Path) -> None:
    page = page_of(folder)
    joined = Words(page).joined
    for text in (
        "750 queries kept of 1000 requested for 771 passages", "made up & tested", "no form 60 940 94.0%",
        "other language 113 797 79.7%", "near duplicate 47 750 75.0%", "written 910 91.0%", "kept 750 75.0%",
        "long question 600", "de 701", "nan 49", "synthetic question 750", "writing 12.3", "he/question/3",
        "de/faq/2 no: near duplicate",
    ):  # fmt: skip
        assert text in joined, text


def test_texts_from_outside_are_escaped(folder: Path) -> None:
    shares = pd.read_csv(folder / "bias_shares.csv", keep_default_na=False).replace("de", 'd"><script>e')
    shares.to_csv(folder / "bias_shares.csv", index=False)
    distances = (folder / "bias_distances.csv").read_text().replace("\nde,", '\n"d""><script>e",')
    (folder / "bias_distances.csv").write_text(distances)
    page = page_of(folder)
    words = Words(page)
    assert "script" not in words.tags
    assert words.joined.count(HOSTILE) == 2
    assert words.text.count('d"><script>e') == 2  # in the table, and above its figures
    assert 'aria-label="length, d&quot;&gt;&lt;script&gt;e: ' in page


def test_the_page_needs_nothing_but_itself(folder: Path) -> None:
    page = page_of(folder)
    assert not re.search(r"https?:|<link|@import|<img", page)
    assert page_of(folder) == page


def test_distances_stand_beside_noise_the_most_distant_language_first(folder: Path) -> None:
    page = page_of(folder)
    joined = Words(page).joined
    near = "de 0.28 / 0.03 0.11 / 0.01 0.22 / 0.02 0.33 / 0.03 0.44 / 0.04 345 678"
    far = "nan 0.65 / 0.07 0.50 / 0.05 0.60 / 0.06 0.70 / 0.07 0.80 / 0.08 41 43"
    assert "language all length first word copying query type synthetic queries real queries" in joined
    assert f"{far} {near}" in joined
    assert re.findall(r"--heat: (\d+)%", page) == ["52", "40", "48", "56", "64", "22", "9", "18", "27", "36"]
    assert "Too few queries to compare: ga (17 synthetic, 901 real)." in joined


def test_every_language_has_a_figure_of_each_property(folder: Path) -> None:
    page = page_of(folder)
    assert re.findall(r"<summary>(\w+)</summary>", page) == ["nan", "de"]
    labels = re.findall(r'aria-label="([\w ]+), (\w+):', page)
    properties = ["length", "first word", "copying", "query type"]
    assert labels == [(name, language) for language in ("nan", "de") for name in properties]
    assert page.count('<svg role="img"') == 8
    identifiers = re.findall(r'\sid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert page.count("<details open>") == 1


def figure(name: str, page: str) -> str:
    (found,) = re.findall(rf'<svg[^>]*aria-label="{name}, de:.*?</svg>', page, re.DOTALL)
    return found


def test_first_words_of_all_scripts_are_drawn_as_text_the_rare_ones_together(folder: Path) -> None:
    drawn = Words(figure("first word", page_of(folder)))
    for word in ("東京", "ภา", "null", "word07", "(other)"):
        assert word in drawn.text, word
    assert "$a$ & <b>" in drawn.joined  # no formula, no tag
    assert "word08" not in drawn.text


def bar_lengths(svg: str, colour: str) -> list[float]:
    """Return the lengths of a figure's bars in the order they are drawn."""
    shapes = re.findall(rf'<path d="([^"]*)" [^>]*style="fill: var\(--{colour}\)', svg)
    edges = [[float(x) for x in re.findall(r"[ML] ([\d.]+) ", shape)] for shape in shapes]
    return [max(places) - min(places) for places in edges]


def test_bars_are_as_long_as_the_shares(folder: Path) -> None:
    page = page_of(folder)
    synthetic, real = (bar_lengths(figure("length", page), colour) for colour in ("seen", "base"))
    assert synthetic[1] / synthetic[0] == pytest.approx(3, rel=1e-3)
    assert real == pytest.approx([2 * synthetic[0]] * 2, rel=1e-3)
    folded = bar_lengths(figure("first word", page), "seen")
    assert len(folded) == 13  # the last is of 18 words more, and of what was "other" before
    assert folded[12] / folded[0] == pytest.approx(19, rel=1e-3)


def test_words_that_the_drawing_has_no_letters_for_raise_no_warning() -> None:
    shares = pd.DataFrame({"value": ["東京", "ที่"], "synthetic": [0.5, 0.5], "real": [1.0, 0.0]})
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        assert "東京" in share_bars(shares, "name", "label")
    assert raised == []


@pytest.mark.parametrize(
    ("missing", "there", "not_there"),
    [
        (["synthesis.json"], "Too few queries to compare", "From requests to pairs"),
        (["bias_shares.csv", "bias_distances.csv"], "From requests to pairs", "How far"),
    ],
)
def test_either_part_is_a_page_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], missing: list[str], there: str, not_there: str
) -> None:
    for name in missing:
        (folder / name).unlink()
    joined = Words(page_of(folder)).joined
    assert there in joined
    assert not_there not in joined
    show_synthesis(folder)
    assert str(folder) in capsys.readouterr().out


def test_no_language_with_enough_queries_is_said(folder: Path) -> None:
    lines = DISTANCES.splitlines()
    (folder / "bias_distances.csv").write_text(f"{lines[0]}\nga,all,,,17,901\n")
    (folder / "bias_shares.csv").write_text("language,property,value,synthetic,real\n")
    page = page_of(folder)
    assert "ga (17 synthetic, 901 real)." in Words(page).joined
    assert "<svg" not in page


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("synthesis.json", "{", r"synthesis\.json cannot be read"),
        ("synthesis.json", "{}", r"synthesis\.json cannot be read: no key 'passages'"),
        ("bias_distances.csv", "language,property\n", r"bias_distances\.csv cannot be read: no column 'distance'"),
        ("bias_distances.csv", "", r"bias_distances\.csv cannot be read"),
        ("bias_shares.csv", None, r"bias_shares\.csv is missing"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder: Path, name: str, content: str | None, message: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    for use in (write_synthesis_report, show_synthesis):
        with pytest.raises(UserError, match=message):
            use(folder)


def test_a_folder_without_any_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither synthesis\.json nor bias_distances\.csv"):
        write_synthesis_report(tmp_path)


def test_the_terminal_says_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_synthesis(folder)
    shown = capsys.readouterr().out
    flat = " ".join(shown.split())
    for text in (
        "made up & tested: 771 passages", "no form 60 940 94.0%", "near duplicate 47 750 75.0%", "kept 750 75.0%",
        "requests: 600 long question, 400 keywords", "pairs: 701 de, 49 nan", "seconds: writing 12.34, filtering 3",
        f"query: {HOSTILE}", "de, synthetic question, rejected (near duplicate):",
        "nan 0.65/0.07 0.50/0.05 0.60/0.06 0.70/0.07 0.80/0.08 41 43",
        "de 0.28/0.03 0.11/0.01 0.22/0.02 0.33/0.03 0.44/0.04 345 678",
        "too few queries to compare: ga (17 synthetic, 901 real)", str(folder),
    ):  # fmt: skip
        assert text in flat, text
    assert flat.index("nan 0.65") < flat.index("de 0.28")
    assert "\x1b" not in shown
