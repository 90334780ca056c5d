"""The prompts that a sentence-transformers folder keeps."""

from __future__ import annotations

from collections.abc import Mapping

PASSAGE_PROMPTS = ("document", "passage", "corpus")
"""Names under which sentence-transformers folders keep what is put before a passage."""


def passage_prompt(prompts: Mapping[str, str | None]) -> str:
    """Return what a model puts before a passage, empty if nothing.

    sentence-transformers writes an empty ``document`` prompt into every folder that has none, and would then use that
    one; a prompt that says something goes before it here.
    """
    return next((prompts[name] or "" for name in PASSAGE_PROMPTS if prompts.get(name)), "")
