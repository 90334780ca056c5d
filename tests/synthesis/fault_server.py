"""A chat-completions server on loopback that goes wrong by plan, and keeps account of what it was asked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Plan = Callable[[str, int], str]
"""From a prompt and the number of its try, from 0, to a fault; empty for none."""


def turns(prompts: Iterable[str]) -> list[tuple[str]]:
    """Prompts of a single turn."""
    return [(prompt,) for prompt in prompts]


def text_for(prompt: str) -> str:
    """What the server writes for a prompt."""
    return f"answer to {prompt[-80:]}"


def _error(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "made_up", "param": None, "code": None, **more}}


class FaultServer:
    """The server; a context manager.

    Attributes:
        received: prompts as they came, repeated ones too.
        answered: prompts whose answer was sent to the last byte.
        bodies: requests as they came.
        made: tokens of the answers that were made, read and written, also of those that were lost on the way.
        most_in_flight: most requests at once.
    """

    def __init__(self, plan: Plan = lambda prompt, turn: "", seconds: float = 0.0, retry_after: str = "0.01") -> None:
        """Take the plan, the seconds an answer takes, and what a 429 or 500 says of when to try again."""
        self.plan, self.seconds, self.retry_after = plan, seconds, retry_after
        self.received: list[str] = []
        self.answered: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.made = [0, 0]
        self.in_flight = self.most_in_flight = 0
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.turns: Counter[str] = Counter()
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *arguments: object) -> None:
                pass  # whoever is killed or closes early leaves broken pipes

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with self.lock:
            self.received.append(prompt)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            fault = self.plan(prompt, self.turns[prompt])
            self.turns[prompt] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self._answer(handler, prompt, fault)
        finally:
            with self.lock:
                self.in_flight -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, prompt: str, fault: str) -> None:
        key = handler.headers["Authorization"]
        errors: dict[str, tuple[int, dict[str, Any]]] = {
            "429": (429, _error(f"slow down, {key}")),
            "500": (500, _error(f"cannot serve {key}")),
            "401": (401, _error(f"Incorrect API key provided: {key}", code="invalid_api_key")),
            "403": (403, _error("not yours")),
            "404": (404, _error("The model does not exist", code="model_not_found")),
            "400": (400, _error("bad\nrequest")),
            "400 temperature": (400, _error("Unsupported value", param="temperature")),
            "400 filter": (400, _error("filtered", code="content_filter")),
            "400 length": (400, _error("This model's maximum context length is 8 tokens")),
            "quota": (429, _error("You exceeded your current quota", code="insufficient_quota")),
        }
        if fault in errors:
            status, error = errors[fault]
            self._send(handler, status, json.dumps(error).encode())
            return
        if fault == "drop_before":
            self._hang_up(handler)
            return
        message: dict[str, Any] = {"role": "assistant", "content": json.dumps({"text": text_for(prompt)})}
        reason = "stop"
        if fault in ("malformed", "echo"):
            message["content"] = f'{{"text": 3, "key": "{key}"}}' if fault == "echo" else "I'd rather chat."
        elif fault == "fenced":
            message["content"] = f"Sure:\n```json\n{message['content']}\n```\n"
        elif fault == "refusal":
            message |= {"content": None, "refusal": "I can't help with that."}
        elif fault == "content_filter":
            message["content"], reason = "", "content_filter"
        elif fault == "cut":
            message["content"], reason = message["content"][:12], "length"
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": 11}
        choices = [] if fault == "no_choices" else [{"index": 0, "message": message, "finish_reason": reason}]
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
        data = json.dumps({**completion, "usage": usage}).encode()
        with self.lock:
            self.made[0] += usage["prompt_tokens"]
            self.made[1] += usage["completion_tokens"]
        self.over.wait(30 if fault == "slow" else self.seconds)
        if fault == "drip":  # a byte now and then: no pause is long, the whole is
            self._head(handler, 200, 1000)
            while not self.over.wait(0.05):
                handler.wfile.write(b" ")
            return
        if fault == "drop_within":
            self._head(handler, 200, len(data))
            handler.wfile.write(data[: len(data) // 2])
            self._hang_up(handler)
            return
        self._send(handler, 200, data[: len(data) // 2] if fault == "truncated" else data)
        with self.lock:
            self.answered.append(prompt)
        if fault == "drop_after":
            self._hang_up(handler)

    def _head(self, handler: BaseHTTPRequestHandler, status: int, length: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(length))
        if status in (429, 500):
            handler.send_header("Retry-After", self.retry_after)
        handler.end_headers()
        handler.wfile.flush()

    def _send(self, handler: BaseHTTPRequestHandler, status: int, data: bytes) -> None:
        self._head(handler, status, len(data))
        handler.wfile.write(data)
        handler.wfile.flush()

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
