"""How many processes a run takes on this machine, and starting them with torch.distributed.run."""

import logging
import os
import signal
import sys
from pathlib import Path

from train.config import Config
from train.cores import cores
from train.errors import Stopped, UserError
from train.signals import ASKING

MAIN = Path(__file__).with_name("main.py")


def process_count(config: Config, gpus: int) -> tuple[int, str]:
    """The number of processes for ``config`` on a machine with ``gpus``, and a remark on what idles, or ''.

    ``nproc`` when it is given; otherwise the largest count of GPUs that divides the batch; 1 without GPUs.
    Raises UserError when ``nproc`` is more than the GPUs there are.
    """
    if config.nproc is not None:
        if 0 < gpus < config.nproc:
            raise UserError(f"nproc={config.nproc} is more than the {gpus} GPUs of this machine: use nproc={gpus}")
        return config.nproc, ""
    micro_batches = config.batch.total // config.batch.micro
    count = max(n for n in range(1, max(gpus, 1) + 1) if micro_batches % n == 0)
    if count >= gpus:
        return count, ""
    idle = ", ".join(str(i) for i in range(count, gpus))
    return count, (
        f"using {count} of {gpus} GPUs: {micro_batches} micro-batches of {config.batch.micro} do not divide "
        f"by more; GPU {idle} idle (another batch.micro may divide)"
    )


def launch(processes: int, arguments: list[str], run_folder: Path) -> int:
    """Run this program in ``processes`` processes and return the exit code that their end means."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # its report of failures would bury the one line that the worker has said
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores(shared_by=processes)))
    settings = torchrun.parse_args(["--standalone", "--nproc-per-node", str(processes), str(MAIN), *arguments])
    if hasattr(settings, "signals_to_handle"):
        # older torch has no such option, and there SIGUSR1 ends the launcher
        settings.signals_to_handle = ",".join(number.name for number in ASKING)
    try:
        torchrun.run(settings)
    except ChildFailedError as failed:
        # the first to fail tells why; a worker that the others pulled down has a negative code
        codes = [f.exitcode for _, f in sorted(failed.failures.items(), key=lambda item: item[1].timestamp)]
        if said := [code for code in codes if code > 0]:
            return said[0]
        killer = signal.Signals(-codes[0])
        if killer in ASKING and (run_folder / "result.json").exists():
            # it met a worker that had nothing left to do but end
            return 0
        print(
            f"a worker was ended by {killer.name}: start the same command again, what was saved is intact",
            file=sys.stderr,
        )
        return Stopped.exit_code if killer in ASKING else 1
    except SignalException:
        if (run_folder / "result.json").exists():
            return 0
        # without a log, training had not begun
        if (run_folder / "stopped").exists() or not (run_folder / "log.jsonl").exists():
            return Stopped.exit_code
        print("a worker did not end in time: the last checkpoint is intact", file=sys.stderr)
        return 1
    finally:
        # what comes now comes too late to ask for anything
        for number in ASKING:
            signal.signal(number, signal.SIG_IGN)
        logging.disable(logging.NOTSET)
    return 0
