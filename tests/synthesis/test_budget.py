"""Whatever becomes of requests and their tries, a budget is never exceeded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.synthesis.budget import Attempts, Budget, OverBudgetError, Tokens

BOUND = Tokens(100, 50)

# Of each try whether it is turned away, is lost, or is answered with a number of tokens read and written.
tries = st.one_of(st.sampled_from(["turned away", "lost"]), st.builds(Tokens, st.integers(0, 100), st.integers(0, 50)))


@settings(max_examples=500)
@given(
    st.lists(st.lists(tries, max_size=4), max_size=12),
    st.integers(0, 600) | st.none(),
    st.floats(0, 0.003) | st.none(),
    st.integers(1, 4),
)
def test_what_is_made_never_exceeds_the_limits(
    requests: list[list[str | Tokens]], max_total_tokens: int | None, max_cost: float | None, at_once: int
) -> None:
    budget = Budget(max_total_tokens, max_cost, (2.0, 8.0))
    made = Tokens()  # the most the server may have carried out: of what is lost, all of it

    def within_limits() -> None:
        assert max_total_tokens is None or made.total <= max_total_tokens
        assert max_cost is None or budget.cost(made) <= max_cost

    for start in range(0, len(requests), at_once):
        running = [
            (Attempts(budget, BOUND), list(left)) for left in requests[start : start + at_once] if budget.reserve(BOUND)
        ]
        while running:
            attempts, left = running.pop(0)
            usage, ended = None, not left
            if left:
                try:
                    attempts.begin()
                except OverBudgetError:
                    ended = True
                else:
                    outcome = left.pop(0)
                    if outcome == "turned away":
                        attempts.free()
                    elif isinstance(outcome, Tokens):
                        usage, ended = outcome, True
                        made += outcome
                    else:
                        made += BOUND
                    within_limits()
            if ended:
                attempts.settle(usage)
            else:
                running.append((attempts, left))
    assert budget.reserved == Tokens()
    assert budget.spent == made


def test_without_limits_everything_fits_and_is_counted() -> None:
    budget = Budget(None, None, (0.0, 0.0))
    assert all(budget.reserve(BOUND) for _ in range(1000))
    assert budget.reserved == BOUND * 1000


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((170, None), "60 of max_total_tokens=170 left, up to 150 needed"),
        ((None, 0.0005), "0.00022 of max_cost=0.0005 left, up to 0.0006 needed"),
        ((170, 0.0005), "60 of max_total_tokens=170 left, up to 150 needed; 0.00022 of max_cost=0.0005 left, "),
    ],
)
def test_what_does_not_fit_says_why(limits: tuple[int | None, float | None], said: str) -> None:
    budget = Budget(*limits, (2.0, 8.0), spent=Tokens(100, 10))
    assert not budget.reserve(BOUND)
    assert budget.shortage(BOUND).startswith(said)
