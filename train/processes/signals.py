"""Signals that ask a run to stop: recorded for the loop, so that the last whole step can be saved."""

import os
import signal
import sys
from types import FrameType

from train.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Whether SIGTERM, SIGINT or SIGUSR1 has arrived. Until ``defer`` is called they end the process at once."""

    def __init__(self) -> None:
        self._deferred = False
        self._received: signal.Signals | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def defer(self) -> None:
        """From now on there is something to save, so a signal is only recorded."""
        self._deferred = True

    def received(self) -> bool:
        return self._received is not None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = self._received is not None
        self._received = signal.Signals(number)
        if not self._deferred:
            raise Stopped(f"stopped by {self._received.name} before training began: start the same command again")
        if again and number == signal.SIGINT:
            os.write(2, b"\nleaving at once; the last checkpoint is intact\n")
            os._exit(Stopped.exit_code)
        if not again and sys.stderr.isatty():
            os.write(2, b"\nsaving after this step; Ctrl-C again leaves at once\n")
