"""Length, first word, copying and kind of a query, in scripts with and without spaces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.curation.texts import normalised
from retrofit.synthesis.query_properties import (
    FEW_WORDS,
    LONGER_PHRASE,
    NO_WORD,
    PROPERTIES,
    QUESTION_WITH_MARK,
    QUESTION_WITHOUT_MARK,
    SENTENCE,
    VALUES,
    QuestionSigns,
    describe,
)
from retrofit.synthesis.records import FAMILIES
from retrofit.synthesis.templates import Templates

NO_SIGNS = QuestionSigns(re.compile("[?؟]"), frozenset(), ())


def value(name: str, query: str, passage: str = "", signs: QuestionSigns = NO_SIGNS) -> str:
    return describe(query, passage, signs)[PROPERTIES.index(name)]


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    """Templates that know question words and nothing else."""
    others = [*FAMILIES, *(f"write_{family}" for family in FAMILIES), "frame"]
    empty = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in others)
    for code, words in {"de": "Was wo", "ja": "何 どこ", "th": "อะไร ทำไม", "el": "τι πού", "ar": "ما كيف"}.items():
        (tmp_path / f"{code}.jinja").write_text(f"{{% block question_words %}}{words}{{% endblock %}}{empty}")
    return Templates(tmp_path)


@pytest.mark.parametrize(
    ("query", "length", "first"),
    [
        ("", "0–1", NO_WORD),
        ("🙂 … ?!", "0–1", NO_WORD),
        ("❤\ufe0f", "0–1", NO_WORD),  # what makes it red is a mark, and no word
        ("❤\ufe0fliebe", "0–1", "liebe"),
        ("Straße", "0–1", "strasse"),
        ("„Was heißt das?“", "3", "was"),
        ("l'été et l’hiver", "5", "l"),
        ("e\u0301te\u0301 suivant", "2", "été"),
        ("क्या हिन्दी में किताबें हैं", "5", "क्या"),  # without its marks it would be several
        ("می\u200cخواهم بدانم", "2", "میخواهم"),
        ("서울의 날씨 어때", "3", "서울의"),
        ("a b c d e f", "6–7", "a"),
        ("a b c d e f g h", "8–10", "a"),
        (" ".join("abcdefghijk"), "11–15", "a"),
        (" ".join(["w"] * 25), "16–25", "w"),
        (" ".join(["w"] * 26), "26+", "w"),
        ("東京の住所", "3", "東京"),  # 5 characters
        ("猫", "0–1", "猫"),
        ("ﾈｺ「ネコ」", "2", "ネコ"),  # half-width
        ("iPhone15の価格は?", "3", "iphone15"),
        ("人々", "0–1", "人々"),
        ("ภาษาไทย", "4", "ภา"),  # 7 characters
        ("北京 上海", "2", "北京"),
    ],
)
def test_words_are_counted_in_every_script(query: str, length: str, first: str) -> None:
    assert (value("length", query), value("first_word", query)) == (length, first)


@pytest.mark.parametrize(
    ("query", "passage", "share"),
    [
        ("Das Licht, bitte", "DAS LICHT. Im Garten", "60–70%"),  # 2 of 3
        ("licht", "Lichtschalter, Nachtlicht", "0–10%"),  # words, not parts of them
        ("licht", "Nachtlicht, Licht", "90–100%"),
        ("किताब", "किताबें", "0–10%"),
        ("a b c d e f g h i j", "a b c", "30–40%"),
        ("a b c d e f g h i j", "a b", "20–30%"),
        ("a a b c", "a", "50–60%"),  # each time it stands in the query
        ("Lampe", "lampe", "90–100%"),
        ("?!", "?!", "0–10%"),
        ("東京の住所", "住所は東京", "50–60%"),  # of 東京 京の の住 住所 two
        ("猫", "黒猫です", "90–100%"),
        ("猫犬", "猫と犬", "0–10%"),
        ("python 入門", "私はPythonを学ぶ", "50–60%"),
        ("install python", "Pythonの使い方", "50–60%"),  # the passage in another language
        ("น้ำใจ", "มีน้ำใจงาม", "90–100%"),
        ("Ｌａｍｐｅ", "eine Lampe", "90–100%"),  # full-width
        ("q", "", "0–10%"),
    ],
)
def test_copying_is_the_share_of_what_the_passage_has(query: str, passage: str, share: str) -> None:
    assert value("copying", query, passage) == share


@pytest.mark.parametrize(
    ("language", "query", "kind"),
    [
        ("de", "Lampe?", QUESTION_WITH_MARK),
        ("de", "„Wer war das?“", QUESTION_WITH_MARK),
        ("de", "Geht das? Danke.", QUESTION_WITH_MARK),
        ("de", "was ist eine Lampe", QUESTION_WITHOUT_MARK),
        ("de", "WO", QUESTION_WITHOUT_MARK),
        ("de", "Wasser", FEW_WORDS),
        ("de", "sag was ist eine Lampe", LONGER_PHRASE),  # it does not start with it
        ("de", "rote Lampe kaufen", FEW_WORDS),
        ("de", "Apple Inc.", FEW_WORDS),
        ("de", "rote Lampe in der Küche", LONGER_PHRASE),
        ("de", "Die Lampe steht dort.", SENTENCE),
        ("de", "Er sagt: „Die Lampe steht dort.“", SENTENCE),
        ("de", "die Lampe steht dort ...", LONGER_PHRASE),
        ("de", "die Lampe steht dort…", LONGER_PHRASE),
        ("de", "die Lampe; die dort steht", LONGER_PHRASE),
        ("el", "πού είναι η λάμπα", QUESTION_WITHOUT_MARK),
        ("el", "είναι αυτή η λάμπα;", QUESTION_WITH_MARK),
        ("el", "είναι αυτή η λάμπα\u037e", QUESTION_WITH_MARK),
        ("el-GR", "λάμπα;", QUESTION_WITH_MARK),
        ("ar", "أين المصباح؟", QUESTION_WITH_MARK),
        ("ar", "كيف أصلح المصباح", QUESTION_WITHOUT_MARK),
        ("ur", "چراغ یہاں میز پر ہے۔", SENTENCE),
        ("hi", "दीपक यहाँ मेज पर है।", SENTENCE),
        ("hy", "Ի՞նչ է սա", QUESTION_WITH_MARK),
        ("ja", "住所は？", QUESTION_WITH_MARK),
        ("ja", "これは何ですか。", QUESTION_WITHOUT_MARK),  # anywhere, and whatever ends it
        ("ja", "東京の住所", FEW_WORDS),  # as many characters as three words
        ("ja", "東京の住所と電話", LONGER_PHRASE),
        ("ja", "東京の住所は秘密です。", SENTENCE),
        ("ja", "「東京の住所は秘密です。」", SENTENCE),
        ("de-AT", "was ist das", QUESTION_WITHOUT_MARK),  # by the language that includes it
        ("th", "นี่คืออะไร", QUESTION_WITHOUT_MARK),
        ("th", "ทำไมฟ้าสีคราม", QUESTION_WITHOUT_MARK),  # NFKC takes its ำ apart
        ("zh", "这是什么", FEW_WORDS),  # there are no templates in it
        ("zh", "这是什么？我不知道", QUESTION_WITH_MARK),
    ],
)
def test_kinds_of_query(templates: Templates, language: str, query: str, kind: str) -> None:
    assert value("query_type", query, signs=QuestionSigns.of_language(language, templates)) == kind


TEXTS = st.text(st.sampled_from("aB.é?。 猫京のไทยำक्3\u200c\u0301;(\n"), max_size=12)


@given(TEXTS, TEXTS)
def test_every_pair_has_a_known_value_of_each_property(query: str, passage: str) -> None:
    values = dict(zip(PROPERTIES, describe(query, passage, NO_SIGNS), strict=True))
    for name, known in VALUES.items():
        assert values[name] in known
    has_word = any(character.isalnum() for character in query)
    assert (values["first_word"] != NO_WORD) == has_word
    assert values["first_word"] == values["first_word"].casefold()


@given(TEXTS, TEXTS, TEXTS)
def test_what_stands_in_the_passage_is_copied(before: str, query: str, after: str) -> None:
    copied = value("copying", query, f"{before} {query} {after}")
    assert copied == ("90–100%" if value("first_word", query) != NO_WORD else "0–10%")


@given(st.text("aबé-_ \u093e\u0301", max_size=8), st.text("aबé-_ \u093e\u0301", max_size=40))
def test_copying_is_that_of_words_taken_apart(query: str, passage: str) -> None:
    asked, there = (
        [part for part in re.split("[-_ ]+", normalised(text)) if any(map(str.isalpha, part))]
        for text in (query, passage)
    )
    share = 10 * sum(word in there for word in asked) // len(asked) if asked else 0
    assert value("copying", query, passage) == VALUES["copying"][min(9, share)]
