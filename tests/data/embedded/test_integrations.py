import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrofit.data.embedded.integrations import LANGUAGES, localized_names, read_integrations
from retrofit.data.embedded.reading import Reading
from retrofit.data.records import Pair

Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a wheel out of path-below-components → content."""

    def write(files: dict[str, Any]) -> Path:
        path = tmp_path / "homeassistant.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"homeassistant/components/{name}", json.dumps(content, ensure_ascii=False))
        return path

    return write


def rows(reading: Reading, task: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(pair.language, pair.query, pair.positives) for pair in reading.pairs() if pair.task == task]


ENGLISH = {
    "config": {
        "step": {
            "user": {
                "title": "Pick a bridge",
                "description": "Choose the bridge that you want to set up.",
                "data": {"host": "Host", "port": "Port", "bare": "Bare"},
                "data_description": {
                    "host": "The hostname or IP address of your bridge.",
                    "port": "Too short.",
                    "orphan": "A description without any label to it.",
                },
                "sections": {
                    "more": {
                        "data": {"ssl": "Use SSL"},
                        "data_description": {"ssl": "Whether to connect by way of **TLS**."},
                    }
                },
            }
        }
    },
    "issues": {
        "old": {
            "title": "Firmware too old",
            "description": "Update your bridge to the newest firmware.",
            "fix_flow": {
                "step": {"confirm": {"title": "Update now", "description": "Select Submit to begin the update."}}
            },
        }
    },
    "services": {
        "scene": {
            "name": "Activate scene",
            "description": "Activates a scene that is stored in the bridge.",
            "fields": {"speed": {"name": "Speed", "description": "How fast the scene changes over time."}},
        }
    },
    "entity": {"sensor": {"x": {"name": "Zigbee connectivity"}}},
}


def test_each_task_is_read_from_its_place(write: Write) -> None:
    reading = read_integrations(
        write({"hue/translations/en.json": ENGLISH, "hue/manifest.json": {"name": "Philips Hue"}}), languages=["en"]
    )
    assert rows(reading, "field_help") == [
        ("en", "Philips Hue: Host", ("The hostname or IP address of your bridge.",)),
        ("en", "Philips Hue: Use SSL", ("Whether to connect by way of TLS.",)),
    ]
    assert rows(reading, "title_body") == [
        ("en", "Philips Hue: Pick a bridge", ("Choose the bridge that you want to set up.",))
    ]
    assert rows(reading, "issue_fix") == [
        ("en", "Philips Hue: Firmware too old", ("Update your bridge to the newest firmware.",)),
        ("en", "Philips Hue: Update now", ("Select Submit to begin the update.",)),
    ]
    assert rows(reading, "action_desc") == [
        ("en", "Philips Hue: Activate scene", ("Activates a scene that is stored in the bridge.",))
    ]
    assert rows(reading, "field_desc") == [("en", "Philips Hue: Speed", ("How fast the scene changes over time.",))]
    assert reading.dropped == {("field_help", "en", "short passage"): 1}
    assert {pair.group for pair in reading.pairs()} == {"hue"}


def step(title: str, description: str) -> dict[str, Any]:
    return {"title": title, "description": description}


def test_one_query_collects_its_answers_and_forgets_repetitions(write: Write) -> None:
    steps = {
        "a": step("Sign in", "Sign in with your account's password."),
        "b": step("Sign in", "Open the address below and confirm."),
        "c": step("Sign in", "Sign in with your account's password."),
    }
    reading = read_integrations(write({"x/translations/en.json": {"config": {"step": steps}}}), languages=["en"])
    assert rows(reading, "title_body") == [
        ("en", "x: Sign in", ("Sign in with your account's password.", "Open the address below and confirm."))
    ]
    assert reading.rows["title_body", "en"] == 2
    assert reading.dropped["title_body", "en", "duplicate"] == 1


@pytest.mark.parametrize(
    ("title", "description", "reason"),
    [
        ("Titel", "A description in English only.", "identical to English"),
        ("Titel", "Zu kurz für etwas.", "short passage"),
        ("[%key_id:590903670%]", "Eine Beschreibung in voller Länge.", "unresolved reference"),
        ("Titel", "Eine [Vorlage](beschreibt{url} den Wert.", "broken link"),
        ("", "Eine Beschreibung in voller Länge.", "empty query"),
        ("Eine Beschreibung in voller Länge.", "Eine Beschreibung in voller Länge.", "query equals passage"),
    ],
)
def test_what_is_left_out_is_counted(write: Write, title: str, description: str, reason: str) -> None:
    wheel = write(
        {
            "x/translations/en.json": {"config": step("Title", "A description in English only.")},
            "x/translations/de.json": {"config": step(title, description)},
        }
    )
    reading = read_integrations(wheel, languages=["de"], bitext_per_language=0)
    assert rows(reading, "title_body") == []
    assert reading.dropped["title_body", "de", reason] == 1


def bitext(write: Write, limit: int | None, keys: int = 200) -> list[Pair]:
    english = {f"key {n}": f"English sentence number {n}." for n in range(keys)}
    chinese = {f"key {n}": f"第{n}句" for n in range(keys)}
    wheel = write(
        {
            "x/translations/en.json": {"exceptions": english},
            "x/translations/zh-Hans.json": {"exceptions": chinese},
        }
    )
    return read_integrations(wheel, languages=["en", "zh-Hans"], bitext_per_language=limit).pairs()


def test_bitext_goes_both_ways_in_halves(write: Write) -> None:
    pairs = bitext(write, None)
    assert len(pairs) == 200
    from_english = [pair for pair in pairs if pair.language == "en"]
    assert 60 < len(from_english) < 140
    assert {(pair.language, pair.document_language) for pair in pairs} == {("en", "zh-Hans"), ("zh-Hans", "en")}
    for pair in pairs:
        english, chinese = (pair.query, pair.positives[0]) if pair.language == "en" else (pair.positives[0], pair.query)
        assert english.removeprefix("English sentence number ").rstrip(".") == chinese.strip("第句")


def test_a_larger_bitext_holds_the_smaller(write: Write) -> None:
    small, large = bitext(write, 20), bitext(write, 60)
    assert (len(small), len(large)) == (20, 60)
    assert set(small) < set(large)


def test_bitext_over_the_limit_is_counted(write: Write) -> None:
    english = {str(n): f"English sentence number {n}." for n in range(10)}
    german = {str(n): f"Deutscher Satz Nummer {n}." for n in range(10)}
    wheel = write({"x/translations/en.json": english, "x/translations/de.json": german})
    reading = read_integrations(wheel, languages=["de"], bitext_per_language=4)
    assert reading.rows["bitext", "de"] == 4
    assert reading.dropped["bitext", "de", "over the limit per language"] == 6


def test_names_of_rooms_and_devices(write: Write) -> None:
    wheel = write(
        {
            "light/translations/de.json": {"title": "Licht"},
            "hue/translations/de.json": {"title": "Hue"},
            "onboarding/translations/de.json": {"area": {"kitchen": "Küche"}},
        }
    )
    assert localized_names(wheel, ["light"]) == {"de": {"light": "Licht", "area.kitchen": "Küche"}}


def test_there_are_31_languages() -> None:
    assert len(set(LANGUAGES)) == len(LANGUAGES) == 31
