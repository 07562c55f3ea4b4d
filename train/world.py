"""The processes that train as one: the only user of torch.distributed. ``World()`` is one process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.errors import Ended

T = TypeVar("T")


def under_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


meetings = 0  # of this process: the jobs of a sweep follow one another in it


def _meeting_place(world: World, timeout: timedelta) -> dist.Store | None:
    """Where processes tell each other their addresses; None: as torch does by itself.

    torchrun keeps one store for all attempts of a job on one machine, where a restarted job would find the addresses
    of the one that died (pytorch#55967, #135712): each attempt writes under a name of its own. On several machines
    they need not agree on how many attempts there were, but have a store for each.
    """
    global meetings
    meetings += 1
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or world.size != world.local_size:
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, world.size, is_master=False, timeout=timeout)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"lars-imagenet/{attempt}/{meetings}", store)


class World:
    """This process among all: its rank, its device and what the processes do together.

    ``rank`` counts from 0 to ``size`` - 1 over all machines, ``local_rank`` on this one. Rank 0 is the chief,
    the only one that writes files.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self.device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
        self._pending: tuple[dist.Work, Tensor] | None = None
        self.doing = "starting"  # for the message of a process that lost the others

    @classmethod
    def join(cls, timeout_minutes: float = 30) -> World:
        """Meet the other processes that torchrun started; one process alone meets nobody.

        A collective call that waits longer than ``timeout_minutes`` for the others raises; on GPUs NCCL's watchdog
        ends the process instead.
        """
        if torch.cuda.is_available():
            # shapes of images hardly ever change, so that trying out algorithms pays; and fp32 is to be fp32
            torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
        if not under_torchrun():
            return cls()
        # DDP imports this module, whose functions take the process group of that moment as a default and so keep it
        # for good: one of its threads that drops a tensor while Python ends would abort the process
        from torch.distributed.nn import functional  # noqa: F401

        world = cls(*(int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
        if world.device.type == "cuda":
            torch.cuda.set_device(world.device)
        # gloo beside nccl: flags and messages travel between CPUs and never wait for a GPU
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        timeout = timedelta(minutes=timeout_minutes)
        dist.init_process_group(
            backend, store=_meeting_place(world, timeout), rank=world.rank, world_size=world.size, timeout=timeout
        )
        return world

    def leave(self) -> None:
        """Part from the other processes, all of which do so now."""
        if self._pending is not None:
            self._pending[0].wait()
            self._pending = None
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> range:
        """This rank's part of ``range(n)``: contiguous, all ranks together each number once."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def total(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over all ranks, in the place of ``x``."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """``model`` with gradients averaged over the ranks; running statistics are ours to combine."""
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.15 has another name for broadcast_buffers, which older ones do not know
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)

    def without_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Gradients of a backward pass in here stay on this rank and add to the next one's."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def everywhere(self, function: Callable[[], T]) -> T:
        """What ``function`` returns on this rank; an ``Ended`` raised on any rank is raised on every rank."""
        result, ended = None, None
        try:
            result = function()
        except Ended as error:
            if self.size == 1:
                raise
            ended = error
        if self.size > 1:
            all_ended: list[Ended | None] = [None] * self.size
            dist.all_gather_object(all_ended, ended)
            first = next((rank for rank, error in enumerate(all_ended) if error is not None), None)
            if first is not None:
                told = all_ended[first] if first != self.rank else ended
                assert told is not None
                told.is_said_elsewhere = first != self.rank
                raise told
        return result  # type: ignore[return-value]

    def on_chief(self, function: Callable[[], T]) -> T:
        """What ``function`` returns on the chief, on every rank, or the ``Ended`` that it raises there."""
        message = [self.everywhere(lambda: function() if self.is_chief else None)]
        if self.size > 1:
            dist.broadcast_object_list(message, src=0, device=torch.device("cpu"))
        return message[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value``, in the order of ranks, on every rank; what tensors are in it lie on the CPU."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def agree(self, flag: bool) -> bool:
        """Whether any rank's ``flag`` was set at the call before this one: ask now, read one call later.

        Every rank must call it equally often. The answer of the last call was long under way, so nothing
        waits; one process alone is answered at once.
        """
        if self.size == 1:
            return flag
        answer = False
        if self._pending is not None:
            work, votes = self._pending
            work.wait()
            answer = bool(votes.item())
        votes = torch.tensor(int(flag))
        work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, async_op=True)
        self._pending = (work, votes)
        return answer
