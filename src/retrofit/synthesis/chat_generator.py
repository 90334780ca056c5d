"""Queries written by a language model: the templates say what is asked, the store keeps what was answered."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrofit.data.sources.validation import check_count
from retrofit.engine import Engine
from retrofit.synthesis.chat import ChatModel, Prompt, Reply
from retrofit.synthesis.examples import Examples
from retrofit.synthesis.records import Failure, Request, Written
from retrofit.synthesis.reply_store import Prompts, ReplyStore, ask
from retrofit.synthesis.templates import Templates

CODE_VERSION = 1  # raise it whenever the same reply would be read in another way

_SHOWN_CHARACTERS = 80


class MalformedError(ValueError):
    """An answer that is not the JSON asked for; says what it is instead."""


def answered_text(content: str) -> str:
    """Return the text of an answer: one JSON object with the string ``text``.

    A code fence or other text may stand around the object, as models like to put it, if it has no brace: then there
    is no telling what the answer is.

    Raises:
        MalformedError: it is anything else.
    """
    start = content.find("{")
    if start < 0:
        raise MalformedError(f"no JSON object: {_shown(content)}" if content.strip() else "an empty answer")
    try:
        value, end = json.JSONDecoder().raw_decode(content, start)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"broken JSON: {_shown(content)}") from error
    if "{" in content[end:]:
        raise MalformedError(f"more than one JSON object: {_shown(content)}")
    text = value.get("text")
    if not isinstance(text, str):
        raise MalformedError(f"no text in the JSON object: {_shown(content)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError("half of a surrogate pair, which is no character") from error
    return text.strip()


def _shown(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


class ChatGenerator:
    """Has a language model write what is requested.

    Attributes:
        name: that of the model.
        identity: what is written depends on it, besides the requests.
    """

    def __init__(
        self,
        chat: ChatModel,
        templates: Templates,
        examples: Examples | None,
        cache: Path,
        max_passage_characters: int,
    ) -> None:
        """Take the parts.

        Args:
            chat: the model.
            templates: its instructions.
            examples: real pairs that each prompt begins with; None for none.
            cache: root of the cache, which keeps its replies.
            max_passage_characters: after which a passage is cut for the prompt.

        Raises:
            UserError: ``max_passage_characters`` is not a positive number.
        """
        check_count("data_source.generator.max_passage_characters", max_passage_characters)
        self._chat = chat
        self._templates = templates
        self._examples = examples
        self._cache = cache
        self._max_passage_characters = max_passage_characters
        self.name = chat.name
        self.identity: Mapping[str, Any] = {
            "code": CODE_VERSION,
            "chat": dict(chat.identity),
            "templates": templates.fingerprint,
            "examples": None if examples is None else examples.identity,
            "max_passage_characters": max_passage_characters,
        }

    def generate(self, requests: Sequence[Request], engine: Engine) -> Iterator[Written]:
        """Yield what came of each request, in any order; replies of earlier runs are not asked for again.

        Args:
            requests: what is to be written.
            engine: where the model works, if it works here.

        Raises:
            UserError: there are no templates in a language, the store cannot be read or written, or the model cannot
                be asked.
        """
        for language in sorted({request.language for request in requests}):
            self._templates.language(language)  # before anything is paid for
        prompts = Prompts(len(requests), lambda position: self._prompt(requests[position]))
        with ReplyStore(self._cache) as store, contextlib.closing(ask(self._chat, prompts, store, engine)) as replies:
            for position, reply in replies:
                yield _written(requests[position], reply)

    def _prompt(self, request: Request) -> Prompt:
        templates, family = self._templates.language(request.language), request.family
        shown = [] if self._examples is None else self._examples.of(request.language)
        turns = []
        for passage, query in shown:
            # With a passage to write, the query is what is given.
            given, wanted = (query, passage) if family == "document" else (passage, query)
            turns += [templates.prompt(family, given), json.dumps({"text": wanted}, ensure_ascii=False)]
        return *turns, templates.prompt(family, request.passage.text[: self._max_passage_characters])


def _written(request: Request, reply: Reply) -> Written:
    """Return what a reply is worth."""
    text, failure, detail = "", reply.failure, reply.detail
    if failure is None:
        text, failure, detail = _read(reply)
    return Written(request, text, f"{request.language}/write_{request.family}", failure, detail, reply.day)


def _read(reply: Reply) -> tuple[str, Failure | None, str]:
    try:
        text = answered_text(reply.content)
    except MalformedError as error:
        return "", "malformed", f"{reply.detail}: {error}" if reply.detail else str(error)
    return (text, None, "") if text else ("", "refused", "an empty text")
