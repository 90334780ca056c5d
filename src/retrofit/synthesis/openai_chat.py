"""A language model behind an OpenAI-compatible server: the official one, a gateway, or one on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from retrofit.engine import Engine
from retrofit.errors import UserError
from retrofit.models.openai_server import OFFICIAL, OpenAIServer, require_client
from retrofit.synthesis.budget import Budget, Tokens
from retrofit.synthesis.chat import Prompt, Reply

Structured = Literal["json_schema", "json_object", "none"]
"""How the server is told that the answer is JSON: by its schema, by the word, or in the prompt alone."""

CONFIG = "data_source.*.chat"

_SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
_FORMATS: dict[Structured, dict[str, Any] | None] = {
    "json_schema": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA}},
    "json_object": {"type": "json_object"},
    "none": None,
}
_FRAME_TOKENS = 1024  # what a server may put around a prompt: its template, a system prompt of its own, the schema
_TURN_TOKENS = 16  # what marks a turn of the conversation


class OpenAIChat:
    """A chat model behind the chat-completions interface, as the ``openai`` client speaks it.

    The budget is of one run: of what is asked through this object. It knows nothing of replies that a store has kept
    from earlier runs, and is never exceeded: a request is sent only if all it may come to still fits, and a try whose
    answer was lost counts as if it had come to that.

    Attributes:
        name: the model's name.
        identity: what its replies depend on; no credentials.
        server: where it is, and which environment variable has its key.
        concurrency: requests in flight at once.
        timeout_seconds: for one try.
        retries: of a request.
        budget: what may be spent and has been.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None,
        api_key_variable: str | None,
        temperature: float | None,
        top_p: float | None,
        max_tokens: int,
        seed: int | None,
        structured: Structured,
        concurrency: int,
        timeout_seconds: float,
        retries: int,
        max_total_tokens: int | None,
        max_cost: float | None,
        price_per_million_prompt_tokens: float | None,
        price_per_million_completion_tokens: float | None,
    ) -> None:
        """Check the settings. Nothing is sent, and no key is read.

        Args:
            model: as the server calls it.
            base_url: of the server, such as ``http://localhost:8000/v1``; None is the official one.
            api_key_variable: the environment variable with the key; None where the server needs none.
            temperature: of sampling; None leaves it to the server, as it does for ``top_p`` and ``seed``.
            top_p: share of the probability that is sampled from.
            max_tokens: after which an answer is cut.
            seed: of sampling, for servers that know of seeds.
            structured: how the server is told that the answer is JSON.
            concurrency: requests in flight at once, answers that are not yet stored counted.
            timeout_seconds: for one try, from the connection to the end of the answer.
            retries: of a request that is turned away for now (429), fails (5xx), takes too long or is lost.
            max_total_tokens: budget in tokens read and written.
            max_cost: budget in the currency of the prices.
            price_per_million_prompt_tokens: price of a million tokens read.
            price_per_million_completion_tokens: price of a million tokens written.

        Raises:
            UserError: a setting cannot be so; a secret in it is not shown.
        """
        _check("max_tokens", max_tokens, 1, whole=True)
        _check("concurrency", concurrency, 1, 1000, whole=True)  # the client opens no more connections
        _check("timeout_seconds", timeout_seconds, 0.001)
        _check("retries", retries, 0, whole=True)
        _check("temperature", temperature, 0, optional=True)
        _check("top_p", top_p, 0, 1, optional=True)
        _check("seed", seed, 0, whole=True, optional=True)
        _check("max_total_tokens", max_total_tokens, 1, whole=True, optional=True)
        _check("max_cost", max_cost, 0, optional=True)
        needed = max_cost is not None
        _check("price_per_million_prompt_tokens", price_per_million_prompt_tokens, 0, optional=not needed)
        _check("price_per_million_completion_tokens", price_per_million_completion_tokens, 0, optional=not needed)
        if structured not in get_args(Structured):
            raise UserError(f"{CONFIG}.structured={structured}: expected one of {', '.join(get_args(Structured))}")
        self.server = OpenAIServer.of(base_url, api_key_variable, CONFIG)
        self.concurrency = concurrency
        self.timeout_seconds = timeout_seconds
        self.retries = retries
        prices = price_per_million_prompt_tokens or 0.0, price_per_million_completion_tokens or 0.0
        self.budget = Budget(max_total_tokens, max_cost, prices)
        self.name = model
        self.identity: Mapping[str, Any] = {
            "model": model,
            "base_url": self.server.base_url,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
            "structured": structured,
        }
        # The official server calls it by a new name, which most others do not know.
        limit = "max_completion_tokens" if self.server.base_url == OFFICIAL else "max_tokens"
        optional = {
            "temperature": temperature, "top_p": top_p, "seed": seed, "response_format": _FORMATS[structured],
        }  # fmt: skip
        self._asking = False
        self._max_tokens = max_tokens
        self._arguments = {
            "model": model, limit: max_tokens, **{name: value for name, value in optional.items() if value is not None},
        }  # fmt: skip

    def replies(self, prompts: Sequence[Prompt], engine: Engine) -> Iterator[tuple[int, Reply]]:  # noqa: ARG002
        """Yield a reply to each prompt with its position, as they come; see :class:`ChatModel`.

        An answer keeps its place among the requests in flight until the next reply is asked for, so no more answers
        than that are ever paid for and not yet stored. Closing the iterator early gives up the requests in flight.
        One list is asked at a time, as there is one budget.

        Raises:
            UserError: the client is not installed, there is no key, the server refuses whatever it is asked, or no
                longer answers. Requests in flight are waited for, and their replies yielded, before.
        """
        if not len(prompts):
            return
        require_client("generator=openai")
        from retrofit.synthesis.openai_run import Run

        if self._asking:
            raise RuntimeError("the replies to another list of prompts have not been taken to the end")
        self._asking = True
        try:
            yield from Run(self, prompts, self.server.key()).replies()
        finally:
            self._asking = False

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """Return what the client is called with."""
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(prompt)]
        return {**self._arguments, "messages": messages}

    def bound(self, prompt: Prompt) -> Tokens:
        """Return the most tokens that one try may come to: a token is at least a byte."""
        turns = sum(len(turn.encode()) + _TURN_TOKENS for turn in prompt)
        return Tokens(turns + _FRAME_TOKENS, self._max_tokens)


def _check(
    name: str, value: Any, least: float, most: float = math.inf, *, whole: bool = False, optional: bool = False
) -> None:
    if value is None and optional:
        return
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not right or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        until = "" if math.isinf(most) else f", at most {most:g}"
        null = ", or null" if optional else ""
        shown = "null" if value is None else value
        raise UserError(f"{CONFIG}.{name}={shown}: expected {kind} of {least:g} or more{until}{null}")
