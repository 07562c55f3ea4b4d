"""Signals that ask a run to stop: recorded for the loop, so that the last whole step can be saved."""

import os
import signal
import sys
from types import FrameType

from train.errors import Stopped

# Windows lacks the last, and is refused with a line
STOP_SIGNALS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


def leave_at_once() -> None:
    """Until there is a ``StopRequest``, these signals end the process with its exit code and one line."""

    def leave(number: int, _frame: FrameType | None) -> None:
        os.write(2, f"{_before_training(number)}\n".encode())
        os._exit(Stopped.exit_code)

    for number in STOP_SIGNALS:
        signal.signal(number, leave)


def _before_training(number: int) -> str:
    return f"stopped by {signal.Signals(number).name} before training began: start the same command again"


class StopRequest:
    """Whether SIGTERM, SIGINT or SIGUSR1 has arrived. Until ``defer`` is called they raise Stopped."""

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
            os.write(2, b"\nleaving at once; the last checkpoint is intact\n")
            os._exit(Stopped.exit_code)
        if not again and sys.stderr.isatty():
            os.write(2, b"\nsaving after this step; Ctrl-C again leaves at once\n")
