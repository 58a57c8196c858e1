"""One training by several processes: `torchrun --nproc-per-node N trial.py`. Each takes its shard of every batch."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from cifar.system.processes import end_with, leave

T = TypeVar("T")

_INTERRUPT_SECONDS = 1.0  # within which an interrupt reaches all processes
_PATIENCE_SECONDS = 5.0  # a process that waits for one that has left word of its end is to notice within these
# Words that a process leaves for the others.
_OUT_OF_MEMORY, _FAILURE = "cifar/out_of_memory", "cifar/failure"


class PeerLost(Exception):
    """Another process of this training has ended before its time."""

    def __init__(self) -> None:
        super().__init__("another process of this trial has ended")


class Processes:
    """The processes that train one network. One alone is a group of one, in which nothing has to be exchanged.

    The main process, of rank 0, speaks to NNI, prints and writes. `store` is torchrun's and outlives the processes.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, store: Any = None) -> None:
        self.rank, self.world_size = rank, world_size
        self._store = store
        self._nccl: Any = None  # the group that exchanges the tensors of GPUs; None: gloo's, of the CPU

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def connect(self, device: torch.device) -> None:
        """Exchange this device's tensors too. Before a GPU is claimed, NCCL would wake CUDA with the wrong one."""
        if self.world_size > 1 and device.type == "cuda":
            torch.cuda.set_device(device)
            self._nccl = dist.new_group(backend="nccl")

    def _group_of(self, tensor: Tensor) -> Any:
        return self._nccl if tensor.is_cuda else None

    def broadcast(self, ask: Callable[[], T]) -> T:
        """What `ask` returns in the main process, which alone calls it."""
        if self.world_size == 1:
            return ask()
        answer = [ask() if self.is_main else None]
        with self.naming_lost_peers():
            dist.broadcast_object_list(answer)
        return answer[0]  # type: ignore[return-value]

    def shard(self, batch: Tensor) -> Tensor:
        """This process's part of a batch that all of them have; empty where the processes outnumber its items."""
        return batch.tensor_split(self.world_size)[self.rank]

    def all_reduce(self, value: Tensor) -> Tensor:
        """The sum of all processes' values."""
        if self.world_size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value, group=self._group_of(value))
        return value

    def all_reduce_with_gradient(self, value: Tensor) -> Tensor:
        """The sum of all processes' values, whose gradient finds its way back to each of them."""
        summed: Tensor = _AllReduce.apply(value, self.all_reduce)
        return summed

    def all_gather(self, own: Tensor) -> Tensor:
        """All processes' shards put together again, on the CPU."""
        if self.world_size == 1:
            return own.cpu()
        shards: list[Tensor] = [torch.empty(0)] * self.world_size
        dist.all_gather_object(shards, own.cpu())
        return torch.cat(shards)

    def wrap(self, model: nn.Module) -> nn.parallel.DistributedDataParallel:
        """The model, its gradients the mean of all processes'."""
        group = self._group_of(next(model.parameters()))
        return nn.parallel.DistributedDataParallel(model, process_group=group)

    def tell_out_of_memory(self, reason: str) -> None:
        """Leave word for the others. All but the main process end here: nothing that was begun may hold them up."""
        if self._store:
            self._store.set(_OUT_OF_MEMORY, reason)
            if not self.is_main:
                leave(0)

    def tell_failure(self, reason: str) -> None:
        """Leave word of an error for the main process, which will find this one gone."""
        if self._store and not self.is_main:
            self._store.set(_FAILURE, reason)

    def told_failure(self) -> str | None:
        """The error that a lost process has left word of; None of one that was killed."""
        return self._store.get(_FAILURE).decode() if self._store and self._store.check([_FAILURE]) else None

    @contextlib.contextmanager
    def bounding_waits(self, on_out_of_memory: Callable[[str], None]) -> Iterator[None]:
        """Around a training: nobody waits for long for a process that has run out of memory.

        NCCL would, for minutes, and then abort. The main process calls `on_out_of_memory`, in a thread, and ends.
        """
        if self._store is None:
            yield
            return
        over = threading.Event()
        watcher = threading.Thread(target=self._watch_for_out_of_memory, args=(over, on_out_of_memory), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()

    def _watch_for_out_of_memory(self, over: threading.Event, on_out_of_memory: Callable[[str], None]) -> None:
        while not over.wait(1.0):
            if self._store.check([_OUT_OF_MEMORY]) and not over.wait(_PATIENCE_SECONDS):
                if self.is_main:
                    on_out_of_memory(self._store.get(_OUT_OF_MEMORY).decode())
                leave(0)

    @contextlib.contextmanager
    def naming_lost_peers(self) -> Iterator[None]:
        """Where another process is waited for in vain, raise why: want of memory, the user's interrupt, or PeerLost."""
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1 or not _is_of_the_connection(error):
                raise
            time.sleep(_INTERRUPT_SECONDS)  # an interrupt reaches all processes, but not at the same moment
            if self._store and self._store.check([_OUT_OF_MEMORY]):
                raise torch.OutOfMemoryError(self._store.get(_OUT_OF_MEMORY).decode()) from error
            raise PeerLost from error


ALONE = Processes()


@contextlib.contextmanager
def process_group() -> Iterator[Processes]:
    """Find the other processes, and train with them while the block lasts."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    signal.signal(signal.SIGTERM, _raise_peer_lost)  # torchrun sends it when a process has died
    end_with(os.getppid())  # torchrun's, which would not end its processes if it were killed
    store, rank, world_size = next(rendezvous("env://"))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    yield Processes(rank, world_size, store)
    dist.destroy_process_group()  # not after an error: it might wait for processes that have ended


def _raise_peer_lost(*_: object) -> None:
    raise PeerLost


def _is_of_the_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.all_reduce = all_reduce
        return all_reduce(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.all_reduce(gradient), None  # each process's value is in the sum of all
