"""Images/s of training, without the start of the process: workers, the first decode, autotuning and compilation."""

import time


class Speed:
    """The time of steps between moments at which the host has waited for the device.

    ``begin`` and ``reach`` name the images trained on at such a moment. All before the first ``reach`` of this process
    is its start, and does not count.
    """

    def __init__(self) -> None:
        self.has_started = False
        self.restart()

    def restart(self) -> None:
        """Forget what was measured so far."""
        self._images, self._seconds = 0, 0.0

    def begin(self, images: int) -> None:
        """Steps begin, or begin again after something else."""
        self._at, self._began = images, time.perf_counter()

    def reach(self, images: int) -> None:
        """So many ``images`` are trained on, and the device has computed them."""
        if self.has_started:
            self._images += images - self._at
            self._seconds += time.perf_counter() - self._began
        self.has_started = True
        self.begin(images)

    def per_second(self) -> float | None:
        """None before a whole step was measured."""
        return self._images / max(self._seconds, 1e-9) if self._images else None
