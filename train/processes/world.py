"""The processes that train together, and what they do collectively. ``World()`` is a single process.

Apart from the launcher this is the only file that uses torch.distributed.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.cores import allowance, cores, cores_of
from train.errors import RunEnded

T = TypeVar("T")


def under_torchrun() -> bool:
    return bool(os.environ.get("RANK") and os.environ.get("WORLD_SIZE"))


def _store(world: World, timeout: timedelta) -> dist.Store | None:
    """The store through which processes exchange their addresses; None for torch's default.

    torchrun keeps one store for all attempts of a job on one machine, in which a restarted job would find the addresses
    of the one that died (pytorch#55967, #135712). So each attempt writes under a prefix of its own. Several machines
    need not agree on the number of attempts, but each attempt there gets a new store.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or world.size != world.local_size:
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, world.size, is_master=False, timeout=timeout)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"lars-imagenet/{attempt}", store)


def _set_timeout(device: torch.device, timeout: timedelta) -> None:
    """Set the timeout of the default group's collectives on ``device`` alone; torch has no public function for it."""
    group = dist.group.WORLD
    assert group is not None
    group._get_backend(device)._set_default_timeout(timeout)


class World:
    """This process among all: its rank, its device and the collective operations.

    ``rank`` counts from 0 to ``size`` - 1 over all machines, ``local_rank`` on this machine. Rank 0 is the chief, the
    only one that writes files.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        gpus = torch.cuda.device_count()
        # a launcher may show each process one GPU alone
        self.device = torch.device("cuda", local_rank % gpus) if gpus else torch.device("cpu")
        self.cores = cores(shared_by=local_size)
        self._pending_vote: tuple[dist.Work, Tensor] | None = None
        self.activity = "starting"  # for the message of a process that loses the others

    @classmethod
    def join(cls, timeout_minutes: float = 30) -> World:
        """Join the process group that torchrun started; without torchrun this is a single process.

        A collective that waits longer than ``timeout_minutes`` for another process raises. On GPUs NCCL's watchdog
        ends the process instead, after a third of that: while gloo may wait for a chief that makes the data, all
        processes take their steps at the same time, and one that waits has lost another.
        """
        if not under_torchrun():
            return cls()
        # DDP imports this module, and its functions take the process group of that moment as a default argument. They
        # would keep the group alive, and a thread of it that frees a tensor while Python exits aborts the process. So
        # it is imported before there is a group.
        from torch.distributed.nn import functional  # noqa: F401

        # other launchers start one process on a machine, and leave the latter two out
        local = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        given = {**local, **os.environ}
        world = cls(*(int(given[k]) for k in ("RANK", "WORLD_SIZE", *local)))
        backend = "gloo"
        if world.device.type == "cuda":
            torch.cuda.set_device(world.device)
            # gloo in addition: votes and messages travel between CPUs and never wait for a GPU
            backend = "cpu:gloo,cuda:nccl"
        timeout = timedelta(minutes=timeout_minutes)
        dist.init_process_group(
            backend, store=_store(world, timeout), rank=world.rank, world_size=world.size, timeout=timeout
        )
        if world.device.type == "cuda":
            _set_timeout(world.device, timeout / 3)
        mine = allowance()
        world.cores = cores_of(mine, world.gather(mine))
        return world

    def leave(self) -> None:
        """Leave the process group, which every process must do at the same point."""
        if self._pending_vote is not None:
            self._pending_vote[0].wait()
            self._pending_vote = None
        if dist.is_initialized():
            # DDP holds the group too, and with it its threads, one of which may free a tensor while Python exits
            gc.collect()
            dist.destroy_process_group()

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def totals(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all ranks of tensors of one dtype, which keep their shapes: one collective for all of them."""
        flat = self.total(torch.cat([part.flatten() for part in parts]))
        sums = flat.split([part.numel() for part in parts])
        return [whole.view_as(part) for whole, part in zip(sums, parts, strict=True)]

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """``model`` in DDP; bare on a single process, which has nothing to average."""
        return self.in_ddp(model) if self.size > 1 else model

    def in_ddp(self, model: nn.Module) -> DistributedDataParallel:
        """``model`` in DDP, which averages gradients over the ranks and leaves running statistics to us."""
        ids = None if self.device.type == "cpu" else [self.device.index]
        with warnings.catch_warnings():
            # torch 2.15 renamed broadcast_buffers, and older versions do not know the new name
            warnings.simplefilter("ignore", FutureWarning)
            ddp = DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)
        if self.device.type == "cpu" and self.size > 2:
            # DDP would order its buckets anew after the first step. Where three or more add up, a step would then
            # differ in its last bits between a run that went on and one that was resumed there.
            ddp.reducer._push_all_rebuilt_params()
        return ddp

    def without_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Gradients of a backward pass in here stay on this rank and add to the next one's."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def raise_together(self, function: Callable[[], T]) -> T:
        """What ``function`` returns on this rank; a ``RunEnded`` that any rank raises is raised on every rank.

        Every rank must call it, so that no rank waits in a later collective for one that has ended.
        """
        result, ended = None, None
        try:
            result = function()
        except RunEnded as error:
            ended = error
        for rank, of_rank in enumerate(self.gather(ended)):
            if of_rank is not None:
                raised = ended if ended and rank == self.rank else of_rank
                raised.is_on_every_rank = True
                # the rank that raised it prints it
                raised.is_said_elsewhere = rank != self.rank
                raise raised
        return result  # type: ignore[return-value]

    def on_chief(self, function: Callable[[], T]) -> T:
        """Call ``function`` on the chief alone and return its result, or raise its ``RunEnded``, on every rank."""
        message = [self.raise_together(lambda: function() if self.is_chief else None)]
        if self.size > 1:
            dist.broadcast_object_list(message, src=0, device=torch.device("cpu"))
        return message[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value``, in the order of ranks, on every rank; tensors in it must be on the CPU."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def send_to_chief(self, value: T, ranks: Sequence[int]) -> list[T]:
        """What each of ``ranks`` gives as ``value``, in that order, on the chief; [] on any other rank.

        Every rank must call it with the same ``ranks``; those that are not among them send nothing. Tensors must be on
        the CPU.
        """
        cpu = torch.device("cpu")
        if not self.is_chief:
            if self.rank in ranks:
                dist.send_object_list([value], dst=0, device=cpu)
            return []
        values = []
        for rank in ranks:
            message = [value]
            if rank != self.rank:
                dist.recv_object_list(message, src=rank, device=cpu)
            values.append(message[0])
        return values

    def vote(self, yes: bool) -> bool:
        """Cast this rank's vote, and return whether any rank voted yes at the call before this one.

        Every rank must call it equally often. The votes of the call before have long arrived, so nothing waits. A
        single process gets its own vote back at once.
        """
        if self.size == 1:
            return yes
        result = False
        if self._pending_vote is not None:
            work, votes = self._pending_vote
            work.wait()
            result = bool(votes.item())
        votes = torch.tensor(int(yes))
        work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, async_op=True)
        self._pending_vote = (work, votes)
        return result
