"""The GPUs that this process may use, looked at through NVML, the driver's own interface.

CUDA is not woken by it. It reads CUDA_VISIBLE_DEVICES when it wakes, and never again: so a process can still choose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml
import torch

from cifar.errors import RequestError
from cifar.system import environment

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ALL = "all"


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG instance of one; `uuid` is "" where only CUDA knows it, as its first."""

    uuid: str
    name: str
    memory_used: int  # bytes, by anyone

    @property
    def share(self) -> str:
        """The name of this GPU in locks.py."""
        return f"gpu.{self.uuid}"


@dataclass(frozen=True)
class _Card:
    """A GPU as the driver numbers it, and what of it can be used: itself, or its MIG instances."""

    uuid: str
    name: str
    parts: list[Gpu]


def list_gpus() -> list[Gpu]:
    """The GPUs that the user's CUDA_VISIBLE_DEVICES shows, by CUDA's own rules; all where it is not set.

    MIG instances count as GPUs, each for itself. The numbers are those of nvidia-smi. RequestError where CUDA would
    count in another order.
    """
    if torch.version.cuda is None:
        return []
    with _nvml() as is_there:
        if not is_there:  # some containers lack it
            return [Gpu("", "GPU", 0)] if torch.cuda.device_count() else []
        cards = list(_cards())
    visible = os.environ.get(environment.VISIBLE_GPUS, os.environ.get(_VISIBLE, _ALL))
    return [gpu for card in cards for gpu in card.parts] if visible == _ALL else _shown(cards, visible.split(","))


def show_only(gpu: Gpu) -> torch.device:
    """Let CUDA in this process see one GPU, its number 0; processes that it starts may still choose among all."""
    if gpu.uuid:
        if torch.cuda.is_initialized():
            raise RuntimeError("CUDA is awake in this process: it no longer hears which GPU to use")
        os.environ.setdefault(environment.VISIBLE_GPUS, os.environ.get(_VISIBLE, _ALL))
        os.environ[_VISIBLE] = gpu.uuid
    return torch.device("cuda", 0)


@contextmanager
def _nvml() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _cards() -> Iterator[_Card]:
    for number in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            yield _Card(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle), list(_parts(handle)))
        except pynvml.NVMLError:  # a broken one keeps its number
            yield _Card("", "", [])


def _parts(handle: Any) -> Iterator[Gpu]:
    if not _is_divided(handle):
        yield _gpu(handle)
        return
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except pynvml.NVMLError:  # no instance has this number
            continue
        yield _gpu(instance)


def _is_divided(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:  # most GPUs cannot be
        return False


def _gpu(handle: Any) -> Gpu:
    try:
        used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:  # memory that the GPU shares with the machine is not counted
        used = 0
    return Gpu(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle), used)


def _shown(cards: list[_Card], entries: list[str]) -> list[Gpu]:
    """In the order of the entries, up to the first that names none; none at all where an entry stands twice."""
    shown = list[Gpu]()
    for entry in entries:
        found = _named(cards, entry.strip())
        if not found:
            break
        shown += found
    return shown if len(set(shown)) == len(shown) else []


def _named(cards: list[_Card], entry: str) -> list[Gpu]:
    """What a number, or the beginning of a UUID that no other has, stands for."""
    if entry.isdecimal():
        if len({card.name for card in cards}) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise RequestError(
                f"{_VISIBLE}={entry} is ambiguous on a machine with different GPUs: name them by UUID (nvidia-smi -L), "
                "or set CUDA_DEVICE_ORDER=PCI_BUS_ID to count as nvidia-smi does"
            )
        return cards[int(entry)].parts if int(entry) < len(cards) else []
    if not entry.startswith(("GPU-", "MIG-")):
        return []
    fitting = [card.parts for card in cards if card.uuid.startswith(entry)]
    fitting += [[gpu] for card in cards for gpu in card.parts if gpu.uuid != card.uuid and gpu.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else []
