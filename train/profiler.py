"""A trace of a few training steps, to look at in ui.perfetto.dev or chrome://tracing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import profiler

# steps of this process: caches, allocator and autotuning settle, the profiler itself warms up, these are recorded
SETTLE, WARM_UP, RECORD = 5, 2, 3


@contextmanager
def tracing(path: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Give what is to be called after every step; ``path``, a ``.json.gz``, is written after the last one recorded."""
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
