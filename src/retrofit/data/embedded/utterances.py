"""What people say to their house in 65 languages, sampled from the templates of ``home-assistant-intents``.

``home_assistant_intents/data/<language>.json`` holds sentence templates per intent, such as ``(turn|switch) on [the]
{area} lights``, in the syntax of the ``hassil`` library, whose parser reads them here. Enumerating them all is out of
the question; a few are chosen per topic and one utterance is drawn from each.
"""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hassil.expression import Alternative, Expression, Group, ListReference, Permutation, RuleReference, TextChunk
from hassil.parse_expression import parse_sentence
from hassil.parser import ParseError

from retrofit.data.embedded.cleaning import normalise
from retrofit.data.embedded.integrations import localized_names
from retrofit.data.embedded.reading import Reading

SOURCE = "home_assistant_intents"
TASKS = ("utterance",)

# Device domains whose localised titles stand in for the names that users give their devices.
DOMAINS = (
    *("climate", "cover", "fan", "humidifier", "lawn_mower", "light", "lock", "media_player", "scene", "script"),
    *("switch", "vacuum", "valve", "weather"),
)
_ANY_DEVICE = ("light", "fan", "switch", "cover", "media_player", "climate", "vacuum")
_FILE = re.compile(r"home_assistant_intents/data/([^/]+)\.json")
_LANGUAGES = {"zh-CN": "zh-Hans", "zh-TW": "zh-Hant"}
_NAMES_OF = {"zh-HK": "zh-Hant", "de-CH": "de"}


def read_utterances(
    wheel: Path, names_wheel: Path | None = None, *, passages: int = 4, queries: int = 12, seed: int = 0
) -> Reading:
    """Return rows of task ``utterance``: one way to say something → other ways to say the same.

    Utterances say the same when intent, fixed slots (``domain: light``) and kind of response agree; such a *topic*
    gets one value per slot, so that its utterances name the same room and the same number. Up to ``passages`` of its
    templates make passages and up to ``queries`` others make queries, each of which has all those passages as
    positives: no utterance that answers a query is left unlabelled among the passages. The group is the intent.

    Args:
        wheel: path of the ``home-assistant-intents`` wheel, read as a zip file.
        names_wheel: path of the ``homeassistant`` wheel, for localised names of rooms and devices. Without it, as in
            languages it does not know, templates that need a name are left out.
        passages: at most so many passages per topic.
        queries: at most so many queries per topic.
        seed: of the choice of templates and words.
    """
    reading = Reading(SOURCE)
    names = localized_names(names_wheel, DOMAINS) if names_wheel else {}
    with zipfile.ZipFile(wheel) as archive:
        for file in sorted(archive.namelist()):
            if not (found := _FILE.fullmatch(file)):
                continue
            language = _LANGUAGES.get(found[1], found[1])
            data = json.loads(archive.read(file))
            grammar = _Grammar(
                lists=data["lists"],
                rules=data["expansion_rules"],
                names=names.get(_NAMES_OF.get(language, language), {}),
            )
            for topic, templates in _topics(data).items():
                _add_topic(reading, language, topic, templates, grammar, (passages, queries, seed))
    return reading


_Topic = tuple[str, str, str]  # intent, fixed slots, response
_Template = tuple[str, tuple[str, ...]]  # sentence template, domains that its device may be of


def _topics(data: Mapping[str, Any]) -> dict[_Topic, list[_Template]]:
    topics: dict[_Topic, dict[_Template, None]] = {}
    for intent, content in data["intents"].items():
        for block in content["data"]:
            domains = (block.get("requires_context") or {}).get("domain") or ()
            domains = (domains,) if isinstance(domains, str) else tuple(domains)
            slots = json.dumps(block.get("slots", {}), sort_keys=True)
            templates = topics.setdefault((intent, slots, str(block.get("response"))), {})
            templates.update(((sentence, domains), None) for sentence in block["sentences"])
    return {topic: list(templates) for topic, templates in topics.items()}


def _add_topic(
    reading: Reading,
    language: str,
    topic: _Topic,
    templates: list[_Template],
    grammar: _Grammar,
    limits: tuple[int, int, int],
) -> None:
    passages, queries, seed = limits
    rng = random.Random("\x1f".join((str(seed), language, *topic)))  # noqa: S311 - sampling, not cryptography
    rng.shuffle(templates)
    speaker = _Speaker(grammar, rng)
    said: dict[str, None] = {}
    for tried, (sentence, domains) in enumerate(templates):
        if len(said) == passages + queries:
            reading.drop("utterance", language, "template over the limit per topic", len(templates) - tried)
            break
        utterance = speaker.say(sentence, domains)
        if not utterance:
            reading.drop("utterance", language, "template with a slot that cannot be filled")
        elif utterance in said:
            reading.drop("utterance", language, "duplicate")
        else:
            said[utterance] = None
    if len(said) < 2:
        reading.drop("utterance", language, "topic with one template", len(said))
        return
    texts = list(said)
    cut = min(passages, len(texts) // 2)
    for query in texts[cut:]:
        for passage in texts[:cut]:
            reading.add(task="utterance", query=query, passage=passage, language=language, group=topic[0])


@dataclass
class _Grammar:
    """Lists, rules and names of one language; parses each on first use, since most are never needed."""

    lists: Mapping[str, Any]
    rules: Mapping[str, str]
    names: Mapping[str, str]
    _parsed: dict[str, Expression | None] = field(default_factory=dict)
    _fillable: dict[tuple[int, tuple[str, ...]], bool] = field(default_factory=dict)

    def parse(self, template: str) -> Expression | None:
        """Return the parsed template, or None if the parser rejects it."""
        if template not in self._parsed:
            try:
                self._parsed[template] = parse_sentence(template).expression
            except ParseError:
                self._parsed[template] = None
        return self._parsed[template]

    def rule(self, name: str) -> Expression | None:
        """Return the body of an expansion rule."""
        return self.parse(self.rules[name]) if name in self.rules else None

    def values(self, reference: ListReference, domains: tuple[str, ...]) -> list[str]:
        """Return what may be said in place of a slot, as templates; empty if nothing is known."""
        name: str = reference.list_name
        if reference.is_inline_range:
            start, stop, step = reference.get_inline_range()
            return [str(number) for number in range(start, stop + 1, step)]
        if content := self.lists.get(name):
            if "range" in content:
                bounds = content["range"]
                return [str(n) for n in range(bounds["from"], bounds["to"] + 1, bounds.get("step", 1))]
            values = content.get("values", [])
            return [value["in"] if isinstance(value, dict) else str(value) for value in values]
        if name == "area":
            return [text for key, text in self.names.items() if key.startswith("area.")]
        if name == "name":
            return [self.names[domain] for domain in domains or _ANY_DEVICE if domain in self.names]
        return []

    def is_fillable(self, expression: Expression | None, domains: tuple[str, ...]) -> bool:
        """Return whether at least one sentence without an open slot can be made of the expression."""
        if expression is None:
            return False
        if isinstance(expression, ListReference):
            return bool(self.values(expression, domains))
        if isinstance(expression, TextChunk):
            return True
        key = (id(expression), domains)  # the parser keeps no other identity; _parsed keeps the objects alive
        if key not in self._fillable:
            self._fillable[key] = False  # what a rule that refers to itself finds: no way out
            if isinstance(expression, RuleReference):
                self._fillable[key] = self.is_fillable(self.rule(expression.rule_name), domains)
            elif isinstance(expression, Group):
                test = any if isinstance(expression, Alternative) else all
                self._fillable[key] = test(self.is_fillable(item, domains) for item in expression.items)
        return self._fillable[key]


@dataclass
class _Speaker:
    """Draws sentences of one topic, with the same values for the same slots."""

    grammar: _Grammar
    rng: random.Random
    _chosen: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def say(self, template: str, domains: tuple[str, ...]) -> str:
        """Return a sentence drawn from a template, or an empty text if it cannot be filled."""
        expression = self.grammar.parse(template)
        if expression is None or not self.grammar.is_fillable(expression, domains):
            return ""
        return normalise("".join(self._words(expression, domains)))

    def _words(self, expression: Expression, domains: tuple[str, ...]) -> Iterator[str]:
        if isinstance(expression, TextChunk):
            yield expression.original_text
        elif isinstance(expression, ListReference):
            yield from self._value(expression, domains)
        elif isinstance(expression, RuleReference):
            body = self.grammar.rule(expression.rule_name)
            if body is not None:
                yield from self._words(body, domains)
        elif isinstance(expression, Alternative):
            possible = [item for item in expression.items if self.grammar.is_fillable(item, domains)]
            yield from self._words(self.rng.choice(possible), domains)
        elif isinstance(expression, Group):
            items = list(expression.items)
            if isinstance(expression, Permutation):
                self.rng.shuffle(items)
            for item in items:
                yield from self._words(item, domains)

    def _value(self, reference: ListReference, domains: tuple[str, ...]) -> Iterator[str]:
        slot = (reference.list_name, domains if reference.list_name == "name" else ())
        if slot not in self._chosen:
            self._chosen[slot] = self.rng.choice(self.grammar.values(reference, domains))
        value = self.grammar.parse(self._chosen[slot])
        if value is not None and self.grammar.is_fillable(value, domains):
            yield from self._words(value, domains)
