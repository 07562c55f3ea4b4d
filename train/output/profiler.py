"""A trace of a few training steps, for ui.perfetto.dev or chrome://tracing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import profiler

# steps of this process: first caches, allocator and autotuning settle, then the profiler warms up, then it records
SETTLE, WARM_UP, RECORD = 5, 2, 3


@contextmanager
def tracing(path: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """A context that gives the function to call after every step; ``path`` is a ``.json.gz``."""
    written = False

    def write(trace: profiler.profile) -> None:
        nonlocal written
        trace.export_chrome_trace(str(path))
        written = True
        say(f"profile of {RECORD} steps: {path}, for ui.perfetto.dev")

    window = profiler.schedule(wait=SETTLE, warmup=WARM_UP, active=RECORD, repeat=1)
    with profiler.profile(schedule=window, on_trace_ready=write) as trace:
        yield trace.step
    if not written:
        say(f"no profile: it takes {SETTLE + WARM_UP + RECORD} steps, and training ended before")
