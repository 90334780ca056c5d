"""A server that answers ``wandb sync`` as far as the client asks, and keeps what it was sent."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Request:
    """What the client sent.

    Attributes:
        method: of HTTP.
        path: below the server's address.
        headers: by name.
        body: unpacked.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WandbServer:
    """What was sent, as requests and as the service would read them.

    Attributes:
        address: URL of the server.
        requests: all of them, in order.
    """

    address: str = ""
    requests: list[Request] = field(default_factory=list)

    def sync(self, *folders: Path, home: Path) -> subprocess.CompletedProcess[str]:
        """Run ``wandb sync`` on folders of offline runs."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        return subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *map(str, folders)], capture_output=True, encoding="utf-8",
            timeout=300, check=False, cwd=home,
            env={**environment, "HOME": str(home), "WANDB_BASE_URL": self.address, "WANDB_API_KEY": KEY},
        )  # fmt: skip

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """The variables of each GraphQL request of a kind."""
        sent = [json.loads(request.body) for request in self.requests if request.path == "/graphql"]
        return [request["variables"] for request in sent if request["operationName"] == operation]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that was sent last."""
        config = json.loads(self.asked("UpsertBucket")[-1]["config"])
        return {name: entry["value"] for name, entry in config.items()}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of the curve as the service keeps them: what is sent for an offset takes the place of what was."""
        return [json.loads(line) for line in self._lines("wandb-history.jsonl")]

    @property
    def summary(self) -> dict[str, Any]:
        """The summary."""
        summary: dict[str, Any] = json.loads(self._lines("wandb-summary.json")[0])
        return summary

    @property
    def exit_codes(self) -> list[int]:
        """With what the runs ended."""
        return [sent["exitcode"] for sent in self._streamed() if sent.get("complete")]

    def table(self, name: str) -> dict[str, Any]:
        """Columns and data of a table."""
        path = self.summary[name]["path"]
        (body,) = {request.body for request in self.requests if request.path == f"/upload/{path}"}
        table: dict[str, Any] = json.loads(body)
        return table

    @property
    def artefacts(self) -> dict[str, str]:
        """Types of the artefacts by name, without those that hold tables."""
        sent = [asked["input"] for asked in self.asked("CreateArtifact")]
        kinds = {one["artifactCollectionName"]: one["artifactTypeName"] for one in sent}
        return {name: kind for name, kind in kinds.items() if kind != "run_table"}

    @property
    def used(self) -> set[str]:
        """Names of the artefacts that the run was made from."""
        return {asked["input"]["artifactID"] for asked in self.asked("UseArtifact")}

    def manifest(self, artefact: str) -> dict[str, Any]:
        """The files of an artefact by name."""
        (body,) = (request.body for request in self.requests if request.path == f"/upload/manifest/{artefact}")
        contents: dict[str, Any] = json.loads(body)["contents"]
        return contents

    def _streamed(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.requests if request.path.endswith("/file_stream")]

    def _lines(self, file: str) -> list[str]:
        lines: list[str] = []
        for sent in self._streamed():
            if file in sent.get("files", {}):
                chunk = sent["files"][file]
                end = chunk["offset"] + len(chunk["content"])
                lines[chunk["offset"] : end] = chunk["content"]
        return lines

    def answer(self, request: Request) -> Any:
        """What the client is told; only what it reads."""
        if request.path != "/graphql":
            return {}
        asked = json.loads(request.body)
        answers = {
            "UpsertBucket": self._run,
            "CreateArtifact": self._artefact,
            "CreateArtifactManifest": self._manifest,
            "CreateArtifactFiles": self._artefact_files,
            "CommitArtifact": lambda sent: {"commitArtifact": {"artifact": {"id": sent["artifactID"], "digest": ""}}},
            "UseArtifact": lambda sent: {"useArtifact": {"artifact": {"id": sent["input"]["artifactID"]}}},
            "CreateRunFiles": self._run_files,
        }
        answer = answers.get(asked["operationName"], lambda sent: {})
        return {"data": answer(asked.get("variables") or {})}

    def _run(self, sent: dict[str, Any]) -> Any:
        project = {"id": "project", "name": sent["project"], "entity": {"id": "entity", "name": "somebody"}}
        run = {"id": "run", "name": sent["name"], "displayName": sent["displayName"], "project": project}
        return {"upsertBucket": {"bucket": {**run, "historyLineCount": 0}, "inserted": True}}

    def _artefact(self, sent: dict[str, Any]) -> Any:
        name = sent["input"]["artifactCollectionName"]
        artefact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artefact}}

    def _manifest(self, sent: dict[str, Any]) -> Any:
        file = {"id": "file", "uploadUrl": f"{self.address}/upload/manifest/{sent['artifactID']}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": sent["artifactID"], "file": file}}}

    def _artefact_files(self, sent: dict[str, Any]) -> Any:
        nodes = [
            {
                "storagePath": "path", "uploadHeaders": [], "uploadMultipartUrls": None,
                "uploadUrl": f"{self.address}/upload/artefacts/{file['artifactID']}/{file['name']}",
                "artifact": {"id": file["artifactID"]},
            }
            for file in sent["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _run_files(self, sent: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in sent["files"]]
        return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}


@contextmanager
def serving() -> Iterator[WandbServer]:
    """Yield a server that listens, and stop it afterwards."""
    server = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = Request(self.command, self.path, dict(self.headers), body)
            server.requests.append(request)
            answer = json.dumps(server.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 -- the names that http.server looks for

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of a client that hangs up."""

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        server.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
