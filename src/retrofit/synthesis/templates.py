"""The templates of all languages: forms that facts are slotted into, and instructions to a language model.

``<language>.jinja`` holds two blocks a family. The one named after the family has a form a line; a line that uses a
slot which the passage does not fill is no form of it. ``write_<family>`` says in one or two sentences of the language
what a language model is to write; ``frame`` puts it before the passage. ``question_words`` has the words a question is
known by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from retrofit.errors import UserError
from retrofit.synthesis.records import FAMILIES, Family

_MISSING = "\0"
_SLOTS = frozenset({"title", "topic", "keyphrase", "other_keyphrase", "year", "person", "instruction", "text"})
_FORMLESS: tuple[Family, ...] = ("document",)
"""Families that only a language model can write."""


class _Missing(jinja2.Undefined):
    """A slot the passage does not fill: it leaves a mark by which its line is known."""

    def __str__(self) -> str:
        return _MISSING


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a passage and can be slotted into a form, whatever the language.

    Attributes:
        title: its title without what tells it from others of the same name; empty if unknown.
        keyphrases: its most telling phrases, best first, none of them part of the title.
        year: a year it mentions; empty if there is none.
        person: whether the title names one; None where that is not known.
    """

    title: str
    keyphrases: tuple[str, ...]
    year: str = ""
    person: bool | None = False

    def slots(self) -> dict[str, Any]:
        """Return the variables of a form but for ``person``; what is unknown is missing.

        ``title`` and ``year`` as above; ``topic`` is the title or else the best keyphrase; ``keyphrase`` and
        ``other_keyphrase`` are the two best that are not the topic.
        """
        phrases = [self.title, *self.keyphrases] if self.title else list(self.keyphrases)
        named = dict(zip(("topic", "keyphrase", "other_keyphrase"), phrases, strict=False))
        optional = {name: value for name, value in (("title", self.title), ("year", self.year)) if value}
        return {**named, **optional}


class Language:
    """The templates of one language.

    Attributes:
        code: the language.
        question_words: words a question is known by, case-folded.
    """

    def __init__(self, code: str, template: jinja2.Template, path: Path) -> None:
        self.code = code
        self._template = template
        needed = {"question_words", "frame", *(f"write_{family}" for family in FAMILIES)}
        needed |= set(FAMILIES) - set(_FORMLESS)
        if missing := sorted(needed - template.blocks.keys()):
            raise UserError(f"{path}: no block {missing[0]}; expected {{% block {missing[0]} %}} (paths.templates)")
        self.question_words = frozenset(self._render("question_words", {}).casefold().split())
        try:
            self._try()
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"{path}: a form cannot be filled: {error} (paths.templates)") from error

    @property
    def form_text(self) -> str:
        """All forms with their slots left blank: the words that are common in the language's queries."""
        blank = dict.fromkeys(("title", "topic", "keyphrase", "other_keyphrase", "year"), " ")
        families = [family for family in FAMILIES if family not in _FORMLESS]
        return "\n".join(
            self._render(family, {**blank, "person": person}) for family in families for person in (True, False)
        )

    def _try(self) -> None:
        """Fill every form and every instruction once, so that what fails does so before work starts."""
        for family in FAMILIES:
            for facts in (Facts("T", ("a", "b"), "1999", None), Facts("", ())):
                self.forms(family, facts)
            self.prompt(family, "text")

    def forms(self, family: Family, facts: Facts) -> list[tuple[int, str]]:
        """Return the forms of a family that fit what is known, each with its line's number from 1.

        Where it is not known whether the title names a person, these are the lines that say the same either way.
        """
        if family in _FORMLESS:
            return []
        known = (True, False) if facts.person is None else (facts.person,)
        either = [self._lines(family, {**facts.slots(), "person": person}) for person in known]
        numbered = enumerate(zip(*either, strict=True), start=1)
        return [(number, line) for number, (line, *others) in numbered if line and all(line == o for o in others)]

    def _lines(self, family: Family, slots: Mapping[str, Any]) -> list[str]:
        """Return the lines of a block, those with a slot that is not filled empty."""
        lines = self._render(family, slots).removeprefix("\n").splitlines()
        return ["" if _MISSING in line else " ".join(line.split()) for line in lines]

    def prompt(self, family: Family, text: str) -> str:
        """Return what a language model is asked: the instruction of a family, and the text it is about."""
        instruction = self._render(f"write_{family}", {}).strip()
        return self._render("frame", {"instruction": instruction, "text": text}).strip()

    def _render(self, block: str, variables: Mapping[str, Any]) -> str:
        context = self._template.new_context(dict(variables))
        return "".join(self._template.blocks[block](context))


class Templates:
    """The templates of a folder.

    Attributes:
        folder: the folder.
        languages: codes of the languages it has, sorted.
    """

    def __init__(self, folder: Path) -> None:
        """Look for the files; they are read when their language is needed.

        Args:
            folder: holds ``<language>.jinja``.

        Raises:
            UserError: it holds none.
        """
        self.folder = folder
        self.languages = tuple(sorted(path.stem for path in folder.glob("*.jinja")))
        if not self.languages:
            raise UserError(f"paths.templates={folder}: no templates; expected files such as de.jinja")
        self._environment = jinja2.Environment(  # noqa: S701 -- plain text, not HTML
            undefined=_Missing
        )
        self._loaded: dict[str, Language] = {}

    def __reduce__(self) -> tuple[type[Templates], tuple[Path]]:
        """Return what another process makes them from: what is loaded cannot be sent."""
        return Templates, (self.folder,)

    def __contains__(self, code: object) -> bool:
        """Return whether there are templates in a language, or in one that includes it."""
        return isinstance(code, str) and self._file(code) is not None

    def language(self, code: str) -> Language:
        """Return the templates of a language, or of the one that includes it (``pt`` for ``pt-BR``).

        Raises:
            UserError: there are none, or they are not as they should be.
        """
        file = self._file(code)
        if file is None:
            known = ", ".join(self.languages)
            raise UserError(f"paths.templates={self.folder}: no templates in {code}; there are {known}")
        if file not in self._loaded:
            path = self.folder / f"{file}.jinja"
            try:
                source = path.read_text(encoding="utf-8")
                unknown = jinja2.meta.find_undeclared_variables(self._environment.parse(source)) - _SLOTS
                template = self._environment.from_string(source)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it so") from error
            except jinja2.TemplateSyntaxError as error:
                raise UserError(f"{path}, line {error.lineno}: {error.message}") from error
            if unknown:
                raise UserError(f"{path}: no slot {min(unknown)}; expected one of {', '.join(sorted(_SLOTS))}")
            self._loaded[file] = Language(file, template, path)
        return self._loaded[file]

    def _file(self, code: str) -> str | None:
        """Return the language of the file that serves a code; None where none does."""
        parts = code.replace("_", "-").split("-")
        chinese = "zh-Hant" if {"Hant", "TW", "HK", "MO"} & set(parts[1:]) else "zh-Hans"
        script = len(parts) > 1 and len(parts[1]) == 4  # another script than the usual one is another language
        candidates = [code, *([chinese] if parts[0] == "zh" else []), *([] if script else [parts[0]])]
        return next((name for name in candidates if name in self.languages), None)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the content of all files."""
        digest = hashlib.sha256()
        for code in self.languages:
            digest.update(code.encode() + b"\0" + (self.folder / f"{code}.jinja").read_bytes() + b"\0")
        return digest.hexdigest()[:16]
