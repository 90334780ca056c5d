"""An OpenAI-compatible server: its address, its key, and what may be shown of what it says.

The key is read from the environment when there is something to ask. It is nowhere but in the requests.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from dataclasses import dataclass

from retrofit.credentials import has_credentials
from retrofit.errors import UserError

OFFICIAL = "https://api.openai.com/v1"
NEEDS_NO_KEY = "none"
"""What is sent where no key is needed; the client wants to send one."""

_SECRET_CHARACTERS = 8  # a shorter key, such as EMPTY, is a word that some server wants to see
_SHARED_CHARACTERS = 12  # that many of a key in a row are as good as the key; fewer are a prefix that all keys have
_DETAIL_CHARACTERS = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenAIServer:
    """A server, and the environment variable that holds its key.

    Attributes:
        base_url: its address, without a slash at the end.
        api_key_variable: the environment variable with the key; None where none is needed.
        setting: where the configuration has these two, for messages.
    """

    base_url: str
    api_key_variable: str | None
    setting: str

    @classmethod
    def of(cls, base_url: str | None, api_key_variable: str | None, setting: str) -> OpenAIServer:
        """Check an address and the name of a variable; nothing is sent, and no key is read.

        Args:
            base_url: such as ``http://localhost:8000/v1``; None is the official server.
            api_key_variable: the environment variable with the key; None where the server needs none.
            setting: where the configuration has these two.

        Raises:
            UserError: one of them cannot be so; a secret in it is not shown.
        """
        if api_key_variable is None and base_url is None:
            raise UserError(f"{setting}.api_key_variable=null: expected a name unless base_url names another server")
        if api_key_variable is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", api_key_variable):
            # What stands there may well be the key, so it is not shown.
            expected = "the name of an environment variable in capital letters, not the key itself"
            raise UserError(f"{setting}.api_key_variable: expected {expected}")
        return cls(OFFICIAL if base_url is None else _without_slash(base_url, setting), api_key_variable, setting)

    def key(self) -> str | None:
        """Return the key from the environment; None where none is needed.

        Raises:
            UserError: it is not set, or is no key.
        """
        if self.api_key_variable is None:
            return None
        setting = f"{self.setting}.api_key_variable={self.api_key_variable}"
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key:
            raise UserError(f"{setting}: not set in the environment; expected it to hold the key of the server")
        if not re.fullmatch("[!-~]+", key):  # the client would complain of such a header by showing it
            raise UserError(f"{setting}: what it holds has blanks or letters that no key has")
        url = urllib.parse.urlsplit(self.base_url)
        if url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            log.warning("%s.base_url=%s: the key is sent there unencrypted", self.setting, self.base_url)
        return key


def require_client(asked_by: str) -> None:
    """Return if the ``openai`` client is installed, after telling it not to log a line, or ten, a request.

    Args:
        asked_by: the choice that needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise UserError(f"{asked_by} needs the OpenAI client: pip install -e '.[openai]'") from error
    for library in ("openai", "httpx2", "httpcore2"):
        logger = logging.getLogger(library)
        if logger.level == logging.NOTSET:  # else someone wants to see them
            logger.setLevel(logging.WARNING)


def shown(text: str, key: str | None) -> str:
    """Return the start of what a server said on one line, without the key."""
    line = " ".join(without_key(text, key).split())
    return line if len(line) <= _DETAIL_CHARACTERS else line[: _DETAIL_CHARACTERS - 1] + "…"


def without_key(text: str, key: str | None) -> str:
    """Return text of a server without the key, nor halves of surrogate pairs, which no file can hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if key is None or len(key) < _SECRET_CHARACTERS:
        return text
    for form in {key, urllib.parse.quote(key, safe="")}:
        text = _without(text, form)
    return text


def _without(text: str, secret: str) -> str:
    """Return a text with ``***`` in place of whatever it shares with a secret."""
    width = min(len(secret), _SHARED_CHARACTERS)
    parts = {secret[start : start + width] for start in range(len(secret) - width + 1)}
    kept, start = [], 0
    while start < len(text):
        if text[start : start + width] not in parts:
            kept.append(text[start])
            start += 1
            continue
        while text[start : start + width] in parts:
            start += 1
        kept.append("***")
        start += width - 1
    return "".join(kept)


def _without_slash(base_url: str, setting: str) -> str:
    """Return an address of a server without a slash at its end; one with credentials is refused, and not shown."""
    try:
        parts = urllib.parse.urlsplit(base_url)
        proper = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        proper = False
    if "@" in base_url or has_credentials(base_url):
        expected = "an address without credentials, and the key in the variable that api_key_variable names"
        raise UserError(f"{setting}.base_url: expected {expected}")
    if not proper:
        raise UserError(f"{setting}.base_url: expected an address such as http://localhost:8000/v1")
    return base_url.rstrip("/")
