"""How a local language model's next token is chosen, and when the JSON it writes is complete.

Both are handed to ``generate`` of transformers, which calls them with the tokens so far, int64 ``[replies, tokens]``,
and the scores of the next one, float ``[replies, vocabulary]``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

JSON_PREFIX = '{"text": "'
"""What the model's turn begins with where it is to complete the JSON that is asked for."""

_LIKELIEST = 2048  # sorting a vocabulary of 262,144 costs ten times more, and what lies beyond is noise

# What belongs to a JSON string: anything but a quote, a line break or a lone backslash.
_INSIDE = re.compile(r'(?:[^"\\\n]|\\.)*')


class SeededSampling:
    """Draws each reply's tokens by random numbers of its own, so that no other reply of the block has a say in them.

    The token drawn is left with a score of 0 and all others with minus infinity: a greedy ``generate`` then takes it.

    Attributes:
        temperature: what the scores are divided by, above 0.
        top_p: the likeliest tokens that have this probability together may be drawn, at most 2,048 of them.
    """

    def __init__(
        self, prompts: Sequence[str], width: int, temperature: float, top_p: float, max_tokens: int, seed: int
    ) -> None:
        self.temperature = temperature
        self.top_p = top_p
        self._width = width  # tokens of a prompt with its padding
        self._draws = torch.stack([_uniform(f"{seed}\0{prompt}", max_tokens) for prompt in prompts])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores that leave one token each."""
        probabilities = (scores.float() / self.temperature).softmax(-1)
        likeliest, tokens = probabilities.topk(min(_LIKELIEST, probabilities.shape[-1]), dim=-1)
        up_to = likeliest.cumsum(-1)
        in_nucleus = up_to - likeliest < self.top_p  # the first one always is
        mass = (likeliest * in_nucleus).sum(-1, keepdim=True)
        step = input_ids.shape[1] - self._width
        draw = self._draws[:, step : step + 1].to(mass.device) * mass
        place = torch.minimum((up_to <= draw).sum(-1, keepdim=True), in_nucleus.sum(-1, keepdim=True) - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens.gather(-1, place), 0.0)


def _uniform(name: str, count: int) -> Tensor:
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest()))
    return torch.rand(count, generator=generator)


class ClosingQuote:
    """Ends a reply that began with ``JSON_PREFIX`` where its string ends: at the quote, or at a line break.

    No JSON string has a line break, but a model that was never taught to answer ends a line rather than a string.
    """

    def __init__(self, decode: Callable[[list[int]], str], width: int) -> None:
        self._decode = decode
        self._width = width  # tokens of a prompt with its padding
        self._ended: set[int] = set()

    def __call__(self, input_ids: Tensor, *_: object, **__: object) -> Tensor:
        """Return which replies have ended, bool ``[replies]``."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            # Quote and line break are ASCII, so a token that has one shows it by itself; few need to be looked at.
            if row in self._ended or not re.search(r'["\n]', self._decode([token])):
                continue
            if _has_ended(self._decode(input_ids[row, self._width :].tolist())):
                self._ended.add(row)
        return torch.tensor([row in self._ended for row in range(len(input_ids))], device=input_ids.device)


def _has_ended(written: str) -> bool:
    rest = written[_string_length(written) :]
    return rest not in ("", "\\")  # a lone backslash waits for what it escapes


def _string_length(written: str) -> int:
    inside = _INSIDE.match(written)
    return inside.end() if inside else 0


def completed_json(written: str, *, ended: bool) -> str:
    """Return the JSON object that ``JSON_PREFIX`` and what was written after it come to.

    Args:
        written: what the model wrote.
        ended: whether it ended by itself. Otherwise an open string is left open: a text that breaks off is none.
    """
    if not ended and not _has_ended(written):
        return JSON_PREFIX + written
    inside = written[: _string_length(written)]
    try:
        text = json.loads(f'"{inside}"', strict=False)
    except ValueError:  # an escape that JSON does not know: the model meant the backslash
        text = inside.replace('\\"', '"')
    return json.dumps({"text": text}, ensure_ascii=False)
