"""Facts: what is read from a passage, in scripts with and without spaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.commands.application import configuration_folder
from retrofit.synthesis.facts import MAX_KEYPHRASES, Collection
from retrofit.synthesis.records import SourcePassage
from retrofit.synthesis.templates import Facts, Templates

TEMPLATES = Templates(configuration_folder() / "synthesis")


def passage(text: str, title: str = "", language: str = "en", source: str = "made up") -> SourcePassage:
    return SourcePassage(text, title, language, text[:8], source)


FILLER = [passage(f"The {word} is one of the things that are seen in the city of the north.") for word in ("a", "b")]
FILLER += [passage(f"It is said that the weather of the {number}th day was good in the city.") for number in range(60)]


def facts(found: SourcePassage, *others: SourcePassage) -> Facts:
    return Collection.of([found, *FILLER, *others], TEMPLATES).facts(found)


def test_keyphrases_tell_and_neither_begin_nor_end_with_common_words() -> None:
    found = facts(passage("The radium of the city was found by Marie Curie. Marie Curie was good, and the radium too."))
    assert found.keyphrases[0] == "Marie Curie"
    assert "radium" in found.keyphrases
    assert not {"the", "city", "was", "of"} & {word for phrase in found.keyphrases for word in phrase.split()}


def test_the_title_and_its_words_are_no_keyphrases() -> None:
    found = facts(passage("Marie Curie found radium in the city.", title="Marie Curie (physicist)"))
    assert found.title == "Marie Curie"
    assert set(found.keyphrases) == {"radium", "found"}


def test_an_article_before_an_apostrophe_is_no_part_of_its_noun() -> None:
    others = [
        passage(f"le jour {n} est beau dans l'ouest de la ville et l'eau y est bonne", language="fr") for n in "ab"
    ]
    found = facts(passage("l'aviation est utile", language="fr"), *others)
    assert "aviation" in found.keyphrases
    assert facts(passage("the landlord's certificate")).keyphrases[0] in ("landlord's", "certificate")


def test_scripts_without_spaces_give_runs_of_one_script() -> None:
    found = facts(passage("放射線の研究で、ノーベル賞を受けた。", language="ja"))
    assert {"放射線", "研究", "ノーベル"} <= set(found.keyphrases)


def test_words_are_common_within_their_own_source() -> None:
    manual = [passage(f"Turn your device {word} with your key.", source="manual") for word in "abcdefgh"]
    pages = [passage(f"An ancient town of the realm number {number}.", source="pages") for number in range(400)]
    found = Collection.of([*manual, *pages], TEMPLATES).facts(manual[0])
    assert "your" not in found.keyphrases


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("In 1903 and 1911.", "1903"), ("It costs 1,500 or 1500.75", ""), ("room A1903", ""), ("", ""),
        ("1024 steps, built in 1890", "1890"), ("于1984年", "1984"), ("2004年に", "2004"), ("1984년", "1984"),
    ],
)  # fmt: skip
def test_the_first_year(text: str, year: str) -> None:
    assert facts(passage(text + " x")).year == year


def test_words_keep_their_marks() -> None:
    sentence = "ताजमहल को शाहजहाँ ने बनवाया था।"
    found = facts(passage(sentence, language="hi"))
    assert found.keyphrases
    assert {word for phrase in found.keyphrases for word in phrase.split()} <= set(sentence.strip("।").split())


def test_one_passage_alone_has_keyphrases_that_are_no_common_words() -> None:
    alone = passage("Press the button and the lamp is on. What is the lamp for?")
    found = Collection.of([alone], TEMPLATES).facts(alone)
    assert "lamp" in found.keyphrases
    assert not {"the", "and", "what", "is"} & {phrase.casefold() for phrase in found.keyphrases}


def test_a_phrase_is_on_one_line() -> None:
    found = facts(passage("Acme\u2028Widget Acme\u2028Widget", title="All\r\n about"))
    assert found.title == "All about"
    assert all(phrase.split() == phrase.split(" ") for phrase in found.keyphrases)


@pytest.mark.parametrize(
    ("title", "text", "language", "person"),
    [
        ("Charles Lindbergh", "Charles Lindbergh, né le 4 février 1902 à Détroit", "fr", True),
        ("Marie Curie", "She was a physicist. In her life she found much.", "en", True),
        ("Мария Кюри", "Мария Кюри родилась в Варшаве", "ru", True),
        ("Ottoman Empire", "The Ottoman Empire was a state.", "en", None),
        ("Zimbabwe", "Zimbabwe is a country.", "en", False),
        ("Voltaire", "Voltaire was born in Paris.", "en", None),
        ("History of art", "The history of art", "en", False),
        ("東京", "東京は日本の首都である", "ja", None),
        ("생물 다양성", "생물 다양성은 생물의 다양함이다", "ko", None),
        ("", "Somebody was born.", "en", None),
    ],
)
def test_persons_are_known_things_are_known_and_the_rest_is_not(
    title: str, text: str, language: str, person: bool | None
) -> None:
    assert facts(passage(text, title, language)).person is person


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.sampled_from(["en", "ja", "th", "ar"]))
def test_any_text_has_facts(texts: list[str], language: str) -> None:
    passages = [passage(text, text[:5], language) for text in texts]
    collection = Collection.of(passages, TEMPLATES)
    for item in passages:
        found = collection.facts(item)
        assert len(found.keyphrases) <= MAX_KEYPHRASES
        assert all(phrase in " ".join(item.text.split()) for phrase in found.keyphrases)
        assert len(set(map(str.casefold, found.keyphrases))) == len(found.keyphrases)
