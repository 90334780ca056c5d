"""The page of the findings: any subset of them, self-contained, well-formed, and fit for a browser at any width."""

from __future__ import annotations

import itertools
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import escape
from tests.analysis.finding_folders import FINDINGS as IDS
from tests.analysis.finding_folders import grid, write_experiments, write_results
from tests.analysis.headless_chromium import CHROMIUM, Browser, chromium
from tests.analysis.page_words import Words

from retrofit.analysis.drawing import INK
from retrofit.analysis.figures import signed
from retrofit.analysis.finding_results import SweepResults
from retrofit.analysis.findings import FINDINGS
from retrofit.analysis.overview import PAGE, Written, read_experiments, write_findings, write_sweep
from retrofit.analysis.overview_figures import loss_curves
from retrofit.analysis.verdicts import verdict
from retrofit.errors import UserError

BROWSER_MISSING = "Chromium is not installed: 'apt-get install chromium' makes this test run"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Written]:
    """All findings, and what was written of them."""
    folder = write_experiments(tmp_path_factory.mktemp("all") / "experiments")
    return folder, write_findings(folder, folder / PAGE)


@pytest.fixture(scope="module")
def page(measured: tuple[Path, Written]) -> str:
    return measured[1].page.read_text(encoding="utf-8")


def test_every_finding_has_its_verdict_with_what_it_rests_on(page: str, measured: tuple[Path, Written]) -> None:
    text = Words(page).joined
    for finding in FINDINGS.values():
        assert finding.question in text
        assert finding.claim in text
    assert measured[1].verdicts == dict.fromkeys(IDS[:4], "reproduced") | {"F5": "partly"}
    assert text.count("decisive") == len(IDS)
    assert "(not measured)" in text


def test_each_sentence_of_a_verdict_stands_by_itself(page: str, measured: tuple[Path, Written]) -> None:
    for id_, results in read_experiments(measured[0]).items():
        said = verdict(id_, results)
        assert len(said.sentences) > (id_ in ("F2", "F4"))
        assert all(f"<li>{escape(sentence)}</li>" in page for sentence in said.sentences)


def test_figures_of_the_tables_are_those_of_the_files(page: str, measured: tuple[Path, Written]) -> None:
    folder = measured[0] / "F1_data_source"
    text = Words(page).joined
    for row in pd.read_csv(folder / "comparison.csv").itertuples():
        assert f"{signed(row.difference)} {signed(row.low)} to {signed(row.high)} {row.seeds_up} of 3" in text
    for row in pd.read_csv(folder / "languages.csv").itertuples():
        assert f">{signed(row.gain, 3)}<" in page
    assert "synthetic 3 10,000 157 63 47.6 3.5 5.2" in text


def test_each_figure_is_written_for_those_without_the_page(measured: tuple[Path, Written]) -> None:
    folder, written = measured
    assert {path.parent.name for path in written.figures} == {finding.folder for finding in FINDINGS.values()}
    for path in written.figures:
        if path.suffix == ".svg":
            root = ET.parse(path).getroot()  # noqa: S314 -- our own file
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert len(root.attrib["aria-label"]) > 30
            assert INK in path.read_text(encoding="utf-8")
            assert "var(--" not in path.read_text(encoding="utf-8")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert "reproduced" not in (folder / "F1_data_source" / "figure.svg").read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_and_its_identifiers_are_unique(page: str) -> None:
    assert "http" not in page.lower()
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(Words(page).tags)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert 'name="viewport"' in page


def test_the_same_results_give_the_same_bytes(measured: tuple[Path, Written], tmp_path: Path) -> None:
    folder, written = measured
    copy = shutil.copytree(folder, tmp_path / "experiments")
    again = write_findings(copy, copy / PAGE)
    for first, second in zip((*written.figures, written.page), (*again.figures, again.page), strict=True):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("findings", [(), *((finding,) for finding in IDS), ("F1", "F5")], ids="+".join)
def test_any_findings_make_a_page(findings: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    if findings:
        write_experiments(folder, *findings)
    else:
        (folder / "F1_data_source").mkdir(parents=True)  # a README alone is no result
    written = write_findings(folder, folder / PAGE)
    Words(written.page.read_text(encoding="utf-8"))
    assert {id_ for id_, said in written.verdicts.items() if said != "not measured"} == set(findings)
    assert len(written.figures) == 2 * len(findings)


def test_a_sweep_of_ones_own_has_its_gains_and_no_verdict(tmp_path: Path) -> None:
    points = grid(model=("a<b>", "b"), rank=(4, 8))
    folder = write_results(tmp_path, [("my_sweep", points, points[0], lambda point, _: float(point["rank"]) / 100)])
    written = write_sweep(folder, folder / PAGE)
    text = Words(written.page.read_text(encoding="utf-8")).joined
    assert written.verdicts == {}
    assert "model a<b>, rank 4" in text
    assert (folder / "figure.svg") in written.figures
    assert "+0.0800" in text


def test_two_sweeps_of_ones_own_have_parts_of_their_own(tmp_path: Path) -> None:
    points = grid(rank=(4, 8))
    own = [(name, points, points[0], lambda point, _: float(point["rank"]) / 100) for name in ("my_a", "my_b")]
    folder = write_results(tmp_path, own)
    page = write_sweep(folder, folder / PAGE).page.read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {"S-my-a", "S-my-b"} <= set(ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(ids)
    assert not any(text.startswith("S-") for text in Words(page).text)


def test_a_loss_is_drawn_where_every_seed_has_one(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    curves = pd.read_csv(folder / "curves.csv")
    last = curves["step"] == curves["step"].max()
    curves.loc[last & (curves["seed"] == 1), "step"] -= 1
    curves.to_csv(folder / "curves.csv", index=False)
    figure = loss_curves(SweepResults.read(folder), "data_source")
    assert figure is not None
    drawn = figure.axes[0].lines[0]
    steps = sorted(set(curves.loc[~last, "step"]) - {curves["step"].max() - 1})
    assert drawn.get_xdata().tolist() == steps
    of_point = curves[curves["point"] == curves["point"].iloc[0]]
    expected = [of_point.loc[of_point["step"] == step, "loss"].mean() for step in steps]
    assert drawn.get_ydata().tolist() == pytest.approx(expected)


def test_an_empty_sweep_is_one_line(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"results\.csv holds no results"):
        write_sweep(folder, folder / PAGE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(BROWSER_MISSING)
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


MEASURE = """
(() => {
  const shown = element => { const box = element.getBoundingClientRect(); return [box.left, box.right, box.height]; };
  const colour = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = text => colour(text).map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [.2126, .7152, .0722][n], 0);
  const ground = element => { for (; element; element = element.parentElement) {
    const found = getComputedStyle(element).backgroundColor; if (!/, 0\\)$/.test(found)) return found; }
    return 'rgb(255,255,255)'; };
  const contrast = element => { const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); };
  const texts = [...document.querySelectorAll('p, li, td, th, h1, h2, h3, a, summary, span, figcaption, caption')]
    .filter(element => element.textContent.trim());
  return {
    window: document.documentElement.clientWidth,
    width: document.documentElement.scrollWidth,
    figures: [...document.querySelectorAll('figure svg')].map(shown),
    labels: [...document.querySelectorAll('figure svg')].map(svg => svg.getAttribute('aria-label')),
    paths: [...document.querySelectorAll('figure svg')].map(svg => svg.querySelectorAll('path').length),
    wide: [...document.querySelectorAll('.wide')].map(shown),
    scrolled: [...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth).length,
    contrast: Math.min(...texts.map(contrast)),
    small: Math.min(...texts.map(element => parseFloat(getComputedStyle(element).fontSize))),
  };
})()
"""


@pytest.mark.parametrize(("width", "dark"), itertools.product((1280, 390), (False, True)))
def test_a_browser_shows_all_of_it_in_its_width(
    browser: Browser, measured: tuple[Path, Written], width: int, dark: bool, tmp_path: Path
) -> None:
    page = measured[1].page
    browser.open(page, width, dark)
    browser.value("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    found = browser.value(MEASURE)
    assert found["width"] <= found["window"] <= width
    assert len(found["figures"]) == 5 + 1 + 2 * 8  # of the findings, of all runs, two of each sweep
    assert all(height > 100 and left >= 0 and right <= width for left, right, height in found["figures"])
    assert all(found["labels"])
    assert min(found["paths"]) > 5
    assert all(left >= 0 and right <= width for left, right, _ in found["wide"])
    assert found["scrolled"] > 0 or width > 390, "what is too wide for a phone scrolls in its own box"
    assert found["contrast"] >= 4.5
    assert found["small"] >= 11
    assert browser.requested() == [page.as_uri()]
    assert browser.complaints() == []
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_browser_that_finds_fault_is_heard(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        '<meta name="viewport" content="width=device-width"><div style="width: 900px">x</div><img src="missing.png">'
        "<script>console.error('wrong')</script>"
    )
    browser.open(tmp_path / "bad.html", 390)
    assert browser.value("document.documentElement.scrollWidth") > 390
    assert len(browser.requested()) == 2
    assert any("wrong" in complaint for complaint in browser.complaints())
