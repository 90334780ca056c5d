"""Names of emoji in 13 languages and in English: short phrases that mean the same, from the ``emoji`` wheel."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from retrofit.data.embedded.cleaning import normalise
from retrofit.data.embedded.reading import Reading

SOURCE = "emoji"
TASKS = ("emoji_name",)

_NAMES = re.compile(r"emoji/unicode_codes/emoji_([a-z]+)\.json")
_LANGUAGES = {"zh": "zh-Hans"}
_FULLY_QUALIFIED = 2  # the other spellings of an emoji have the same name
# Skin tones repeat one name five times, and a flag's name is a country's.
_VARIANT = re.compile("[\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff]")


def read_emoji_names(wheel: Path) -> Reading:
    """Return the rows of task ``emoji_name``: the name in a language → its English name.

    Args:
        wheel: path of the wheel, read as a zip file.
    """
    reading = Reading(SOURCE)
    with zipfile.ZipFile(wheel) as archive:
        english = {
            emoji: _name(entry["en"])
            for emoji, entry in json.loads(archive.read("emoji/unicode_codes/emoji.json")).items()
            if entry["status"] == _FULLY_QUALIFIED
        }
        for file in sorted(archive.namelist()):
            if not (found := _NAMES.fullmatch(file)):
                continue
            language = _LANGUAGES.get(found[1], found[1])
            for emoji, code in json.loads(archive.read(file)).items():
                name, passage = _name(code), english.get(emoji)
                reason = None
                if passage is None:
                    reason = "not fully qualified"
                elif _VARIANT.search(emoji):
                    reason = "flag or skin tone"
                elif not name or name.casefold() == passage.casefold():
                    reason = "identical to English"
                if reason or passage is None:
                    reading.drop("emoji_name", language, str(reason))
                    continue
                reading.add(
                    task="emoji_name",
                    query=name,
                    passage=passage,
                    language=language,
                    document_language="en",
                    group=emoji,
                )
    return reading


def _name(code: str) -> str:
    """Return the words of a code such as ``:face_with_tears_of_joy:``."""
    return normalise(code.strip(":").replace("_", " "))
