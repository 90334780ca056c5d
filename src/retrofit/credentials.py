"""Addresses that carry a secret: it would be written to configurations, logs and run folders with them."""

from __future__ import annotations

import re
import urllib.parse

_SECRET_NAMES = ("key", "token", "secret", "signature", "sig", "password")
"""How the names of query parameters end that hold one."""


def has_credentials(text: str) -> bool:
    """Return whether a text holds a URL with a user's name or password in it, or a secret among its parameters."""
    return any(_in_address(address) for address in re.findall(r"\w+://\S+", text))


def _in_address(address: str) -> bool:
    host, _, query = address.partition("?")
    # A password with a slash ends what is parsed as the host.
    if re.search(r"://[^/]*@", host) or re.search(r"://[^/@]*:[^@]*@", host):
        return True
    parameters = urllib.parse.parse_qsl(query, keep_blank_values=True)
    names = re.findall("[a-z]+", " ".join(name for name, _ in parameters).lower())
    return any(name.endswith(_SECRET_NAMES) for name in names)
