"""From interface text with markup and placeholders to plain text."""

from __future__ import annotations

import html
import re
import unicodedata

_MARKED = re.compile(r"[\[`*_<&{#\-\u200b\ufeff]")
_INVISIBLE = re.compile("[\u200b\ufeff]")  # but not the joiners U+200C and U+200D, which Persian and emoji need
_FENCE = re.compile(r"```[a-z]*\n|`+")
# Translators put spaces into addresses and full-width brackets around them; but "[optional] (see below)" is no link.
_LINK = re.compile(
    r"!?\[([^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|（[^（）]*）|\s\(\s*(?:https?:|\{)[^()]*\))", re.IGNORECASE
)
_BLOCK_TAG = re.compile(r"</?(?:br|p|li|ul|ol|div|h\d|hr|pre)\b[^<>]*>", re.IGNORECASE)
# Only tags of HTML: "<token>" and "<domain>.<service>" are text that a reader is meant to see.
_INLINE_TAG = re.compile(r"</?(?:a|b|i|u|em|strong|code|span|small|sup|sub|ha-[a-z-]+)\b[^<>]*>", re.IGNORECASE)
_BOLD = re.compile(r"\*\*|(?<!\w)__(?=\w)|(?<=\w)__(?!\w)")
_ITALIC = re.compile(r"(?<![\w*])\*([^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])")
_LINE_MARK = re.compile(r"^[ \t]*(?:[-*•]|#{1,6})[ \t]+", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\s*([\w.-]+)\s*\}")


def normalise(text: str) -> str:
    """Return a text in normal form C with single spaces, otherwise as it is."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean(text: str) -> str:
    """Return interface text as plain text in normal form C, on one line.

    Links become their text, code and emphasis lose their marks, HTML tags and the marks of lists and headings go. A
    ``{placeholder}`` is filled with its own words (``{device_name}`` reads "device name"): the real value is known to
    a running program only, and leaving a hole would break the sentence in any language.
    """
    if _MARKED.search(text):
        text = _INVISIBLE.sub("", text)
        text = _FENCE.sub("", text)
        text = _LINK.sub(r"\1", text)
        text = _BLOCK_TAG.sub(" ", text)
        text = _INLINE_TAG.sub("", text)
        text = _BOLD.sub("", text)
        text = _LINE_MARK.sub("", text)
        text = _ITALIC.sub(r"\1", text)
        text = html.unescape(text)
        text = _PLACEHOLDER.sub(lambda found: found[1].replace("_", " "), text)
    return normalise(text)
