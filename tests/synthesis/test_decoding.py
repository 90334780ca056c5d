"""How tokens are drawn, and how JSON that a model was begun for is completed."""

from __future__ import annotations

import json

import pytest
import torch

from retrofit.synthesis.decoding import JSON_PREFIX, ClosingQuote, SeededSampling, completed_json

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])


def drawn(
    prompts: list[str], temperature: float = 1.0, top_p: float = 1.0, seed: int = 0, steps: int = 1
) -> torch.Tensor:
    """The tokens drawn from the same scores at each step, ``[prompts, steps]``."""
    sampling = SeededSampling(prompts, 3, temperature, top_p, steps, seed)
    scores = LOGITS.repeat(len(prompts), 1)
    columns = [sampling(torch.zeros(len(prompts), 3 + step, dtype=torch.int64), scores) for step in range(steps)]
    for left in columns:
        assert (left == 0).sum(-1).eq(1).all()
        assert left.isinf().sum(-1).eq(len(LOGITS) - 1).all()
    return torch.stack([left.argmax(-1) for left in columns], dim=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_their_probability(temperature: float) -> None:
    tokens = drawn([f"prompt {number}" for number in range(400)], temperature, steps=25).flatten()
    shares = tokens.bincount(minlength=len(LOGITS)) / len(tokens)
    torch.testing.assert_close(shares, (LOGITS / temperature).softmax(-1), atol=0.02, rtol=0)


def test_nothing_outside_the_nucleus_is_drawn() -> None:
    prompts = [f"prompt {number}" for number in range(500)]
    assert set(drawn(prompts, top_p=0.7).flatten().tolist()) == {0, 1}  # 0.64 + 0.24
    assert set(drawn(prompts, top_p=0.6).flatten().tolist()) == {0}


def test_draws_depend_on_seed_and_prompt_and_not_on_the_others() -> None:
    together = drawn(["a", "b", "c"], steps=30)
    assert torch.equal(drawn(["b"], steps=30)[0], together[1])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(drawn(["a"], seed=1, steps=30)[0], together[0])


@pytest.mark.parametrize(
    ("written", "ended", "text"),
    [
        ('What is it?"}', False, "What is it?"),
        ('What is it?"} and so on "', False, "What is it?"),
        ("What is it?\nText:", False, "What is it?"),
        ("What is it?", True, "What is it?"),
        (r'A \"b\" c"', False, 'A "b" c'),
        (r'C:\dir"', False, r"C:\dir"),
        (r'\d \"x\" "', False, r'\d "x" '),
        (r"tab\tö\u00e9" + '"', False, "tab\töé"),
        ("tab\t東京" + '"', False, "tab\t東京"),
        ('"', False, ""),
        ("ends in a backslash\\", True, "ends in a backslash"),
    ],
)
def test_json_is_completed(written: str, ended: bool, text: str) -> None:
    assert json.loads(completed_json(written, ended=ended)) == {"text": text}


@pytest.mark.parametrize("written", ["What is", "What is\\", ""])
def test_what_breaks_off_is_left_open(written: str) -> None:
    content = completed_json(written, ended=False)
    assert content == JSON_PREFIX + written
    with pytest.raises(json.JSONDecodeError):
        json.loads(content)


def test_replies_end_at_their_own_quote_or_line_break() -> None:
    closing = ClosingQuote(lambda tokens: "".join(map(chr, tokens)), 2)
    rows = ['pp"a"zz', 'pp"\\"b"', "ppabc\nd", "ppabcde"]
    ended = [
        closing(torch.tensor([[ord(letter) for letter in row[:length]] for row in rows])).tolist()
        for length in range(3, 8)
    ]
    # A quote right at the start ends the first two; the prompt's own two letters do not count.
    assert ended[0] == [True, True, False, False]
    assert ended[-1] == [True, True, True, False]
    escaped = ClosingQuote(lambda tokens: "".join(map(chr, tokens)), 0)
    assert [escaped(torch.tensor([list(b'a\\"b"'[:n])])).tolist() for n in (1, 2, 3, 4, 5)] == [[False]] * 4 + [[True]]
