"""Embeddings from a real server on loopback that does as told, also wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from retrofit.errors import UserError
from retrofit.models.endpoint_encoder import Endpoint

pytest.importorskip("openai")

KEY = "sk-made-up/0123456789+abcdefghij=KLMNOPQRSTUVWXYZ"
SETTINGS: dict[str, Any] = {
    "model": "made-up-1", "base_url": None, "api_key_variable": "OPENAI_API_KEY", "dimensions": None,
    "prompts": {"query": "ask: ", "passage": ""}, "batch_size": 4, "timeout_seconds": 5, "retries": 2,
}  # fmt: skip
TEXTS = [f"text {number}" for number in range(10)]


def vector(text: str) -> list[float]:
    return [float(len(text)), float(text[-1]), 2.0]


class Server:
    """Answers as told; keeps what it was asked.

    Attributes:
        url: where it is.
        bodies: requests as they came.
        faults: of the next requests, one each; empty ones are none.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[str] = []

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, bytes]:
        self.bodies.append(body)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            return int(fault), json.dumps({"error": {"message": f"no,\n{key}", "code": None}}).encode()
        vectors = [vector(text) for text in body["input"]]
        changed: dict[str, Callable[[], Any]] = {
            "few": vectors.pop, "zero": lambda: vectors.append([0.0] * len(vectors.pop())),
            "nan": lambda: vectors.append([float("nan")] * len(vectors.pop())),
            "short": lambda: vectors.append(vectors.pop()[:2]), "longer": lambda: [v.append(1.0) for v in vectors],
        }  # fmt: skip
        if fault in changed:
            changed[fault]()
        rows = [{"object": "embedding", "index": place, "embedding": v} for place, v in enumerate(vectors)]
        reply = {"object": "list", "model": "m", "data": rows[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        return 200, {"words": b"hello", "other": b'{"choices": []}'}.get(fault) or json.dumps(reply).encode()


@contextmanager
def running() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, data = server.answer(body, self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    with ExitStack() as stack:
        yield stack.enter_context(running())


def encode(server: Server, texts: list[str], kind: Any = "passage", **settings: Any) -> np.ndarray:
    endpoint = Endpoint(**{**SETTINGS, "base_url": server.url, **settings})
    return endpoint.load().encode(texts, kind, 2048, "float32", "")


def test_texts_are_asked_in_batches_with_their_prompt_and_vectors_made_unit_length(server: Server) -> None:
    found = encode(server, TEXTS, "query", dimensions=3)
    expected = np.array([vector(f"ask: {text}") for text in TEXTS])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert found.dtype == np.float32
    assert [len(body["input"]) for body in server.bodies] == [4, 4, 2]
    assert {body["dimensions"] for body in server.bodies} == {3}
    encode(server, TEXTS[:1])
    assert server.bodies[-1]["input"] == TEXTS[:1]
    assert "dimensions" not in server.bodies[-1]
    assert KEY not in json.dumps(server.bodies)


def test_what_goes_wrong_for_now_is_tried_again(server: Server) -> None:
    server.faults = ["429", "500", "", "503"]
    assert encode(server, TEXTS).shape == (10, 3)
    assert len(server.bodies) == 6


@pytest.mark.parametrize(
    ("faults", "settings", "line"),
    [
        (["500"] * 3, {}, "model=made-up-1: the server at URL: 500: "),
        (["401"], {}, "api_key_variable=OPENAI_API_KEY: the server at URL: 401: "),
        (["404"], {}, "model=made-up-1: the server at URL: 404: "),
        (["few"], {}, "model=made-up-1: the server at URL: expected one vector for each of 4 texts, found 3"),
        (["zero"], {}, "model=made-up-1: the server at URL: expected finite numbers that are not all 0"),
        (["nan"], {}, "model=made-up-1: the server at URL: expected finite numbers that are not all 0"),
        (["short"], {}, "base_url=URL: the server at URL: not an answer of an embedding endpoint"),
        (["", "longer"], {}, "model=made-up-1: the server at URL: expected 3 components, found 4"),
        ([], {"dimensions": 5}, "dimensions=5: the server at URL: expected 5 components, found 3"),
        (["words"], {}, "base_url=URL: the server at URL: "),
        (["other"], {}, "base_url=URL: the server at URL: "),
    ],
)
def test_what_stays_wrong_is_one_line_without_the_key(
    server: Server, faults: list[str], settings: dict[str, Any], line: str
) -> None:
    server.faults = faults
    with pytest.raises(UserError) as caught:
        encode(server, TEXTS, **settings)
    message = str(caught.value)
    assert message.startswith(f"models.*.evaluated.{line.replace('URL', server.url)}")
    assert "\n" not in message
    assert KEY not in message
    assert caught.value.__cause__ is None


def test_a_server_that_is_not_there_is_one_line(server: Server) -> None:
    with pytest.raises(UserError, match=r"^models\.\*\.evaluated\.base_url=\S+: the server at \S+: APIConnectionError"):
        encode(server, TEXTS, base_url="http://127.0.0.1:9/v1", retries=0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"batch_size": 0}, "batch_size=0: expected a whole number of 1 or more"),
        ({"timeout_seconds": "ten"}, "timeout_seconds=ten: expected a number of 0.001 or more"),
        ({"dimensions": True}, "dimensions=True: expected a whole number of 1 or more"),
        ({"api_key_variable": KEY}, "api_key_variable: expected the name of an environment variable"),
        ({"base_url": f"https://user:{KEY}@host/v1"}, "base_url: expected an address without credentials"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_without_secrets(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        Endpoint(**{**SETTINGS, **settings})
    assert str(caught.value).startswith(f"models.*.evaluated.{line}")
    assert KEY not in str(caught.value)


def test_identity_names_what_embeddings_depend_on_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    identity = Endpoint(**SETTINGS).identity
    same = {"batch_size": 9, "timeout_seconds": 9, "retries": 9, "api_key_variable": "OTHER"}
    assert Endpoint(**{**SETTINGS, **same}).identity == identity
    other = {"model": "o", "base_url": "http://o/v1", "dimensions": 9, "prompts": {"query": "", "passage": ""}}
    assert all(Endpoint(**{**SETTINGS, name: value}).identity != identity for name, value in other.items())
    assert KEY not in json.dumps(identity)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set in the environment"):
        Endpoint(**SETTINGS).load()
