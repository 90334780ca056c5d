"""One run of requests to an OpenAI-compatible server: concurrent there, one reply at a time here.

Imports the ``openai`` client, and is itself imported only where something is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import openai

from retrofit.errors import UserError
from retrofit.models.openai_server import NEEDS_NO_KEY, shown, without_key
from retrofit.synthesis.budget import Attempts, OverBudgetError, Tokens
from retrofit.synthesis.chat import Prompt, Reply
from retrofit.synthesis.openai_chat import CONFIG, OpenAIChat
from retrofit.synthesis.records import Failure

_SECONDS_A_REPORT = 20
_LOST_IN_A_ROW = 20

_FILTERED = frozenset({"content_filter", "content_policy_violation"})
_TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length"})
_SETTINGS = {
    "model": "model", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens", "response_format": "structured",
}  # fmt: skip
"""The keys behind what a server complains of."""

log = logging.getLogger(__name__)
_attempts: contextvars.ContextVar[Attempts] = contextvars.ContextVar("attempts")


class _Connection(openai.DefaultAsyncHttpxClient):
    """Sends the tries of requests, each within its time, and counts what may have to be paid for."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__()
        self._timeout_seconds = timeout_seconds

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a try of the request that this task is about."""
        attempts = _attempts.get()
        attempts.begin()
        try:
            # Time-outs of the library are from one byte to the next, and a server may send blanks for ever.
            async with asyncio.timeout(self._timeout_seconds):
                response = await super().send(request, **options)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer in time", request=request) from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            attempts.free()
            raise
        # Other errors than these are of gateways, which do not know whether the model has answered.
        if 400 <= response.status_code <= 501 or response.status_code == 503:
            attempts.free()
        return response


class Run:
    """Asks a list of prompts, from a thread of its own: the caller may have an event loop, as notebooks do."""

    def __init__(self, chat: OpenAIChat, prompts: Sequence[Prompt], key: str | None) -> None:
        """Prepare the run.

        Args:
            chat: settings and budget.
            prompts: what is asked.
            key: the key of the server; None where it needs none.
        """
        self._chat = chat
        self._prompts = prompts
        self._key = key
        self._incoming: queue.SimpleQueue[tuple[int, Reply] | BaseException | None] = queue.SimpleQueue()
        self._running = threading.Event()
        self._stop: UserError | None = None
        self._lost_in_a_row = 0
        self._tried_again = 0
        self._warned = False

    def replies(self) -> Iterator[tuple[int, Reply]]:
        """Yield the replies as they come, and log how it goes."""
        thread = threading.Thread(target=self._work, name="requests", daemon=True)
        thread.start()
        started = reported = time.monotonic()
        done = 0
        try:
            while True:
                now = time.monotonic()
                if now - reported >= _SECONDS_A_REPORT:
                    self._report(done, now - started)
                    reported = now
                try:
                    item = self._incoming.get(timeout=reported + _SECONDS_A_REPORT - now)
                except queue.Empty:
                    continue
                if item is None:
                    break
                if isinstance(item, BaseException):
                    raise item
                yield item
                done += 1
                with contextlib.suppress(RuntimeError):  # the loop has ended, as this was the last one
                    self._loop.call_soon_threadsafe(self._places.release)
        finally:
            self._running.wait()
            with contextlib.suppress(RuntimeError, AttributeError):  # it has ended, or could not begin
                self._loop.call_soon_threadsafe(self._task.cancel)
            thread.join()
        self._report(done, time.monotonic() - started)

    def _report(self, done: int, seconds: float) -> None:
        total, budget = len(self._prompts), self._chat.budget
        rate = done / seconds if seconds else 0.0
        left = f"about {(total - done) / rate:.0f} s left" if rate else "no telling how long"
        cost = "" if budget.max_cost is None else f", cost {budget.cost(budget.spent):.2f}"
        log.info(
            "%s: %d of %d replies, %.1f replies/s, %s, %d tokens%s, %d tries again",
            self._chat.name, done, total, rate, left, budget.spent.total, cost, self._tried_again,
        )  # fmt: skip

    def _work(self) -> None:
        try:
            asyncio.run(self._ask_all())
        except asyncio.CancelledError:
            pass  # nobody listens any more
        except BaseExceptionGroup as group:
            self._incoming.put(group.exceptions[0])  # for which the others were given up
        except BaseException as error:  # raised where the replies are awaited
            self._incoming.put(error)
        else:
            self._incoming.put(self._stop)
        finally:
            self._running.set()

    async def _ask_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- for mypy
        self._task = task
        self._places = asyncio.Semaphore(self._chat.concurrency)
        self._settled = asyncio.Event()
        self._running.set()
        client = openai.AsyncOpenAI(
            api_key=self._key or NEEDS_NO_KEY,
            base_url=self._chat.server.base_url,
            timeout=self._chat.timeout_seconds,
            max_retries=self._chat.retries,
            http_client=_Connection(self._chat.timeout_seconds),
        )
        try:
            async with client, asyncio.TaskGroup() as group:
                await self._hand_out(client, group)
        finally:
            self._chat.budget.reserved = Tokens()  # what is left is of tasks that were cancelled before they began

    async def _hand_out(self, client: openai.AsyncOpenAI, group: asyncio.TaskGroup) -> None:
        """Begin a task a prompt, each as soon as there is a place for it and what it may come to fits the budget."""
        for position, prompt in enumerate(self._prompts):
            await self._places.acquire()
            bound = self._chat.bound(prompt)
            fits = await self._reserve(bound)
            if self._stop is not None:
                return  # what is in flight ends in its own time
            if fits:
                group.create_task(self._answer(client, position, prompt, bound))
            else:
                self._incoming.put((position, self._failed("over_budget", self._chat.budget.shortage(bound))))

    async def _reserve(self, bound: Tokens) -> bool:
        """Set aside what a request may come to, as soon as it fits; False if it does not although nothing is asked."""
        budget = self._chat.budget
        while self._stop is None and not budget.reserve(bound):
            if not budget.reserved.total:
                return False
            self._settled.clear()
            await self._settled.wait()
        return True

    async def _answer(self, client: openai.AsyncOpenAI, position: int, prompt: Prompt, bound: Tokens) -> None:
        """Ask one prompt and hand over the reply, unless it ends the run."""
        attempts = Attempts(self._chat.budget, bound)
        _attempts.set(attempts)
        usage = None
        try:
            raw = await client.chat.completions.with_raw_response.create(**self._chat.request(prompt))
            reply, usage = self._read(raw.content)
            self._compare(usage, bound)
        except OverBudgetError:
            shortage = self._chat.budget.shortage(bound)
            reply = self._failed("over_budget", f"for another try after one that was lost: {shortage}")
        except openai.APIError as error:
            refused = self._refused(error)
            if isinstance(refused, UserError):
                self._stop = self._stop or refused
                self._places.release()
                return
            reply = refused
        finally:
            attempts.settle(usage)
            self._tried_again += max(0, attempts.count - 1)
            self._settled.set()
        self._watch(reply)
        self._incoming.put((position, reply))

    def _watch(self, reply: Reply) -> None:
        """End the run when nothing is answered any more: ten thousand requests would take days to fail."""
        lost = reply.failure in ("unreachable", "timed_out")
        self._lost_in_a_row = self._lost_in_a_row + 1 if lost else 0
        if self._lost_in_a_row >= _LOST_IN_A_ROW + self._chat.concurrency and self._stop is None:
            self._stop = UserError(
                f"{CONFIG}.base_url={self._chat.server.base_url}: {self._lost_in_a_row} requests in a row "
                f"were not answered ({reply.failure}: {reply.detail}); "
                "run again when it answers: replies so far are kept"
            )

    def _compare(self, usage: Tokens | None, bound: Tokens) -> None:
        over = usage is not None and (usage.prompt > bound.prompt or usage.completion > bound.completion)
        if over and not self._warned:
            log.warning("%s: the server counts %s where at most %s were expected", self._chat.name, usage, bound)
            self._warned = True

    def _read(self, body: bytes) -> tuple[Reply, Tokens | None]:
        """Return what the server answered, and the tokens it counted if it says so."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return self._failed("unreachable", "its answer is not JSON"), None
        tokens = _usage(answer)
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            refusal, content = message.get("refusal"), message.get("content")
            reason = choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            error = answer.get("error") if isinstance(answer, dict) else None
            return self._failed("unreachable", f"no choices in its answer{f': {error}' if error else ''}"), tokens
        if refusal or reason == "content_filter":
            return self._failed("refused", refusal or "finish_reason content_filter", tokens), tokens
        detail = "cut off at max_tokens" if reason == "length" else ""
        text = without_key(content, self._key) if isinstance(content, str) else ""
        return _reply(text, None, detail, tokens), tokens

    def _refused(self, error: openai.APIError) -> Reply | UserError:
        """Return what an error means to its prompt, or why it is of no use to ask another one."""
        chat = self._chat
        if isinstance(error, openai.APITimeoutError):
            return self._failed("timed_out", f"no answer in {chat.timeout_seconds:g} s")
        if not isinstance(error, openai.APIStatusError):
            cause = error.__cause__ or error
            return self._failed("unreachable", f"{type(cause).__name__}: {cause}")
        status, code = error.status_code, error.code or ""
        said = error.body.get("message") if isinstance(error.body, dict) else None
        detail = shown(f"{status}: {said or error.message}", self._key)
        key = f"{CONFIG}.api_key_variable={chat.server.api_key_variable or 'null'}"
        if status in (401, 402) or code == "insufficient_quota":
            return UserError(f"{key}: the server at {chat.server.base_url} does not serve this key: {detail}")
        if status in (408, 409, 429) or status >= 500:
            return self._failed("unreachable", detail)
        if code in _FILTERED:
            return self._failed("refused", detail)
        if status == 413 or code in _TOO_LONG or re.search(r"context (length|size|window)", detail):
            return self._failed("unreachable", detail)  # another prompt may be short enough
        if status in (403, 404):
            return UserError(f"{CONFIG}.model={chat.name}: not to be had at base_url={chat.server.base_url}: {detail}")
        setting = _SETTINGS.get((error.param or "").partition(".")[0], "model")
        value = chat.identity[setting]
        return UserError(f"{CONFIG}.{setting}={value}: the server at {chat.server.base_url} does not take it: {detail}")

    def _failed(self, failure: Failure, detail: Any, tokens: Tokens | None = None) -> Reply:
        return _reply("", failure, shown(str(detail), self._key), tokens)


def _reply(content: str, failure: Failure | None, detail: str, tokens: Tokens | None) -> Reply:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    counted = tokens or Tokens()
    return Reply(content, failure, detail, today, counted.prompt, counted.completion)


def _usage(answer: Any) -> Tokens | None:
    """Return the tokens that a server has counted; None where it does not say."""
    try:
        return Tokens(int(answer["usage"]["prompt_tokens"]), int(answer["usage"]["completion_tokens"]))
    except (LookupError, TypeError, ValueError):
        return None
