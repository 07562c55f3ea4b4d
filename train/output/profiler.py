"""A trace of a few micro-batches and the optimizer step among them, for ui.perfetto.dev or chrome://tracing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import profiler

# Micro-batches: first caches, allocator and autotuning settle, then the profiler warms up, then it records. A step of
# many would make a trace that no viewer opens.
SETTLE, WARM_UP, RECORD = 5, 2, 3
OF_NEXT_STEP = 1  # of those recorded; the others end a step


@contextmanager
def tracing(path: Path, accumulation: int, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """A context that gives the function to call before every micro-batch; ``path`` is a ``.json.gz``.

    ``accumulation`` micro-batches make a step. The first step, in which the optimizer makes its state, is not recorded.
    """
    written = False

    def write(trace: profiler.profile) -> None:
        nonlocal written
        trace.export_chrome_trace(str(path))
        written = True
        say(f"profile of {RECORD} micro-batches: {path}, for ui.perfetto.dev")

    wait = max(SETTLE, accumulation)
    wait += -(wait + WARM_UP + RECORD - OF_NEXT_STEP) % accumulation
    # the first call of all begins what the profiler counts as 1
    window = profiler.schedule(wait=wait + 1, warmup=WARM_UP, active=RECORD, repeat=1)
    with profiler.profile(schedule=window, on_trace_ready=write) as trace:
        yield trace.step
    if not written:
        needed = wait + WARM_UP + RECORD
        say(f"no profile: it takes {needed} micro-batches and one more, and training ended before")
