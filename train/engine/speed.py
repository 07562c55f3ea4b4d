"""Images/s of training, without the start of the process: workers, the first decode, autotuning and compilation."""

import time


class Speed:
    """The time of steps between moments at which the host has waited for the device.

    ``begin`` and ``reach`` name the steps taken at such a moment. All before the first ``reach`` of this process is
    its start, and does not count.
    """

    def __init__(self) -> None:
        self.has_started = False
        self.restart()

    def restart(self) -> None:
        """Forget what was measured so far."""
        self._steps, self._seconds = 0, 0.0

    def begin(self, step: int) -> None:
        """Steps begin, or begin again after something else."""
        self._step, self._began = step, time.perf_counter()

    def reach(self, step: int) -> None:
        """``step`` steps are taken, and the device has computed them."""
        if self.has_started:
            self._steps += step - self._step
            self._seconds += time.perf_counter() - self._began
        self.has_started = True
        self.begin(step)

    def per_second(self, images: int) -> float | None:
        """Of steps of so many ``images``; None before a whole step was measured."""
        return self._steps * images / max(self._seconds, 1e-9) if self._steps else None
