"""What any language model looks like to synthesis: prompts in, replies out as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from retrofit.engine import Engine
from retrofit.synthesis.records import Failure

Prompt = tuple[str, ...]
"""The turns of a conversation that a reply is asked to: the user's, the model's, and so on to the user's last."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a language model answered to a prompt.

    Attributes:
        content: its text as it is; empty where it failed.
        failure: why there is none (``refused``, ``timed_out``, ``unreachable``, ``over_budget``); None where there is.
        detail: what was found instead, in a few words and without secrets.
        day: when it came, ``YYYY-MM-DD``.
        prompt_tokens: tokens read; 0 where unknown.
        completion_tokens: tokens written; 0 where unknown.
    """

    content: str
    failure: Failure | None = None
    detail: str = ""
    day: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatModel(Protocol):
    """A language model that answers prompts.

    Attributes:
        name: how provenance calls it.
        identity: everything its replies depend on besides the prompt (model, sampling); JSON-like.
    """

    name: str
    identity: Mapping[str, Any]

    def replies(self, prompts: Sequence[Prompt], engine: Engine) -> Iterator[tuple[int, Reply]]:
        """Yield a reply to each prompt with the prompt's position, as they come, in any order.

        Args:
            prompts: what is asked; the answer asked for is a JSON object with the text ``text``.
            engine: where the work is done, if it is done here.
        """
