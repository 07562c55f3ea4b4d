"""The ways a run ends early, each with the exit code that tells a script what to do next."""

import sys


class RunEnded(Exception):
    """A run that ends before its last step. ``str(error)`` is one line for the person who started it."""

    exit_code = 1
    is_said_elsewhere = False  # another process prints the line


class UserError(RunEnded):
    """A mistake of the user, or a machine that cannot continue (full disk, no memory): fix it and start again."""

    exit_code = 2


class PeersLost(UserError):
    """Another process of the group is gone or does not answer, so the group cannot be left in order."""


class Diverged(RunEnded):
    """The loss or the gradients of ``step`` are not finite. Everything saved before is intact."""

    exit_code = 3

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Stopped(RunEnded):
    """A signal stopped the run and everything is saved: the same command resumes it (EX_TEMPFAIL of sysexits)."""

    exit_code = 75


def print_error(ended: RunEnded) -> int:
    """Print on stderr why the run ended, unless another process does, and return the exit code."""
    if not ended.is_said_elsewhere:
        # OmegaConf adds lines to what a signal raises within it
        line = str(ended).partition("\n")[0]
        print(f"{'' if isinstance(ended, Stopped) else 'error: '}{line}", file=sys.stderr, flush=True)
    return ended.exit_code
