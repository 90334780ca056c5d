"""A budget of tokens and money that is never exceeded, whatever becomes of the requests in flight."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that a language model reads and writes.

    Attributes:
        prompt: read.
        completion: written.
    """

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)

    def __mul__(self, count: int) -> Tokens:
        return Tokens(self.prompt * count, self.completion * count)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


@dataclass
class Budget:
    """What may be spent, what has been, and what the requests in flight may come to.

    Attributes:
        max_total_tokens: None where there is no limit.
        max_cost: likewise.
        prices: of a million tokens read, and of a million written.
        spent: tokens that were paid for, or may have been.
        reserved: tokens that requests in flight may come to.
    """

    max_total_tokens: int | None
    max_cost: float | None
    prices: tuple[float, float]
    spent: Tokens = Tokens()
    reserved: Tokens = Tokens()

    def cost(self, tokens: Tokens) -> float:
        """Return the price of tokens."""
        return (tokens.prompt * self.prices[0] + tokens.completion * self.prices[1]) / 1e6

    def reserve(self, bound: Tokens) -> bool:
        """Set aside what a request may come to, and return whether it fits; if it does not, nothing is set aside."""
        after = self.spent + self.reserved + bound
        if self.max_total_tokens is not None and after.total > self.max_total_tokens:
            return False
        if self.max_cost is not None and self.cost(after) > self.max_cost:
            return False
        self.reserved += bound
        return True

    def settle(self, reserved: Tokens, spent: Tokens) -> None:
        """Give back what was set aside, and book what it came to."""
        self.reserved += reserved * -1
        self.spent += spent

    def shortage(self, bound: Tokens) -> str:
        """Say what is left, and what a request that does not fit may come to."""
        found = []
        if self.max_total_tokens is not None:
            left = self.max_total_tokens - self.spent.total
            found.append(f"{left} of max_total_tokens={self.max_total_tokens} left, up to {bound.total} needed")
        if self.max_cost is not None:
            left_cost = self.max_cost - self.cost(self.spent)
            found.append(f"{left_cost:.6g} of max_cost={self.max_cost:g} left, up to {self.cost(bound):.6g} needed")
        return "; ".join(found)


class OverBudgetError(Exception):
    """The budget leaves nothing for another try of a request."""


class Attempts:
    """The tries of one request. Each may have to be paid for, also one whose answer was lost on the way.

    Attributes:
        count: how many there were.
    """

    def __init__(self, budget: Budget, bound: Tokens) -> None:
        """Begin with what one try may come to set aside.

        Args:
            budget: where it was.
            bound: what it was.
        """
        self.count = 0
        self._budget = budget
        self._bound = bound
        self._set_aside = 1
        self._doubtful = 0

    def begin(self) -> None:
        """Note that a try is sent.

        Raises:
            OverBudgetError: earlier ones may have to be paid for, and the budget has nothing left for this one.
        """
        if self._doubtful == self._set_aside:
            if not self._budget.reserve(self._bound):
                raise OverBudgetError
            self._set_aside += 1
        self._doubtful += 1
        self.count += 1

    def free(self) -> None:
        """Note that the last try costs nothing: it never arrived, or was turned away."""
        self._doubtful -= 1

    def settle(self, usage: Tokens | None) -> None:
        """Book what the last try came to, and of each other that is in doubt the most it may have come to.

        Args:
            usage: what the server says; None where it said nothing.
        """
        unknown = self._doubtful if usage is None else self._doubtful - 1
        self._budget.settle(self._bound * self._set_aside, self._bound * unknown + (usage or Tokens()))
