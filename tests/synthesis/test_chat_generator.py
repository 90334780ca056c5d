"""From requests to texts through a model: prompts, the reading of answers, and runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.synthesis.fault_server import FaultServer, text_for
from tests.synthesis.test_reply_store import Canned

from retrofit.commands.application import configuration_folder
from retrofit.engine import LOCAL
from retrofit.errors import UserError
from retrofit.synthesis.chat import Reply
from retrofit.synthesis.chat_generator import ChatGenerator, MalformedError, answered_text
from retrofit.synthesis.examples import Examples
from retrofit.synthesis.records import Request, SourcePassage, Written
from retrofit.synthesis.templates import Templates

TEMPLATES = Templates(configuration_folder() / "synthesis")


def passage(text: str, language: str = "en") -> SourcePassage:
    return SourcePassage(text, "", language, "group", "made up")


def written(chat: Canned, requests: list[Request], cache: Path, characters: int = 100) -> list[Written]:
    found = {
        id(one.request): one
        for one in ChatGenerator(chat, TEMPLATES, None, cache, characters).generate(requests, LOCAL)
    }
    return [found[id(request)] for request in requests]


def said(text: str, **more: Any) -> Reply:
    return Reply(json.dumps({"text": text}), day="2025-01-02", **more)


def test_each_request_is_asked_in_its_language_with_a_passage_that_is_cut(tmp_path: Path) -> None:
    requests = [
        Request(passage("Rivers flow. " * 50), "question", "en"),
        Request(passage("Flüsse fließen.", "de"), "keywords", "de"),
        Request(passage("Flüsse fließen.", "de"), "cross_lingual", "en"),
    ]
    prompts = [TEMPLATES.language(r.language).prompt(r.family, r.passage.text[:100]) for r in requests]
    chat = Canned({prompt: said(f" text {number}\n") for number, prompt in enumerate(prompts)})
    assert written(chat, requests, tmp_path) == [
        Written(requests[0], "text 0", "en/write_question", day="2025-01-02"),
        Written(requests[1], "text 1", "de/write_keywords", day="2025-01-02"),
        Written(requests[2], "text 2", "en/write_cross_lingual", day="2025-01-02"),
    ]
    assert sorted(chat.asked) == sorted(prompts)
    assert written(Canned(), requests, tmp_path)[0].text == "text 0"  # from the store


def test_two_requests_with_one_prompt_are_asked_once(tmp_path: Path) -> None:
    other = SourcePassage("Rivers flow.", "Rivers", "en", "other group", "another source")
    requests = [Request(passage("Rivers flow."), "title", "en"), Request(other, "title", "en")]
    prompt = TEMPLATES.language("en").prompt("title", "Rivers flow.")
    chat = Canned({prompt: said("Rivers")})
    found = written(chat, requests, tmp_path)
    assert chat.asked == [prompt]
    assert [one.text for one in found] == ["Rivers", "Rivers"]
    assert [one.request for one in found] == requests


@pytest.mark.parametrize(
    ("reply", "failure", "detail"),
    [
        (Reply("I'd rather chat."), "malformed", "no JSON object: I'd rather chat."),
        (Reply('{"text": "cut o', detail="cut off at max_tokens"), "malformed", "cut off at max_tokens: broken JSON: "),
        (Reply('{"text": 3}'), "malformed", 'no text in the JSON object: {"text": 3}'),
        (Reply(""), "malformed", "an empty answer"),
        (said(" "), "refused", "an empty text"),
        (Reply("", "refused", "I can't"), "refused", "I can't"),
        (Reply("", "timed_out", "no answer in 9 s"), "timed_out", "no answer in 9 s"),
        (Reply("", "over_budget", "3 of 4 left"), "over_budget", "3 of 4 left"),
    ],
)
def test_what_did_not_work_is_listed(tmp_path: Path, reply: Reply, failure: str, detail: str) -> None:
    request = Request(passage("Rivers flow."), "title", "en")
    prompt = TEMPLATES.language("en").prompt("title", "Rivers flow.")
    (one,) = written(Canned({prompt: reply}), [request], tmp_path)
    assert (one.text, one.failure) == ("", failure)
    assert one.detail.startswith(detail)


def test_languages_without_templates_and_odd_numbers_are_one_line(tmp_path: Path) -> None:
    chat = Canned()
    requests = [Request(passage("Rivers flow."), "title", "en"), Request(passage("?", "xx"), "title", "xx")]
    with pytest.raises(UserError, match=r"no templates in xx"):
        written(chat, requests, tmp_path)
    assert chat.asked == []
    with pytest.raises(UserError, match=r"^data_source\.generator\.max_passage_characters=0: expected a whole number"):
        ChatGenerator(chat, TEMPLATES, None, tmp_path, 0)


def test_identity_names_what_is_written_by(tmp_path: Path) -> None:
    generator = ChatGenerator(Canned(), TEMPLATES, None, tmp_path, 100)
    assert generator.name == "canned"
    assert json.loads(json.dumps(generator.identity)) == generator.identity
    assert generator.identity["templates"] == TEMPLATES.fingerprint
    for other in (
        ChatGenerator(Canned(seed=1), TEMPLATES, None, tmp_path, 100),
        ChatGenerator(Canned(), TEMPLATES, None, tmp_path, 9),
    ):
        assert other.identity != generator.identity


def test_examples_go_before_as_turns_and_count_for_what_is_kept(tmp_path: Path, corpus: Path) -> None:
    class Recording(Canned):
        def replies(self, prompts, engine):  # type: ignore[no-untyped-def]
            self.turns = list(prompts)
            return super().replies(prompts, engine)

    settings = {"tasks": ["field_help"], "per_prompt": 2, "max_passage_characters": 400, "seed": 0}
    examples = Examples({"pairs": corpus}, **settings)  # type: ignore[arg-type]
    query = SourcePassage("Was hilft?", "", "de", "g", "made up", is_query=True)
    requests = [Request(passage("Rivers flow."), "title", "en"), Request(query, "document", "de")]
    chat = Recording()
    with_examples = ChatGenerator(chat, TEMPLATES, examples, tmp_path, 100)
    assert len(list(with_examples.generate(requests, LOCAL))) == 2
    (shown, wanted), _ = examples.of("en")
    first, second = sorted(chat.turns, key=lambda turns: "Was hilft?" in turns[-1])
    english = TEMPLATES.language("en")
    assert len(first) == len(second) == 5
    assert first[:2] == (english.prompt("title", shown), json.dumps({"text": wanted}))
    assert first[-1] == english.prompt("title", "Rivers flow.")
    (shown, wanted), _ = examples.of("de")
    assert second[:2] == (
        TEMPLATES.language("de").prompt("document", wanted), json.dumps({"text": shown}, ensure_ascii=False)
    )  # fmt: skip
    without = ChatGenerator(chat, TEMPLATES, None, tmp_path, 100)
    assert without.identity != with_examples.identity
    assert sorted(map(len, (list(without.generate(requests, LOCAL)), chat.turns))) == [2, 2]  # nothing was kept of it


braceless = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="{"))


@given(braceless, st.text(), braceless, st.booleans(), st.booleans())
def test_a_text_is_found_whatever_stands_around_its_object(
    before: str, text: str, after: str, escaped: bool, fenced: bool
) -> None:
    answer = json.dumps({"why": {"a": 1}, "text": text}, ensure_ascii=escaped, indent=2 if fenced else None)
    if fenced:
        answer = f"```json\n{answer}\n```"
    assert answered_text(before + answer + after) == text.strip()


pieces = st.sampled_from(
    ['{"text": "a"}', "{", "}", '"', '{"text": ', '"text"', ":", "\\", "```", "null", "[", "]", "x"]
)


@given(st.one_of(st.text(), st.lists(pieces).map("".join)))
def test_whatever_a_model_says_is_a_text_or_malformed(content: str) -> None:
    try:
        text = answered_text(content)
    except MalformedError as error:
        text, shown = None, str(error)
    if text is None:
        assert "\n" not in shown
        return
    start = content.index("{")
    ends = [end for end in range(start, len(content) + 1) if parses(content[start:end])]
    assert json.loads(content[start : ends[0]])["text"].strip() == text
    assert "{" not in content[ends[0] :]


def parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "content",
    ['{"text": "a"} {"text": "b"}', '{"note": {"text": "x"}, "te', '{"text": "\\ud800"}', '{"text": ' * 100_000,
     '["a"]', '{"text": ["a"]}', '{"text": "a"', '{"texts": "a"}'],
)  # fmt: skip
def test_what_cannot_be_told_is_malformed(content: str) -> None:
    with pytest.raises(MalformedError):
        answered_text(content)


GENERATE = """
import json, logging, sys
from pathlib import Path
from retrofit.engine import LOCAL
from retrofit.synthesis.chat_generator import ChatGenerator
from retrofit.synthesis.openai_chat import OpenAIChat
from retrofit.synthesis.examples import Examples
from retrofit.synthesis.records import Request, SourcePassage
from retrofit.synthesis.templates import Templates

logging.basicConfig(level=logging.INFO)
url, templates, cache, count = sys.argv[1:]
chat = OpenAIChat(
    model="m", base_url=url, api_key_variable=None, temperature=0, top_p=None, max_tokens=50, seed=0,
    structured="json_schema", concurrency=4, timeout_seconds=20, retries=5, max_total_tokens=None, max_cost=None,
    price_per_million_prompt_tokens=None, price_per_million_completion_tokens=None,
)
requests = [Request(SourcePassage(f"Passage {n}", "", "en", "g", "s"), "title", "en") for n in range(int(count))]
generator = ChatGenerator(chat, Templates(Path(templates)), None, Path(cache), 100)
found = [(one.request.passage.text, one.text, one.failure, one.template) for one in generator.generate(requests, LOCAL)]
print(json.dumps(sorted(found)))
"""


def start(server: FaultServer, cache: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", GENERATE, server.url, str(TEMPLATES.folder), str(cache), str(count)], encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "no_proxy": "127.0.0.1"},
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> tuple[Any, str]:
    output, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    return json.loads(output), log


def test_a_killed_generation_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("openai")

    def rarely(prompt: str, turn: int) -> str:
        return ("429", "drop_within")[prompt[-1] == "7"] if turn == 0 and prompt[-1] in "37" else ""

    count, concurrency = 60, 4
    with FaultServer() as server:
        whole, _ = result(start(server, tmp_path / "whole", count))
    with FaultServer(rarely, seconds=0.03) as server:
        process = start(server, tmp_path / "killed", count)
        waited = time.monotonic()
        while len(server.answered) < 20:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() - waited < 60
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(0.2)  # what the server has begun ends
        answered_before, received_before = list(server.answered), len(server.received)
        connection = sqlite3.connect(tmp_path / "killed" / "replies" / "replies.sqlite")
        stored = {prompt for (prompt,) in connection.execute("SELECT prompt FROM replies")}
        connection.close()
        assert 20 - concurrency <= len(stored) < count
        # Of what the server has sent, at most the answers in flight were not on the disk.
        assert stored <= set(answered_before)
        assert len(set(answered_before) - stored) <= concurrency

        again, log = result(start(server, tmp_path / "killed", count))
        assert f"m: {count - len(stored)} of {count} prompts to ask" in log
        assert not stored & set(server.received[received_before:])
        repeated = Counter(server.answered) - Counter(set(server.answered))
        assert sum(repeated.values()) <= concurrency
        assert server.most_in_flight <= concurrency
    assert again == whole
    assert {(text, failure, template) for _, text, failure, template in whole} == {
        (text_for(TEMPLATES.language("en").prompt("title", f"Passage {n}")), None, "en/write_title")
        for n in range(count)
    }  # fmt: skip


def test_two_processes_at_once_pay_once(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    with FaultServer(seconds=0.05) as server:
        both = [start(server, tmp_path, 60) for _ in range(2)]
        (first, log), (second, other_log) = map(result, both)
        assert first == second
        assert Counter(server.answered) == Counter(set(server.answered))
        assert len(server.answered) == 60
    assert "another process is asking m: waiting until it is done" in log + other_log
