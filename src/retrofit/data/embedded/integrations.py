"""Interface texts of 900 home-automation integrations in 31 languages, from the ``homeassistant`` wheel.

Six tasks are read from ``homeassistant/components/<component>/translations/<language>.json``. In five of them the query
is a label and the passage says what it means; a label alone ("Host") belongs to hundreds of integrations, so the
integration's name stands before it ("Philips Hue: Host"). The sixth, ``bitext``, relates the English and the
translated text of one key.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from retrofit.data.embedded.cleaning import clean
from retrofit.data.embedded.reading import Reading

SOURCE = "homeassistant"
TASKS = ("field_help", "field_desc", "action_desc", "title_body", "issue_fix", "bitext")
# The languages with at least 500 label → text rows in version 2026.2.3; the other 33 files are scraps.
LANGUAGES = (
    *("en", "bg", "ca", "cs", "de", "el", "es", "et", "fi", "fr", "ga", "he", "hu", "id", "it", "ja", "ko", "lt", "nl"),
    *("pl", "pt", "pt-BR", "ru", "sk", "sl", "sr-Latn", "sv", "tr", "vi", "zh-Hans", "zh-Hant"),
)
MIN_PASSAGE_CHARACTERS = 20
BITEXT_PER_LANGUAGE = 4_000

_TRANSLATION = re.compile(r"homeassistant/components/([^/]+)/translations/([^/]+)\.json")
_REFERENCE = "[%"  # of a key whose text the translation service did not put in: "[%key_id:590903670%]"

_BROKEN_LINK = "]("  # left by the cleaning where a translator's program has scrambled the Markdown

Tree = dict[str, Any]


def read_integrations(
    wheel: Path,
    *,
    languages: Collection[str] = LANGUAGES,
    bitext_per_language: int | None = BITEXT_PER_LANGUAGE,
    group_by_key: bool = False,
) -> Reading:
    """Return the label → text and bitext rows of the ``homeassistant`` wheel.

    Args:
        wheel: path of the wheel, read as a zip file.
        languages: languages to read; English is read in any case, as the other side of the bitext.
        bitext_per_language: at most so many bitext rows per language, chosen by a hash of their keys: a larger number
            takes the same ones and more, and languages share their keys. ``None`` takes all.
        group_by_key: whether the group of a label and its text is not the integration but their key,
            ``<integration>.<path in the file>``, which all languages share.
    """
    reading = Reading(SOURCE)
    with zipfile.ZipFile(wheel) as archive:
        files: dict[str, dict[str, str]] = {}
        for name in archive.namelist():
            if found := _TRANSLATION.fullmatch(name):
                files.setdefault(found[2], {})[found[1]] = name
        english = {component: _load(archive, name) for component, name in files.get("en", {}).items()}
        names = {component: _display_name(archive, component) for component in english}
        english_texts = {component: dict(_leaves(tree)) for component, tree in english.items()}
        for language in languages:
            if language == "en":
                trees = english
            else:
                trees = {component: _load(archive, name) for component, name in files.get(language, {}).items()}
            for component, tree in trees.items():
                original = english_texts.get(component, {}) if language != "en" else {}
                for task, key, label, text in _labels(reading, language, tree, original):
                    reading.add(
                        task=task,
                        query=f"{names.get(component, component)}: {label}",
                        passage=text,
                        language=language,
                        group=f"{component}.{key}" if group_by_key else component,
                    )
            if language != "en":
                _add_bitext(reading, language, trees, english_texts, bitext_per_language)
    return reading


def localized_names(wheel: Path, components: Collection[str]) -> dict[str, dict[str, str]]:
    """Return what things around the house are called: language → component or ``area.<room>`` → name.

    The names are titles of components ("light" → "Licht") and the rooms that a new installation begins with.

    Args:
        wheel: path of the ``homeassistant`` wheel.
        components: components whose titles are wanted.
    """
    found: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for file in archive.namelist():
            matched = _TRANSLATION.fullmatch(file)
            if matched is None or not (matched[1] in components or matched[1] == "onboarding"):
                continue
            component, language = matched[1], matched[2]
            tree = _load(archive, file)
            names = found.setdefault(language, {})
            if component == "onboarding":
                names |= {f"area.{room}": clean(name) for room, name in tree.get("area", {}).items()}
            elif title := tree.get("title"):
                names[component] = clean(title)
    return found


def _load(archive: zipfile.ZipFile, name: str) -> Tree:
    tree = json.loads(archive.read(name))
    return tree if isinstance(tree, dict) else {}


def _display_name(archive: zipfile.ZipFile, component: str) -> str:
    try:
        manifest = _load(archive, f"homeassistant/components/{component}/manifest.json")
    except KeyError:
        return component
    return clean(str(manifest.get("name") or component))


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, str):
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")


def _labels(
    reading: Reading, language: str, tree: Tree, original: dict[str, str]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (task, key of the text, label, text), cleaned, of what is worth keeping, and account for the rest."""
    for task, key, label, text in _labelled(tree, ()):
        reason = None
        if _REFERENCE in label or _REFERENCE in text:
            reason = "unresolved reference"
        elif text == original.get(key):
            reason = "identical to English"
        else:
            label, text = clean(label), clean(text)
            if not label:
                reason = "empty query"
            elif len(text) < MIN_PASSAGE_CHARACTERS:
                reason = "short passage"
            elif label == text:
                reason = "query equals passage"
            elif _BROKEN_LINK in label or _BROKEN_LINK in text:
                reason = "broken link"
        if reason:
            reading.drop(task, language, reason)
        else:
            yield task, key, label, text


def _labelled(node: Tree, path: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (task, key of the text, label, text) for every label of the tree that comes with a text."""
    head, depth = path[0] if path else "", len(path)
    pair = None
    if head == "services":
        if depth == 2 or (depth == 4 and path[2] == "fields"):
            pair = ("action_desc" if depth == 2 else "field_desc", "name")
    else:  # an issue, or a step of its repair, which states the problem again and says what will be done
        pair = ("issue_fix" if head == "issues" else "title_body", "title")
    if pair and isinstance(label := node.get(pair[1]), str) and isinstance(text := node.get("description"), str):
        yield pair[0], ".".join((*path, "description")), label, text
    labels, helps = node.get("data"), node.get("data_description")
    if isinstance(labels, dict) and isinstance(helps, dict):
        for key, text in helps.items():
            if isinstance(text, str) and isinstance(label := labels.get(key), str):
                yield "field_help", ".".join((*path, "data_description", key)), label, text
    for key, child in node.items():
        if isinstance(child, dict):
            yield from _labelled(child, (*path, key))


def _add_bitext(
    reading: Reading, language: str, trees: dict[str, Tree], english: dict[str, dict[str, str]], limit: int | None
) -> None:
    candidates = []
    for component, tree in trees.items():
        originals = english.get(component, {})
        for key, text in _leaves(tree):
            original = originals.get(key)
            if original is not None and len(original) >= MIN_PASSAGE_CHARACTERS:
                if text == original:
                    reading.drop("bitext", language, "identical to English")
                else:
                    candidates.append((_hash(component, key), component, text, original))
    candidates.sort()
    seen = set()
    taken = 0
    for position, (number, component, text, original) in enumerate(candidates):
        if taken == limit:
            reading.drop("bitext", language, "over the limit per language", len(candidates) - position)
            break
        if _REFERENCE in text or _REFERENCE in original:
            reading.drop("bitext", language, "unresolved reference")
            continue
        text, original = clean(text), clean(original)
        reason = None
        if (
            not text or len(original) < MIN_PASSAGE_CHARACTERS
        ):  # English alone decides: 20 signs of Chinese say far more
            reason = "short passage"
        elif text == original:
            reason = "identical to English"
        elif (text, original) in seen:
            reason = "duplicate"
        elif _BROKEN_LINK in text or _BROKEN_LINK in original:
            reason = "broken link"
        if reason:
            reading.drop("bitext", language, reason)
            continue
        seen.add((text, original))
        taken += 1
        if number % 2:  # the lowest bit takes no part in the order of the first thousands, so halves stay halves
            sides = {"query": original, "language": "en", "passage": text, "document_language": language}
        else:
            sides = {"query": text, "language": language, "passage": original, "document_language": "en"}
        reading.add(task="bitext", group=component, **sides)


def _hash(component: str, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{component}\x1f{key}".encode(), digest_size=8).digest(), "big")
