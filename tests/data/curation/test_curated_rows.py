"""Which rows are kept: every candidate is kept or removed for a reason, and what evaluation has is not trained on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.commands.application import configuration_folder
from retrofit.data.curation.artefact import Curation, curated_rows
from retrofit.data.records import Pair, Split, to_table
from retrofit.data.storage import PairSource
from retrofit.errors import UserError

OFF: dict[str, Any] = dict.fromkeys(("length", "placeholders", "language", "decontamination", "duplicates"))
GUARD = OFF | {"decontamination": {"exact": True, "near": 0.8, "shared_run": 50, "run_share": 0.5}}


def pair(query: str, *positives: str, split: Split = "train", language: str = "de", task: str = "help") -> Pair:
    return Pair(query, positives, task, language, language, "made up", query, split)


def source(*pairs: Pair, name: str = "own") -> PairSource:
    return PairSource(Path(name), to_table(pairs), None, {})


def curated(place: Path, settings: dict[str, Any], *pairs: Pair, **evaluation: PairSource) -> Curation:
    return curated_rows(source(*pairs), evaluation, settings, place)


def reasons(curation: Curation) -> dict[int, tuple[str, str]]:
    return {row["row"]: (row["reason"], row["field"]) for row in curation.removed.to_pylist()}


def sentence(seed: int, words: int = 25) -> str:
    """Made-up words, so that two sentences have nothing in common."""
    generator = random.Random(seed)  # noqa: S311 -- made-up text
    return " ".join("".join(generator.choices("aeioubdfgklmnrst", k=6)) for _ in range(words))


def configured(option: str) -> dict[str, Any]:
    path = configuration_folder() / "curation" / f"{option}.yaml"
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


def test_nothing_is_removed_when_all_rules_are_off(tmp_path: Path) -> None:
    pairs = [pair("", "x"), pair("a", "x"), pair("a", "x"), pair("a", "x", split="test")]
    curation = curated(tmp_path, configured("none"), *pairs)
    assert curation.kept.tolist() == [0, 1, 2]
    assert curation.removed.num_rows == 0


def test_lengths_and_texts_that_say_nothing(tmp_path: Path) -> None:
    rules = OFF | {
        "length": {"query": {"min": 2, "max": 9}, "passage": {"min": 3, "max": 60}},
        "placeholders": {"max_share": 0.5},
    }
    pairs = [
        pair("gut", "eine Antwort"),
        pair("x", "eine Antwort"),
        pair("gut genug?", "eine Antwort"),
        pair("gut", "eine Antwort", "ab"),
        pair("gut", "w" * 61),
        pair("{name}: 3", "eine Antwort"),
        pair("gut", "https://example.org/a/b 12 – {x}"),
        pair("gut", "Host {a_very_long_placeholder_name}"),
        pair("gut", "🎉🎉🎉"),
    ]
    curation = curated(tmp_path, rules, *pairs)
    assert curation.kept.tolist() == [0, 8]
    assert reasons(curation) == {
        1: ("too_short", "query"),
        2: ("too_long", "query"),
        3: ("too_short", "positives[1]"),
        4: ("too_long", "positives[0]"),
        5: ("says_nothing", "query"),
        6: ("says_nothing", "positives[0]"),
        7: ("placeholders", "positives[0]"),
    }


GERMAN = "Die Adresse des Geräts finden Sie in den Einstellungen der Anwendung unter Netzwerk."
FRENCH = "Vous trouverez l'adresse de l'appareil dans les paramètres de l'application, rubrique réseau."
CHINESE = "您可以在应用程序的网络设置中找到该设备的地址，请按照说明进行操作。"

RUSSIAN = "Эта программа позволяет быстро найти нужный файл на вашем компьютере."


def test_only_a_sure_contradiction_of_the_language_removes_a_row(tmp_path: Path) -> None:
    rules = OFF | {"language": {"min_chars": 20, "min_confidence": 0.95}}
    pairs = [
        pair("Host", GERMAN),
        pair("Host", FRENCH),
        pair("Host", CHINESE, language="zh-Hans"),
        pair("Host", RUSSIAN),
        pair("Bonjour", "Bonjour"),
        pair("Host", FRENCH, language="tlh"),
        pair("Host", GERMAN, language="deu_Latn"),
        pair("Host", GERMAN, language="fra"),
    ]
    curation = curated(tmp_path, rules, *pairs)
    assert reasons(curation) == dict.fromkeys((1, 3, 7), ("language", "positives[0]"))
    assert "fr instead of de" in curation.removed["matched"].to_pylist()
    assert curation.report["language_not_judged"]["language not known: tlh"] == 2


def test_the_first_of_equal_and_of_similar_rows_stays(tmp_path: Path) -> None:
    rules = OFF | {"duplicates": {"exact": True, "near": 0.9}}
    text = sentence(1)
    pairs = [
        pair("Wie lautet die Adresse?", text),
        pair("wie  lautet die ADRESSE?", text.upper()),  # equal but for case and white space
        pair("Wie lautet die Adresse", text + "!"),  # similar
        pair("Wie lautet die Adresse?", text, language="en"),  # another language
        pair("Wie lautet die Adresse?", text, task="title"),  # another task
        pair("Wie lautet die Adresse?", sentence(2)),  # one question that two passages answer
        pair("Wo steht das Gerät?", text),  # two questions about one passage
    ]
    curation = curated(tmp_path, rules, *pairs)
    assert {row: reason for row, (reason, _) in reasons(curation).items()} == {
        1: "duplicate_equal",
        2: "duplicate_near",
    }


@pytest.mark.parametrize("name", ["elsewhere", "own"])
def test_texts_of_a_sources_own_held_out_rows_and_of_other_sources_are_not_trained_on(
    name: str, tmp_path: Path
) -> None:
    held_out = pair("Frage der Prüfung", sentence(1), split="test")
    elsewhere = source(pair(sentence(2), sentence(3), split="validation"), name="elsewhere")
    pairs = [
        held_out,
        pair(sentence(10), sentence(11)),
        pair(sentence(12), sentence(1)),
        pair("FRAGE der  Prüfung", sentence(13)),
        pair(sentence(3), sentence(14)),  # a passage there, a query here
        pair(sentence(15), sentence(16), sentence(2)),
    ]
    curation = curated(tmp_path, GUARD, *pairs, **{name: elsewhere})
    assert curation.kept.tolist() == [1]
    assert reasons(curation) == {
        2: ("held_out_equal", "positives[0]"),
        3: ("held_out_equal", "query"),
        4: ("held_out_equal", "query"),
        5: ("held_out_equal", "positives[1]"),
    }
    assert curation.report["evaluation_sets"] == {
        f"{name}:validation": {"held_out_equal": 2},
        "(own):test": {"held_out_equal": 2},
    }


def test_given_negatives_are_compared_with_evaluation_and_break_no_other_rule(tmp_path: Path) -> None:
    held_out = pair("Frage der Prüfung", sentence(1), split="test")
    rules = configured("strict") | {"length": {"query": {"min": 2, "max": 900}, "passage": {"min": 3, "max": 900}}}

    def given(query: int, *negatives: str) -> Pair:
        return replace(pair(sentence(query), sentence(query + 1)), negatives=negatives)

    pairs = [
        replace(held_out, negatives=(sentence(2),)),  # what is held out is measured by its positives
        given(10, sentence(2), sentence(3)),
        given(20, sentence(2), sentence(1).upper()),
        given(30, f"{sentence(1)} so", sentence(2)),
        given(40, "frage der  prüfung"),
        given(50, "x", "{y}", "w" * 1000, sentence(10), sentence(11)),
        replace(pair(sentence(60), sentence(1), sentence(61)), negatives=(sentence(1).upper(),)),
    ]
    curation = curated(tmp_path, rules | {"language": None}, *pairs)  # made-up words are of no language
    assert reasons(curation) == {
        2: ("held_out_equal", "negatives[1]"),
        3: ("held_out_near", "negatives[0]"),
        4: ("held_out_equal", "negatives[0]"),
        6: ("held_out_equal", "positives[0]"),
    }
    assert curation.removed["text"].to_pylist()[0].startswith(sentence(1).upper()[:60])
    assert curation.kept.tolist() == [1, 5]


def test_training_rows_of_another_source_are_not_evaluation(tmp_path: Path) -> None:
    elsewhere = source(pair(sentence(1), sentence(2)), name="elsewhere")
    curation = curated(tmp_path, GUARD, pair(sentence(1), sentence(2)), elsewhere=elsewhere)
    assert curation.kept.tolist() == [0]


def test_a_shared_run_counts_by_its_share_of_the_shorter_text(tmp_path: Path) -> None:
    boilerplate, page = sentence(1, 8), sentence(2, 200)
    test = pair("Frage", f"{page} {boilerplate}", split="test")
    query_inside = pair("Frage 2", sentence(3, 9), split="test")
    pairs = [
        test,
        query_inside,
        pair("a b c", f"{sentence(4, 200)} {boilerplate}"),  # a line in common, of two long pages
        pair("d e f", f"{sentence(5, 40)} {sentence(3, 9)} {sentence(6, 40)}"),  # holds a whole held-out passage
        pair("g h i", page[: len(page) * 2 // 3]),
    ]
    curation = curated(tmp_path, GUARD, *pairs)
    assert curation.kept.tolist() == [2]
    assert {row: reason for row, (reason, _) in reasons(curation).items()} == {3: "held_out_run", 4: "held_out_run"}
    strict = OFF | {"decontamination": GUARD["decontamination"] | {"run_share": 0.0}}
    assert curated(tmp_path, strict, *pairs).kept.tolist() == []


EDITS = st.sampled_from(
    [
        str.upper,
        str.casefold,
        lambda text: text.replace(" ", " \u00a0\n"),
        lambda text: text.replace("e", "\uff45"),
        lambda text: "\u200b".join(text),
        lambda text: text[:40] + "x" + text[41:],
        lambda text: text[:40] + text[41:],
        lambda text: f"({text})",
    ]
)


@given(st.lists(st.integers(0, 10_000), min_size=3, max_size=12, unique=True), st.data())
@settings(max_examples=25)
def test_an_edited_copy_of_a_training_text_in_evaluation_removes_its_row_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, seeds: list[int], data: st.DataObject
) -> None:
    pairs = [pair(f"Frage {sentence(seed + 20_000, 6)}", sentence(seed)) for seed in seeds]
    leaked = data.draw(st.sets(st.sampled_from(range(len(pairs)))))
    edit = data.draw(EDITS)
    tests = [pair(f"Prüfung {row}", edit(pairs[row].positives[0]), split="test") for row in sorted(leaked)]
    curation = curated(tmp_path_factory.mktemp("cache"), GUARD, *pairs, *tests)
    assert set(reasons(curation)) == leaked
    assert curation.kept.tolist() == [row for row in range(len(pairs)) if row not in leaked]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from(["train", "test"])), max_size=14))
@settings(max_examples=25)
def test_every_candidate_is_kept_or_removed_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, Split]]
) -> None:
    pairs = [pair(sentence(query, 5), sentence(passage + 100), split=split) for query, passage, split in rows]
    curation = curated(tmp_path_factory.mktemp("cache"), configured("strict"), *pairs)
    removed = curation.removed["row"].to_pylist()
    candidates = [number for number, (_, _, split) in enumerate(rows) if split == "train"]
    assert sorted([*curation.kept.tolist(), *removed]) == candidates
    assert curation.report["candidates"] == len(candidates)
    assert sum(curation.report["removed"].values()) == len(removed)


def test_it_is_worked_out_once_and_again_for_other_settings_or_evaluation(tmp_path: Path) -> None:
    pairs = [pair(sentence(1), sentence(2)), pair(sentence(3), sentence(4), split="test")]

    def stored() -> int:
        return len([path for path in (tmp_path / "curations").iterdir() if path.is_dir()])

    curated(tmp_path, GUARD, *pairs)
    curated(tmp_path, GUARD, *pairs)
    assert stored() == 1
    curated(tmp_path, OFF, *pairs)
    curated(tmp_path, GUARD, *pairs, elsewhere=source(pairs[1], name="elsewhere"))
    assert stored() == 3


def test_two_processes_agree(tmp_path: Path) -> None:
    """Neither the hash seed of Python nor anything else of a process decides what stays."""
    code = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import test_curated_rows as t\n"
        "texts = [t.sentence(n % 7, 20) + (' extra' if n % 3 else '') for n in range(40)]\n"
        "pairs = [t.pair(f'q {n}', text, split='test' if n % 9 == 0 else 'train') for n, text in enumerate(texts)]\n"
        "found = t.curated(Path(sys.argv[2]), t.configured('strict'), *pairs)\n"
        "print(json.dumps([found.kept.tolist(), found.removed.to_pylist()]))\n"
    )
    results = [
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / seed)], capture_output=True,
            encoding="utf-8", check=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert results[0] == results[1]
    assert "held_out" in results[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lenght": None}, "curation.lenght is not a setting"),
        ({"language": {"min_chars": 20}}, "curation.language.min_confidence is missing"),
        ({"duplicates": {"exact": True, "near": 0.2}}, "curation.duplicates.near=0.2: "),
        (
            {"length": {"query": {"min": 9, "max": 3}, "passage": {"min": 1, "max": 3}}},
            "curation.length.query=",
        ),
        (
            {"decontamination": {"exact": "yes", "near": 0.8, "shared_run": 50}},
            "curation.decontamination.exact='yes': ",
        ),
        ({"decontamination": {"exact": True, "near": 0.8, "shared_run": 5}}, "curation.decontamination.shared_run=5: "),
    ],
)
def test_a_setting_that_is_not_understood_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        curated(tmp_path, OFF | change, pair("a", "b"))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("longer_first", [True, False])
def test_a_short_passage_that_another_held_out_one_contains_is_found(tmp_path: Path, longer_first: bool) -> None:
    short = sentence(1, 8)
    held_out = [pair("Frage", f"{short} {sentence(2, 120)}", split="test"), pair("Frage 2", short, split="test")]
    training = pair("a b c", f"{sentence(3, 60)} {short} {sentence(4, 60)}")
    pairs = [*held_out[:: 1 if longer_first else -1], training]
    assert curated(tmp_path, GUARD, *pairs).kept.tolist() == []
