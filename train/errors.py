"""The ways a run ends early, each with the exit code that tells a script what to do next."""

import sys


class RunEnded(BaseException):
    """A run that ends before its last step. ``str(error)`` is one line for the person who started it."""

    exit_code = 1
    is_said_elsewhere = False  # another process prints the line
    is_on_every_rank = False  # so that all can leave the process group together


class UserError(RunEnded, Exception):
    """A mistake of the user, or a machine that cannot continue (full disk, no memory): fix it and start again."""

    exit_code = 2


class PeersLost(UserError):
    """Another process of the group is gone or does not answer, so the group cannot be left in order."""


class Diverged(RunEnded, Exception):
    """The loss or the gradients of ``step`` are not finite. Everything saved before is intact."""

    exit_code = 3
    is_on_every_rank = True

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Stopped(RunEnded):
    """A signal stopped the run and everything is saved: the same command resumes it (EX_TEMPFAIL of sysexits).

    A signal may arrive anywhere, and a handler of errors must not take it for one: like KeyboardInterrupt, this is no
    Exception.
    """

    exit_code = 75
    is_on_every_rank = True


def print_error(ended: RunEnded) -> int:
    """Print on stderr why the run ended, unless another process does, and return the exit code."""
    if not ended.is_said_elsewhere:
        print(f"{'' if isinstance(ended, Stopped) else 'error: '}{ended}", file=sys.stderr, flush=True)
    return ended.exit_code
