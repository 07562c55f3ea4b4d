"""Signals that ask a run to stop: recorded for the loop, so that the last whole step can be saved."""

import contextlib
import os
import signal
import sys
from types import FrameType

from train.errors import Stopped

# Windows lacks the latter two, and is refused with a line; nohup leaves SIGHUP, that of a closed terminal, ignored
STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name) and not (name == "SIGHUP" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
)


def leave_at_once() -> None:
    """Until there is a ``StopRequest``, these signals end the process with its exit code and one line."""

    def leave(number: int, _frame: FrameType | None) -> None:
        _say(_before_training(number))
        os._exit(Stopped.exit_code)

    for number in STOP_SIGNALS:
        signal.signal(number, leave)


def _say(line: str) -> None:
    """Print from a handler of signals, where a buffer may be in use."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _before_training(number: int) -> str:
    return f"stopped by {signal.Signals(number).name} before training began: start the same command again"


class StopRequest:
    """Whether one of ``STOP_SIGNALS`` has arrived. Until ``defer`` is called they raise Stopped."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self.listen()

    def listen(self) -> None:
        """A signal raises Stopped from now on, and one that has been recorded does so at once."""
        self._deferred = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)
        if self._received is not None:
            raise Stopped(f"stopped by {self._received.name}, the run is finished: start the same command again")

    def defer(self) -> None:
        """From now on there is something to save, so a signal is only recorded."""
        self._deferred = True

    def received(self) -> bool:
        return self._received is not None

    def record(self, number: int) -> None:
        """Another handler has taken the signal."""
        self._received = signal.Signals(number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = self._received is not None
        self.record(number)
        if not self._deferred:
            raise Stopped(_before_training(number))
        if again and number == signal.SIGINT:
            _say("\nleaving at once; the last checkpoint is intact")
            os._exit(Stopped.exit_code)
        if not again and sys.stderr.isatty():
            _say("\nsaving after this step; Ctrl-C again leaves at once")
