"""Templates: complete and fit to be read in every language, and one clear line where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrofit.commands.application import configuration_folder
from retrofit.data.curation.languages import contradiction, known_language
from retrofit.errors import UserError
from retrofit.synthesis.records import FAMILIES
from retrofit.synthesis.templates import Facts, Templates

FOLDER = configuration_folder() / "synthesis"
LANGUAGES = Templates(FOLDER).languages
FACTS = Facts("Marie Curie", ("Radium", "Polonium"), "1903", True)
WITHOUT_MARK = {"th"}  # Thai asks without a question mark
MARKS = ("?", "؟", "？", ";", "՞")


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates(FOLDER)


def test_there_are_as_many_languages_as_promised() -> None:
    assert len(LANGUAGES) >= 24


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_family_has_different_forms_without_traces_of_the_template(templates: Templates, code: str) -> None:
    language = templates.language(code)
    for family in FAMILIES:
        forms = [form for _, form in language.forms(family, FACTS)]
        if family == "document":
            assert forms == []
            continue
        assert len(forms) >= 3, family
        assert len(set(forms)) == len(forms), family
        for form in forms:
            assert not set("{}%\0") & set(form), form
            assert any(slot in form for slot in ("Marie Curie", "Radium", "1903")), form


@pytest.mark.parametrize("code", LANGUAGES)
def test_questions_ask(templates: Templates, code: str) -> None:
    language = templates.language(code)
    assert len(language.question_words) >= 5
    for family in ("question", "faq"):
        questions = [form for _, form in language.forms(family, FACTS)]
        asking = [
            form.rstrip(" \u00a0\u202f").endswith(MARKS)
            or any(word in form.casefold() for word in language.question_words)
            for form in questions
        ]
        assert sum(asking) >= len(asking) - (0 if family == "question" else 2), questions
        if family == "question" and code not in WITHOUT_MARK:
            assert all(form.rstrip(" \u00a0\u202f").endswith(MARKS) for form in questions), questions


@pytest.mark.parametrize("code", LANGUAGES)
def test_instructions_are_in_the_language(templates: Templates, code: str) -> None:
    language, declared = templates.language(code), known_language(code)
    for family in FAMILIES:
        prompt = language.prompt(family, "<the text>")
        assert "<the text>" in prompt
        assert '{"text": ' in prompt
        assert declared is None or contradiction(prompt.split("{")[0], declared, 0.95) is None, prompt


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_slot_that_is_not_filled_takes_its_line_away(templates: Templates, code: str) -> None:
    language = templates.language(code)
    assert language.forms("question", Facts("", ())) == []
    with_title = language.forms("question", Facts("Zimbabwe", ()))
    assert with_title
    assert all("Zimbabwe" in form for _, form in with_title)


@pytest.mark.parametrize("code", LANGUAGES)
def test_where_it_is_not_known_whether_it_is_a_person_nothing_says_so(templates: Templates, code: str) -> None:
    language = templates.language(code)
    for family in FAMILIES:
        unknown, person, thing = (
            dict(language.forms(family, Facts("X Y", ("a", "b"), "1900", person))) for person in (None, True, False)
        )
        assert unknown.items() == person.items() & thing.items()


def test_who_and_what_are_told_apart() -> None:
    language = Templates(FOLDER).language("en")
    assert "Who is Marie Curie?" in dict(language.forms("question", FACTS)).values()
    assert "What is Zimbabwe?" in dict(language.forms("question", Facts("Zimbabwe", ()))).values()


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "en.jinja").write_bytes((FOLDER / "en.jinja").read_bytes())
    before = Templates(tmp_path).fingerprint
    assert Templates(tmp_path).fingerprint == before
    with (tmp_path / "en.jinja").open("a", encoding="utf-8") as file:
        file.write("{# changed #}")
    assert Templates(tmp_path).fingerprint != before


def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paths.templates=.*no templates; expected files such as"):
        Templates(tmp_path)
    (tmp_path / "xx.jinja").write_text("{% block question %}What?{% endblock %}", encoding="utf-8")
    with pytest.raises(UserError, match=r"xx.jinja: no block claim; expected"):
        Templates(tmp_path).language("xx")
    (tmp_path / "xx.jinja").write_text("\n{% block question %}", encoding="utf-8")
    with pytest.raises(UserError, match=r"xx.jinja, line 2: "):
        Templates(tmp_path).language("xx")
    with pytest.raises(UserError, match=r"no templates in de; there are xx"):
        Templates(tmp_path).language("de")
    complete = (FOLDER / "en.jinja").read_text(encoding="utf-8")
    for wrong, said in {
        "{{ titel }}": r"xx.jinja: no slot titel; expected one of ",
        "{{ year + 1 }}": r"xx.jinja: a form cannot be filled: ",
    }.items():
        broken = complete.replace("{{ title }} {{ year }}", wrong)
        (tmp_path / "xx.jinja").write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            Templates(tmp_path).language("xx")
    (tmp_path / "xx.jinja").write_text(complete, encoding="utf-16")
    with pytest.raises(UserError, match=r"xx.jinja: not UTF-8"):
        Templates(tmp_path).language("xx")


@pytest.mark.parametrize(
    ("code", "file"),
    [("pt-BR", "pt"), ("zh", "zh-Hans"), ("zh-TW", "zh-Hant"), ("zh_Hant", "zh-Hant"), ("en-US", "en"), ("de", "de")],
)
def test_a_variety_is_served_by_its_language(templates: Templates, code: str, file: str) -> None:
    assert code in templates
    assert templates.language(code).code == file


def test_another_script_is_another_language(templates: Templates) -> None:
    assert "ru-Latn" not in templates
    assert "ga" not in templates
