"""The ways a run ends before its last step, each with the exit code that tells a script what to do next."""

import sys


class Ended(Exception):
    """A run that ends early. ``str(error)`` is one line for the person who started it."""

    exit_code = 1
    is_said_elsewhere = False  # another process prints the line


class UserError(Ended):
    """The user's mistake, or a machine that cannot go on (full disk, no memory): mend it and start again."""

    exit_code = 2


class Diverged(Ended):
    """Loss or gradients are no longer numbers since ``step``. What was saved before is intact."""

    exit_code = 3

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Stopped(Ended):
    """A signal came and everything is saved: the same command goes on (sysexits' EX_TEMPFAIL)."""

    exit_code = 75


def report(ended: Ended) -> int:
    """Say on stderr why it ended, unless another process does; the exit code."""
    if not ended.is_said_elsewhere:
        print(f"{'' if isinstance(ended, Stopped) else 'error: '}{ended}", file=sys.stderr, flush=True)
    return ended.exit_code
