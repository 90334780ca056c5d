"""Settings of a model behind a server: which cannot be, and what replies depend on."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import pytest

from retrofit.engine import LOCAL
from retrofit.errors import UserError
from retrofit.synthesis.openai_chat import OpenAIChat

KEY = "sk-made-up/0123456789+abcdefghij=KLMNOPQRSTUVWXYZ"
SETTINGS: dict[str, Any] = {
    "model": "made-up-1", "base_url": None, "api_key_variable": "OPENAI_API_KEY", "temperature": 0.5, "top_p": None,
    "max_tokens": 50, "seed": 3, "structured": "json_schema", "concurrency": 4, "timeout_seconds": 20, "retries": 4,
    "max_total_tokens": None, "max_cost": None, "price_per_million_prompt_tokens": None,
    "price_per_million_completion_tokens": None,
}  # fmt: skip


def exception_text(error: BaseException | None) -> str:
    """An exception with all that hangs on it, shown or not."""
    if error is None:
        return ""
    text = "".join(traceback.format_exception(error)) + repr(error) + str(error.args)
    return text + exception_text(error.__cause__) + exception_text(error.__context__)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"concurrency": 0}, "concurrency=0: expected a whole number of 1 or more, at most 1000"),
        ({"max_tokens": None}, "max_tokens=null: expected a whole number of 1 or more"),
        ({"timeout_seconds": "ten"}, "timeout_seconds=ten: expected a number of 0.001 or more"),
        ({"retries": True}, "retries=True: expected a whole number of 0 or more"),
        ({"top_p": 2}, "top_p=2: expected a number of 0 or more, at most 1, or null"),
        ({"max_total_tokens": 0}, "max_total_tokens=0: expected a whole number of 1 or more, or null"),
        ({"max_cost": 1.0}, "price_per_million_prompt_tokens=null: expected a number of 0 or more"),
        ({"structured": "xml"}, "structured=xml: expected one of json_schema, json_object, none"),
        ({"api_key_variable": None}, "api_key_variable=null: expected a name unless base_url names another server"),
        ({"api_key_variable": KEY}, "api_key_variable: expected the name of an environment variable in capital"),
        ({"base_url": "localhost:8000"}, "base_url: expected an address such as http://localhost:8000/v1"),
        ({"base_url": "http://host:port/v1"}, "base_url: expected an address such as "),
        ({"base_url": f"https://user:{KEY}@host/v1"}, "base_url: expected an address without credentials"),
        ({"base_url": "https://secret/with/slash@host/v1"}, "base_url: expected an address without credentials"),
        ({"base_url": f"https://host/v1?key={KEY}"}, "base_url: expected an address without credentials"),
        ({"base_url": f"https://host/v1?access_token={KEY}"}, "base_url: expected an address without credentials"),
        ({"base_url": f"https://host/v1?v=1&apiKey={KEY}"}, "base_url: expected an address without credentials"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_without_secrets(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        OpenAIChat(**{**SETTINGS, **settings})
    assert str(caught.value).startswith(f"data_source.*.chat.{line}")
    assert KEY not in exception_text(caught.value)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"generator=openai needs the OpenAI client: pip install -e '\.\[openai\]'"):
        list(OpenAIChat(**SETTINGS).replies(["What?"], LOCAL))


def test_identity_names_what_replies_depend_on() -> None:
    same = {"concurrency": 9, "timeout_seconds": 9, "retries": 9, "max_total_tokens": 9, "api_key_variable": "OTHER"}
    identity = OpenAIChat(**SETTINGS).identity
    assert OpenAIChat(**{**SETTINGS, **same}).identity == identity
    other = {
        "model": "other", "base_url": "http://other/v1", "temperature": 0.1, "top_p": 0.1, "max_tokens": 9, "seed": 9,
        "structured": "none",
    }  # fmt: skip
    assert set(other) == set(identity)
    for name, value in other.items():
        assert OpenAIChat(**{**SETTINGS, name: value}).identity != identity
    slash = OpenAIChat(**{**SETTINGS, "base_url": "http://other/v1/"})
    assert slash.identity == OpenAIChat(**{**SETTINGS, "base_url": "http://other/v1"}).identity
