"""How many processes a run takes on this machine, and how they are started with torch.distributed.run."""

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from train.cores import cores
from train.errors import Stopped, UserError
from train.plan import BatchConfig
from train.processes.signals import STOP_SIGNALS, StopRequest

MAIN = Path(__file__).parents[1] / "main.py"


def process_count(nproc: int | None, batch: BatchConfig, gpus: int) -> tuple[int, str]:
    """The number of processes on a machine with ``gpus``, and a remark on GPUs that are left idle, or "".

    It is ``nproc`` when that is given, else the largest number of GPUs that divides the batch, and 1 without GPUs.
    Raises UserError when ``nproc`` is more than the GPUs there are.
    """
    if nproc is not None:
        if 0 < gpus < nproc:
            raise UserError(f"nproc={nproc} is more than the {gpus} GPUs of this machine: use nproc={gpus}")
        return nproc, ""
    micro_batches = batch.micro_batches
    count = max(n for n in range(1, max(gpus, 1) + 1) if micro_batches % n == 0)
    if count >= gpus:
        return count, ""
    idle = ", ".join(str(i) for i in range(count, gpus))
    return count, (
        f"using {count} of {gpus} GPUs: {micro_batches} micro-batches of {batch.micro} do not divide "
        f"by more; GPU {idle} idle (another batch.micro may divide)"
    )


def launch(processes: int, arguments: list[str], run_folder: Path, stop: StopRequest) -> int:
    """Run this program in ``processes`` processes, and return the exit code that follows from how they ended.

    ``stop`` learns of a signal, which the launcher of torch handles meanwhile.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    began = written(run_folder)
    # its report of failures would bury the one line that the worker has printed
    logging.disable(logging.CRITICAL)
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = threads or str(cores(shared_by=processes))
    settings = torchrun.parse_args(["--standalone", "--nproc-per-node", str(processes), str(MAIN), *arguments])
    if hasattr(settings, "signals_to_handle"):
        # older versions of torch have no such option, and SIGUSR1 ends the launcher there
        settings.signals_to_handle = ",".join(number.name for number in STOP_SIGNALS)
    try:
        torchrun.run(settings)
    except ChildFailedError as failed:
        # the first failure is the cause
        ended = sorted(failed.failures.values(), key=lambda failure: failure.timestamp)
        return code_of_workers([failure.exitcode for failure in ended], run_folder, stop)
    except SignalException as signalled:
        stop.record(signalled.sigval)
        end_children(signalled.sigval)
        return code_of_signal(run_folder, began)
    finally:
        # a signal that arrives now has nothing left to stop
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        logging.disable(logging.NOTSET)
        if threads is None:
            # the next job of a sweep may have another number of processes
            del os.environ["OMP_NUM_THREADS"]
    return 0


def code_of_workers(codes: list[int], run_folder: Path, stop: StopRequest) -> int:
    """The exit code that follows from those of workers that failed, the first to fail first."""
    # a worker that was ended because of the others has a negative code
    if own := [code for code in codes if code > 0]:
        # one that a signal stopped before all could agree leaves the others at a loss, perhaps within a second
        return Stopped.exit_code if Stopped.exit_code in own else own[0]
    killer = signal.Signals(-codes[0])
    if killer in STOP_SIGNALS and (run_folder / "result.json").exists():
        # the signal reached a worker that was already exiting
        stop.record(killer)
        return 0
    print(
        f"a worker was ended by {killer.name}: start the same command again, what was saved is intact", file=sys.stderr
    )
    return Stopped.exit_code if killer in STOP_SIGNALS else 1


def code_of_signal(run_folder: Path, began: int | None) -> int:
    """The exit code after a signal to the launcher; ``began``: when the log was ``written`` before it started."""
    if (run_folder / "result.json").exists():
        return 0
    # training begins by writing the log anew
    if (run_folder / "stopped").exists() or written(run_folder) == began:
        return Stopped.exit_code
    print("a worker did not end in time: the last checkpoint is intact", file=sys.stderr)
    return 1


def written(run_folder: Path) -> int | None:
    """When the log of a run was written, in nanoseconds; None where there is none."""
    log = run_folder / "log.jsonl"
    return log.stat().st_mtime_ns if log.exists() else None


def end_children(number: int) -> None:
    """Send the signal to what is still running: torch forgets a worker that it was just starting when it came."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    for child in children.read_text().split() if children.exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)
