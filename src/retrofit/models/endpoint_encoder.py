"""An embedding model behind an OpenAI-compatible server: the official one, a gateway, or one on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from retrofit.errors import UserError
from retrofit.models.bi_encoder import Kind, Precision
from retrofit.models.model_size import ModelSize
from retrofit.models.openai_server import NEEDS_NO_KEY, OpenAIServer, require_client, shown

CONFIG = "models.*.evaluated"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """Where an embedding model is asked, and how.

    Attributes:
        model: as the server calls it.
        base_url: of the server, such as ``http://localhost:8000/v1``; None is the official one.
        api_key_variable: the environment variable with the key; None where the server needs none.
        dimensions: components that are asked for; None leaves it to the server.
        prompts: what is put before a query and before a passage.
        batch_size: texts of a request.
        timeout_seconds: for one try.
        retries: of a request that is turned away for now (429), fails (5xx), takes too long or is lost.
    """

    model: str
    base_url: str | None
    api_key_variable: str | None
    dimensions: int | None
    prompts: Mapping[Kind, str]
    batch_size: int
    timeout_seconds: float
    retries: int

    kind: ClassVar[str] = "endpoint"

    def __post_init__(self) -> None:
        """Check the settings; nothing is sent, and no key is read.

        Raises:
            UserError: a setting cannot be so; a secret in it is not shown.
        """
        least: dict[str, tuple[Any, float]] = {
            "batch_size": (self.batch_size, 1),
            "retries": (self.retries, 0),
            "dimensions": (1 if self.dimensions is None else self.dimensions, 1),
            "timeout_seconds": (self.timeout_seconds, 0.001),
        }
        for name, (value, smallest) in least.items():
            kinds = int | float if name == "timeout_seconds" else int
            if not isinstance(value, kinds) or isinstance(value, bool) or not value >= smallest:
                number = "a number" if name == "timeout_seconds" else "a whole number"
                raise UserError(f"{CONFIG}.{name}={value}: expected {number} of {smallest:g} or more")
        self._server()

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on, no credentials; JSON-like."""
        return {
            "endpoint": self._server().base_url,
            "model": self.model,
            "dimensions": self.dimensions,
            "prompts": dict(self.prompts),
        }

    @property
    def size(self) -> ModelSize:
        """The dimension, where it is asked for; the rest is the server's affair."""
        return ModelSize(None, self.dimensions, None)

    def load(self, precision: Precision = "float32") -> EndpointEncoder:  # noqa: ARG002 -- the server's affair
        """Return the encoder, with the key that the environment holds.

        Raises:
            UserError: the client is not installed, or there is no key.
        """
        require_client("model=openai_embeddings")
        server = self._server()
        return EndpointEncoder(self, server, server.key())

    def _server(self) -> OpenAIServer:
        return OpenAIServer.of(self.base_url, self.api_key_variable, CONFIG)


class EndpointEncoder:
    """Asks a server for embeddings, one batch after another."""

    def __init__(self, endpoint: Endpoint, server: OpenAIServer, key: str | None) -> None:
        """Prepare the client; nothing is sent.

        Args:
            endpoint: how to ask.
            server: whom to ask.
            key: its key; None where it needs none.
        """
        import openai

        self._endpoint = endpoint
        self._server = server
        self._key = key
        self._dimension: int | None = endpoint.dimensions
        self._client = openai.OpenAI(
            api_key=key or NEEDS_NO_KEY, base_url=server.base_url, timeout=endpoint.timeout_seconds,
            max_retries=endpoint.retries,
        )  # fmt: skip

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        token_budget: int,  # noqa: ARG002 -- the server's affair, as the precision is
        precision: Precision,  # noqa: ARG002
        label: str,
    ) -> np.ndarray:
        """Return the embeddings of texts, float32 ``[len(texts), dimension]``, made unit length here.

        Args:
            texts: queries or passages, without prompts.
            kind: which prompt they get.
            token_budget: not used.
            precision: not used.
            label: where given, what is encoded, for the log.

        Raises:
            UserError: the server refuses, does not answer, or answers with something else than a vector of finite
                numbers for each text, all of one dimension.
        """
        if label:
            log.info("%s: asking %s for %d texts", label, self._server.base_url, len(texts))
        prompt = self._endpoint.prompts[kind]
        parts = [self._ask([prompt + text for text in batch]) for batch in _batches(texts, self._endpoint.batch_size)]
        return np.concatenate(parts) if parts else np.zeros((0, self._dimension or 0), dtype=np.float32)

    def _ask(self, texts: list[str]) -> np.ndarray:
        import openai

        # "float" on purpose: left out, the client asks for base64, which not every server knows.
        more: dict[str, Any] = {} if self._endpoint.dimensions is None else {"dimensions": self._endpoint.dimensions}
        try:
            reply = self._client.embeddings.create(
                model=self._endpoint.model, input=texts, encoding_format="float", **more
            )
        except openai.APIStatusError as error:
            setting = "api_key_variable" if error.status_code in (401, 402) else "model"
            raise self._refused(setting, f"{error.status_code}: {error.message}") from None
        except openai.APITimeoutError:
            raise self._refused("timeout_seconds", "no answer in time") from None
        except openai.APIError as error:
            raise self._refused("base_url", f"{type(error).__name__}: {error.__cause__ or error}") from None
        except ValueError as error:  # an answer that is not JSON, or not of the shape that the client expects
            raise self._refused("base_url", f"not an answer of an embedding endpoint: {error}") from None
        return self._checked(reply, len(texts))

    def _checked(self, reply: Any, asked: int) -> np.ndarray:
        try:
            rows = sorted(reply.data, key=lambda row: row.index)
            numbered = [row.index for row in rows] == list(range(asked))
            vectors = np.array([row.embedding for row in rows], dtype=np.float32)
        except (AttributeError, TypeError, ValueError) as error:
            raise self._refused("base_url", f"not an answer of an embedding endpoint: {error}") from None
        if not numbered:
            raise self._refused("model", f"expected one vector for each of {asked} texts, found {len(rows)}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise self._refused("model", "expected finite numbers that are not all 0")
        self._dimension = self._dimension or vectors.shape[1]
        if vectors.shape[1] != self._dimension:
            setting = "dimensions" if self._endpoint.dimensions else "model"
            raise self._refused(setting, f"expected {self._dimension} components, found {vectors.shape[1]}")
        unit: np.ndarray = vectors / lengths
        return unit

    def _refused(self, setting: str, detail: str) -> UserError:
        value = getattr(self._endpoint, setting)
        where = f"{CONFIG}.{setting}={'null' if value is None else value}"
        return UserError(f"{where}: the server at {self._server.base_url}: {shown(detail, self._key)}")


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))
