import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from retrofit.data.embedded.reading import Reading
from retrofit.data.embedded.utterances import read_utterances


def make(path: Path, blocks: dict[str, list[dict[str, Any]]], language: str = "en", **more: Any) -> Path:
    content = {"lists": {}, "expansion_rules": {}, "intents": {name: {"data": data} for name, data in blocks.items()}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"home_assistant_intents/data/{language}.json", json.dumps(content | more))
    return path


def names(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for component, content in {
            "onboarding": {"area": {"kitchen": "kitchen"}},
            "light": {"title": "Light"},
            "fan": {"title": "Fan"},
        }.items():
            archive.writestr(f"homeassistant/components/{component}/translations/en.json", json.dumps(content))
    return path


def said(reading: Reading) -> set[str]:
    return {text for pair in reading.pairs() for text in (pair.query, *pair.positives)}


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "intents.whl"


def test_slots_rules_and_optional_words_are_filled(where: Path) -> None:
    wheel = make(
        where,
        {
            "Set": [
                {"sentences": ["<set> [the] brightness to {level} percent", "{level} percent brightness[ please]"]},
            ]
        },
        lists={"level": {"range": {"from": 0, "to": 100, "step": 25}}},
        expansion_rules={"set": "(set|change)"},
    )
    (pair,) = read_utterances(wheel).pairs()
    assert (pair.task, pair.group, pair.language) == ("utterance", "Set", "en")
    numbers = {word for text in said(read_utterances(wheel)) for word in text.split() if word.isdigit()}
    assert len(numbers) == 1, "one topic speaks of one value"
    assert numbers <= {"0", "25", "50", "75", "100"}
    for text in said(read_utterances(wheel)):
        assert not set(text) & set("{}<>[]()|")
        assert text == " ".join(text.split())


def test_templates_that_cannot_be_filled_are_left_out_and_counted(where: Path) -> None:
    wheel = make(
        where,
        {
            "Say": [
                {
                    "sentences": [
                        "announce {message}",
                        "go ahead",
                        "carry on",
                        "tell <missing>",
                        "keep [at {message}] on",
                    ]
                }
            ]
        },
        lists={"message": {"wildcard": True}},
    )
    reading = read_utterances(wheel)
    assert said(reading) == {"go ahead", "carry on", "keep on"}
    assert reading.dropped["utterance", "en", "template with a slot that cannot be filled"] == 2


def test_rooms_and_devices_have_localised_names(where: Path, tmp_path: Path) -> None:
    blocks = {
        "On": [
            {"sentences": ["turn on {name}", "switch {name} on"], "requires_context": {"domain": "fan"}},
            {"sentences": ["lights in {area} on"]},
        ]
    }
    assert said(read_utterances(make(where, blocks))) == set()
    reading = read_utterances(make(where, blocks), names(tmp_path / "names.whl"))
    assert said(reading) == {"turn on Fan", "switch Fan on", "lights in kitchen on"}


def test_topics_are_kept_apart_by_slots_and_response(where: Path) -> None:
    wheel = make(
        where,
        {
            "Get": [
                {"sentences": ["is it open", "is it ajar"], "slots": {"domain": "cover"}, "response": "one"},
                {"sentences": ["is it locked", "is it shut"], "slots": {"domain": "lock"}, "response": "one"},
                {
                    "sentences": ["which are locked", "list the locked"],
                    "slots": {"domain": "lock"},
                    "response": "which",
                },
            ]
        },
    )
    pairs = read_utterances(wheel).pairs()
    assert {frozenset((pair.query, *pair.positives)) for pair in pairs} == {
        frozenset({"is it open", "is it ajar"}),
        frozenset({"is it locked", "is it shut"}),
        frozenset({"which are locked", "list the locked"}),
    }


def test_every_query_knows_every_passage_of_its_topic(where: Path) -> None:
    wheel = make(where, {"X": [{"sentences": [f"say it like {n}" for n in "abcdefghij"]}]})
    reading = read_utterances(wheel, passages=3, queries=4)
    pairs = reading.pairs()
    assert len(pairs) == 4
    assert len({pair.positives for pair in pairs}) == 1
    assert len(pairs[0].positives) == 3
    assert not {pair.query for pair in pairs} & set(pairs[0].positives)
    assert reading.dropped["utterance", "en", "template over the limit per topic"] == 3


def test_the_same_seed_says_the_same(where: Path) -> None:
    wheel = make(where, {"X": [{"sentences": ["(a|b|c|d) [e] ((f|g);h)", "(i|j|k) l", "m [(n|o|p)]", "[q] r"]}]})
    assert read_utterances(wheel).pairs() == read_utterances(wheel).pairs()
    assert any(read_utterances(wheel).pairs() != read_utterances(wheel, seed=seed).pairs() for seed in range(1, 6))


def test_rules_that_refer_to_each_other_do_not_hang(where: Path) -> None:
    wheel = make(where, {"X": [{"sentences": ["<a>", "one", "two"]}]}, expansion_rules={"a": "x <b>", "b": "y <a>"})
    assert said(read_utterances(wheel)) == {"one", "two"}


def test_chinese_has_the_names_of_the_other_sources(where: Path) -> None:
    wheel = make(where, {"X": [{"sentences": ["打开灯", "开灯"]}]}, language="zh-CN")
    assert {pair.language for pair in read_utterances(wheel).pairs()} == {"zh-Hans"}
