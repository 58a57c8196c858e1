"""One training by several processes: `torchrun --nproc-per-node N trial.py`. Each takes its part of every batch.

The process of rank 0 leads: it alone speaks to NNI, prints and writes. A process that no torchrun started is the only
one, and every function here returns what that means.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from cifar.system import processes

T = TypeVar("T")

_INTERRUPT_SECONDS = 1.0  # within which an interrupt reaches all processes
_PATIENCE_SECONDS = 5.0  # in which a process that waits for one that has told of its end is to notice by itself
# Words that a process leaves for the others.
_OUT_OF_MEMORY, _FAILURE = "cifar/out_of_memory", "cifar/failure"

_store: Any = None  # torchrun's, which outlives the processes
_gpus: Any = None  # the group that exchanges GPUs' tensors


class PeerLost(Exception):
    """Another process of this training has ended before its time."""

    def __init__(self) -> None:
        super().__init__("another process of this trial has ended")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Find the other processes, and train with them while the block lasts."""
    global _store
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_peer_lost)  # torchrun sends it when a process has died
    processes.end_with(os.getppid())  # torchrun's, which would not end its processes if it were killed
    _store, own_rank, number = next(rendezvous("env://"))
    dist.init_process_group("gloo", store=_store, rank=own_rank, world_size=number)
    yield
    dist.destroy_process_group()  # not after an error: it might wait for processes that have ended


def connect(device: torch.device) -> None:
    """Let the processes exchange the tensors of this process's device; before, they exchange those of the CPU alone."""
    global _gpus
    if size() > 1 and device.type == "cuda":  # not sooner: NCCL wakes CUDA, which then sees what it is to use
        torch.cuda.set_device(device)
        _gpus = dist.new_group(backend="nccl")


def _group_of(tensor: Tensor) -> Any:
    """The processes as they exchange such a tensor; None: as they do from the beginning."""
    return _gpus if tensor.is_cuda else None


def end(code: int) -> NoReturn:
    """Leave this process. Several leave without the interpreter's own end: threads of PyTorch's may abort it."""
    if _store is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _raise_peer_lost(*_: object) -> None:
    raise PeerLost


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this process speaks for the training."""
    return rank() == 0


def shared(ask: Callable[[], T]) -> T:
    """What `ask` returns in the leading process, which alone calls it."""
    if size() == 1:
        return ask()
    answer = [ask() if leads() else None]
    with peers_named():
        dist.broadcast_object_list(answer)
    return answer[0]  # type: ignore[return-value]


def part(batch: Tensor) -> Tensor:
    """This process's part of a batch that all of them have; empty where they outnumber it."""
    return batch.tensor_split(size())[rank()]


def total(value: Tensor) -> Tensor:
    """The sum of all processes' values."""
    if size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value, group=_group_of(value))
    return value


def total_with_gradient(value: Tensor) -> Tensor:
    """The same, and the gradient finds its way back to each process's value."""
    summed: Tensor = _Total.apply(value)
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return total(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return total(gradient)  # each process's value is in the sum of all


def together(own: Tensor) -> Tensor:
    """What `part` took apart, each process's part of it put together again; on the CPU."""
    if size() == 1:
        return own.cpu()
    parts: list[Tensor] = [torch.empty(0)] * size()
    dist.all_gather_object(parts, own.cpu())
    return torch.cat(parts)


def wrapped(model: nn.Module) -> nn.Module:
    """The model, its gradients the mean of all processes'."""
    return nn.parallel.DistributedDataParallel(model, process_group=_group_of(next(model.parameters())))


def accumulating(model: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Around a micro-batch: gradients are exchanged after the last one only."""
    if last or not isinstance(model, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    without_exchange: contextlib.AbstractContextManager[None] = model.no_sync()
    return without_exchange


def tell_out_of_memory(reason: str) -> None:
    """Leave word for the others. A process that does not lead ends here: nothing that it has begun is to hold it up."""
    if _store:
        _store.set(_OUT_OF_MEMORY, reason)
        if not leads():
            end(0)


def tell_failure(reason: str) -> None:
    """Leave word of an error for the leading process, which will find this one gone."""
    if _store and not leads():
        _store.set(_FAILURE, reason)


def told_failure() -> str | None:
    """The error that a lost process has told of; None of one that was killed."""
    return _store.get(_FAILURE).decode() if _store and _store.check([_FAILURE]) else None


@contextlib.contextmanager
def bounded(on_out_of_memory: Callable[[str], None]) -> Iterator[None]:
    """Around a training: when a process has told of its want of memory, no other one waits for it for long.

    NCCL would, for minutes, and then abort. The leading process calls `on_out_of_memory`, in a thread, before it ends.
    """
    if _store is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            if _store.check([_OUT_OF_MEMORY]) and not over.wait(_PATIENCE_SECONDS):
                if leads():
                    on_out_of_memory(_store.get(_OUT_OF_MEMORY).decode())
                end(0)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def peers_named() -> Iterator[None]:
    """Where another process is waited for in vain, raise why: its want of memory, the user's interrupt, or PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if size() == 1 or not _is_of_the_connection(error):
            raise
        time.sleep(_INTERRUPT_SECONDS)  # an interrupt reaches all processes, but not at the same moment
        if _store and _store.check([_OUT_OF_MEMORY]):
            raise torch.OutOfMemoryError(_store.get(_OUT_OF_MEMORY).decode()) from error
        raise PeerLost from error


def _is_of_the_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)
