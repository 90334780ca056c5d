"""The one exception that is shown to the user as a line instead of a traceback."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line: what is wrong (file, row, field where there is one), what was expected, and which
    configuration key or command mends it. Commands print it without a traceback and exit with status 2.
    """


def one_line(error: BaseException) -> str:
    """Return what an error says as one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
