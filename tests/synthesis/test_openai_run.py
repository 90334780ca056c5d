"""Requests to a real server that goes wrong: nothing lost, nothing asked twice, nothing overspent, no key anywhere."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from tests.synthesis.fault_server import FaultServer, Plan, text_for, turns
from tests.synthesis.test_openai_chat import KEY, SETTINGS, exception_text

from retrofit.engine import LOCAL
from retrofit.errors import UserError
from retrofit.synthesis.chat import Reply
from retrofit.synthesis.chat_generator import answered_text
from retrofit.synthesis.openai_chat import OpenAIChat
from retrofit.synthesis.reply_store import Prompts, ReplyStore, ask, reply_key

pytest.importorskip("openai")

PROMPTS = [f"What is number {number}?" for number in range(40)]
Serve = Callable[..., FaultServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Return a function that starts a server; pauses before a try are short."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(FaultServer(*arguments, **options))


def chat_with(server: FaultServer, **settings: Any) -> OpenAIChat:
    return OpenAIChat(**{**SETTINGS, "base_url": server.url, **settings})


def replies_of(chat: OpenAIChat, prompts: list[str]) -> dict[str, Reply]:
    found = list(chat.replies(turns(prompts), LOCAL))
    assert sorted(position for position, _ in found) == list(range(len(prompts)))
    return {prompts[position]: reply for position, reply in found}


def mostly(*faults: str) -> Plan:
    """Each prompt goes wrong once or twice, in its own way, before it is answered."""

    def plan(prompt: str, turn: int) -> str:
        number = int("".join(filter(str.isdigit, prompt)))
        return faults[(number + turn) % len(faults)] if turn < 1 + number % 2 else ""

    return plan


def test_with_rate_limits_and_drops_nothing_is_lost_and_no_answer_is_asked_for_again(serve: Serve) -> None:
    server = serve(mostly("429", "500", "drop_before", "drop_within"), seconds=0.005)
    found = replies_of(chat_with(server), PROMPTS)
    for prompt, reply in found.items():
        assert reply.failure is None, reply.detail
        assert answered_text(reply.content) == text_for(prompt)
        assert (reply.prompt_tokens, reply.completion_tokens) == (len(prompt.split()), 11)
    assert Counter(server.answered) == Counter(PROMPTS)
    assert Counter(server.received) == {prompt: 2 + number % 2 for number, prompt in enumerate(PROMPTS)}
    assert 1 < server.most_in_flight <= 4


def test_a_connection_that_ends_after_its_answer_costs_nothing(serve: Serve) -> None:
    server = serve(lambda prompt, turn: "drop_after")
    assert {reply.failure for reply in replies_of(chat_with(server), PROMPTS).values()} == {None}
    assert Counter(server.received) == Counter(PROMPTS)


def test_the_server_says_when_to_try_again(serve: Serve) -> None:
    server = serve(lambda prompt, turn: "" if turn else "429", retry_after="1")
    replies_of(chat_with(server), PROMPTS[:1])
    first, second = server.times
    assert 0.95 <= second - first < 3


@pytest.mark.parametrize(
    ("fault", "failure", "detail"),
    [
        ("429", "unreachable", "429: slow down, Bearer ***"),
        ("500", "unreachable", "500: cannot serve Bearer ***"),
        ("drop_before", "unreachable", "RemoteProtocolError: "),
        ("drop_within", "unreachable", "RemoteProtocolError: "),
        ("slow", "timed_out", "no answer in 1 s"),
        ("drip", "timed_out", "no answer in 1 s"),
        ("truncated", "unreachable", "its answer is not JSON"),
        ("no_choices", "unreachable", "no choices in its answer"),
        ("refusal", "refused", "I can't help with that."),
        ("content_filter", "refused", "finish_reason content_filter"),
        ("400 filter", "refused", "400: filtered"),
        ("400 length", "unreachable", "400: This model's maximum context length"),
        ("cut", None, "cut off at max_tokens"),
        ("malformed", None, ""),
        ("fenced", None, ""),
    ],
)
def test_what_goes_wrong_with_one_prompt_is_its_reply(
    serve: Serve, fault: str, failure: str | None, detail: str
) -> None:
    server = serve(lambda prompt, turn: fault if prompt == PROMPTS[1] else "")
    seconds = 1 if fault in ("slow", "drip") else 20
    found = replies_of(chat_with(server, timeout_seconds=seconds, retries=1), PROMPTS[:4])
    bad = found.pop(PROMPTS[1])
    assert bad.failure == failure
    assert bad.detail.startswith(detail)
    assert bool(bad.content) is (failure is None)
    assert {reply.failure for reply in found.values()} == {None}


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("401", "api_key_variable=OPENAI_API_KEY: the server at URL does not serve this key: 401: Incorrect API key"),
        ("quota", "api_key_variable=OPENAI_API_KEY: the server at URL does not serve this key: 429: You exceeded"),
        ("403", "model=made-up-1: not to be had at base_url=URL: 403: not yours"),
        ("404", "model=made-up-1: not to be had at base_url=URL: 404: The model does not exist"),
        ("400", "model=made-up-1: the server at URL does not take it: 400: bad request"),
        ("400 temperature", "temperature=0.5: the server at URL does not take it: 400: Unsupported value"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_every_prompt_would_meet_ends_the_run_and_what_was_answered_is_kept(
    serve: Serve, tmp_path: Path, fault: str, line: str, concurrency: int
) -> None:
    server = serve(lambda prompt, turn: fault if PROMPTS.index(prompt) >= 10 else "", seconds=0.01)
    chat = chat_with(server, retries=0, concurrency=concurrency)
    with ReplyStore(tmp_path) as store:
        with pytest.raises(UserError) as caught:
            list(ask(chat, turns(PROMPTS), store, LOCAL))
        found = [position for position, _ in ask_kept(store, chat)]
    assert str(caught.value).startswith(f"data_source.*.chat.{line.replace('URL', server.url)}")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert sorted(found) == list(range(10)) == sorted(map(PROMPTS.index, server.answered))
    assert len(server.received) <= 10 + concurrency


def ask_kept(store: ReplyStore, chat: OpenAIChat) -> list[tuple[int, Reply]]:
    """What the store holds, without asking."""
    keys = {reply_key(chat.identity, (prompt,)): number for number, prompt in enumerate(PROMPTS)}
    return [(keys[key], reply) for key, reply in store.get(list(keys)).items()]


def test_a_server_that_answers_nothing_any_more_ends_the_run(serve: Serve) -> None:
    server = serve(lambda prompt, turn: "drop_before")
    with pytest.raises(UserError, match=r"chat\.base_url=\S+: \d+ requests in a row were not answered \(unreachable: "):
        list(chat_with(server, retries=0).replies(turns(PROMPTS), LOCAL))
    assert len(server.received) < len(PROMPTS)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_in_flight_than_allowed_answers_that_are_not_yet_taken_counted(
    serve: Serve, concurrency: int
) -> None:
    server = serve(seconds=0.01)
    chat = chat_with(server, concurrency=concurrency)
    with closing(chat.replies(turns(PROMPTS), LOCAL)) as replies:  # type: ignore[type-var]
        for taken in range(1, 6):
            next(replies)
            time.sleep(0.1)
            assert len(server.received) <= taken - 1 + concurrency
        assert server.most_in_flight <= concurrency
    before = len(server.received)
    time.sleep(0.1)
    assert len(server.received) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "requests"]


def test_closing_early_gives_up_a_request_that_takes_long(serve: Serve) -> None:
    server = serve(lambda prompt, turn: "" if prompt == PROMPTS[0] else "slow")
    chat = chat_with(server, timeout_seconds=60, max_total_tokens=100_000)
    replies = chat.replies(turns(PROMPTS), LOCAL)
    assert next(replies)[0] == 0
    started = time.monotonic()
    replies.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5
    assert chat.budget.reserved.total == 0
    assert chat.budget.spent.total >= sum(server.made)  # what was given up may have to be paid for


def test_the_requests_say_what_is_configured(serve: Serve) -> None:
    server = serve()
    replies_of(chat_with(server), PROMPTS[:1])
    replies_of(chat_with(server, temperature=None, seed=None, structured="none", top_p=0.5), PROMPTS[:1])
    replies_of(chat_with(server, structured="json_object"), PROMPTS[:1])
    first, second, third = server.bodies
    messages = [{"role": "user", "content": PROMPTS[0]}]
    schema = first.pop("response_format")["json_schema"]["schema"]
    assert first == {"model": "made-up-1", "messages": messages, "max_tokens": 50, "temperature": 0.5, "seed": 3}
    assert (schema["required"], schema["additionalProperties"]) == (["text"], False)
    assert second == {"model": "made-up-1", "messages": messages, "max_tokens": 50, "top_p": 0.5}
    assert third["response_format"] == {"type": "json_object"}


def test_replies_can_be_awaited_where_an_event_loop_runs(serve: Serve) -> None:
    server = serve()

    async def notebook() -> dict[str, Reply]:
        return replies_of(chat_with(server), PROMPTS)

    assert len(asyncio.run(notebook())) == len(PROMPTS)


def test_environment_variables_of_the_client_do_not_choose_the_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert OpenAIChat(**SETTINGS).server.base_url == "https://api.openai.com/v1"
    monkeypatch.setenv("LOCAL_KEY", "EMPTY")
    (reply,) = replies_of(chat_with(server, api_key_variable="LOCAL_KEY"), ["EMPTY"]).values()
    assert "EMPTY" in reply.content  # a word some servers want for a key is no secret


# What a try may come to: a prompt of some 20 bytes, 1024 tokens around it, 50 written.
BOUND = 1024 + 50 + len(PROMPTS[-1])


@pytest.mark.parametrize("limit", [BOUND - 1, BOUND, BOUND + 40, 2 * BOUND, 3 * BOUND + 100])
@pytest.mark.parametrize("faults", [("",), ("429", "500"), ("slow", "", "drop_within", "truncated")], ids=str)
def test_the_budget_is_never_exceeded_and_what_does_not_fit_says_so(
    serve: Serve, limit: int, faults: tuple[str, ...]
) -> None:
    prompts = [f"{number:02d} {'word ' * 5}" for number in range(40)]
    bound = 1024 + 16 + 50 + len(prompts[0])
    limit += bound - BOUND
    server = serve(mostly(*faults))
    chat = chat_with(server, max_total_tokens=limit, timeout_seconds=0.2 if "slow" in faults else 20)
    found = replies_of(chat, prompts)
    assert sum(server.made) <= chat.budget.spent.total <= limit
    assert chat.budget.reserved.total == 0
    failures = Counter(reply.failure for reply in found.values())
    for reply in found.values():
        if reply.failure == "over_budget":
            assert f" of max_total_tokens={limit} left, up to {bound} needed" in reply.detail
    if "slow" in faults:
        assert failures["over_budget"] > 0
    else:
        # As many are answered as fit one after the other: what is in flight is waited for, and an error is free.
        fitting = 0 if limit < bound else min(40, 1 + (limit - bound) // 17)
        assert failures == Counter({None: fitting, "over_budget": 40 - fitting})
        assert chat.budget.spent.total == sum(server.made)


def test_a_price_is_never_exceeded_either(serve: Serve) -> None:
    server = serve()
    prices = {"price_per_million_prompt_tokens": 2.0, "price_per_million_completion_tokens": 10.0}
    limit = 0.005
    chat = chat_with(server, max_cost=limit, **prices)
    found = replies_of(chat, PROMPTS)
    paid = (server.made[0] * 2 + server.made[1] * 10) / 1e6
    most = ((1024 + 16 + len(PROMPTS[0])) * 2 + 50 * 10) / 1e6
    assert limit - most < paid <= limit
    details = [reply.detail for reply in found.values() if reply.failure == "over_budget"]
    assert all(" of max_cost=0.005 left, up to 0.0026" in detail for detail in details)
    assert {reply.failure for reply in found.values()} == {None, "over_budget"}


@pytest.mark.parametrize("fault", ["401", "429", "500", "echo", "drop_before", "slow"])
def test_the_key_is_nowhere(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("openai", "httpx2", "httpcore2"):
        monkeypatch.setattr(logging.getLogger(library), "level", logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    server = serve(lambda prompt, turn: fault)
    chat = chat_with(server, timeout_seconds=0.3, retries=1)
    said = repr(chat) + str(vars(chat)) + str(chat.identity)
    with ReplyStore(tmp_path) as store:
        try:
            said += repr(list(ask(chat, turns(PROMPTS[:6]), store, LOCAL)))
        except UserError as error:
            said += exception_text(error)
            assert fault == "401"
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        said += "".join(path.read_bytes().decode("utf-8", "replace") for path in kept)
    assert any(path.name.endswith("-wal") for path in kept)
    assert caplog.records
    said += "".join(record.getMessage() + str(record.args) for record in caplog.records)
    assert KEY[:12] not in said
    assert KEY[12:24] not in said
    assert KEY[-12:] not in said
    assert "***" in said or fault in ("drop_before", "slow")


def test_libraries_log_no_line_a_request_unless_asked_to(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    replies_of(chat_with(serve()), PROMPTS)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("made-up-1: 40 of 40 replies, ")
    assert line.endswith(f" s left, {40 * (4 + 11)} tokens, 0 tries again")


def test_progress_is_logged_while_nothing_comes(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrofit.synthesis.openai_run._SECONDS_A_REPORT", 0.1)
    caplog.set_level(logging.INFO)
    replies_of(chat_with(serve(seconds=0.5)), PROMPTS[:2])
    first, *_ = [record.getMessage() for record in caplog.records]
    assert first.startswith("made-up-1: 0 of 2 replies, 0.0 replies/s, no telling how long, 0 tokens")


@pytest.mark.parametrize("value", [None, " ", f"{KEY}\nnext line", f"{KEY} ü"])
def test_a_key_that_is_none_is_one_line(serve: Serve, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    if value is None:
        monkeypatch.delenv("OPENAI_API_KEY")
    else:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    chat = chat_with(server)
    assert list(chat.replies([], LOCAL)) == []  # nothing to ask needs no key
    with pytest.raises(UserError, match=r"chat\.api_key_variable=OPENAI_API_KEY: ") as caught:
        list(chat.replies(turns(PROMPTS), LOCAL))
    assert KEY[:12] not in exception_text(caught.value)
    assert server.received == []
    assert len(replies_of(chat_with(server, api_key_variable=None), PROMPTS)) == len(PROMPTS)


def test_a_key_that_goes_over_the_wire_in_the_clear_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chat = OpenAIChat(**{**SETTINGS, "base_url": "http://nowhere.invalid/v1", "retries": 0})
    (reply,) = replies_of(chat, PROMPTS[:1]).values()
    assert reply.failure == "unreachable"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "base_url=http://nowhere.invalid/v1: the key is sent there unencrypted" in warning


def test_an_error_in_the_making_of_a_prompt_reaches_who_asks(serve: Serve) -> None:
    def make(position: int) -> str:
        if position == 5:
            raise UserError("no such template")
        return (PROMPTS[position],)

    server = serve()
    for concurrency in (1, 20):  # with 20, the requests before it have not begun
        chat = chat_with(server, concurrency=concurrency, max_total_tokens=100_000)
        with pytest.raises(UserError, match=r"^no such template$"):
            list(chat.replies(Prompts(10, make), LOCAL))
        assert chat.budget.reserved.total == 0
        assert len(replies_of(chat, PROMPTS)) == len(PROMPTS)
    assert Counter(server.received) == Counter(PROMPTS[:4] + 2 * PROMPTS)  # the fifth had not begun either


def test_one_list_is_asked_at_a_time(serve: Serve) -> None:
    chat = chat_with(serve())
    for _ in chat.replies(turns(PROMPTS[:1]), LOCAL):
        with pytest.raises(RuntimeError, match="another list of prompts"):
            next(chat.replies(turns(PROMPTS[1:2]), LOCAL))
