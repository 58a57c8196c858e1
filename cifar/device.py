"""Which GPU a trial uses, or how many threads: a claim that dies with the process.

NNI's own GPU scheduler is not used: NNI 3.0 starves or floods the machine with it. Each trial claims for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import BaseFileLock, FileLock
from joblib import cpu_count

from cifar import claims

# With fewer, threads mostly wait for each other: a batch of 4 is no faster on two cores, and three times slower when
# another process wants one of them.
_IMAGES_PER_THREAD = 8


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use: CUDA's index, an id equal in all processes, and bytes in use by anyone."""

    index: int
    uuid: str
    memory_used: int


@dataclass(frozen=True)
class Claim:
    """A device and a number of CPU threads, held while this object lives."""

    device: torch.device
    threads: int
    lock: BaseFileLock | None = None


def claim(concurrency: int, batch_size: int) -> Claim:
    """The least-loaded GPU, else the CPU, with this trial's share of the cores among `concurrency` trials."""
    threads = max(1, min(cpu_count() // concurrency, batch_size // _IMAGES_PER_THREAD))
    gpus = list_gpus()
    if not gpus:
        return Claim(torch.device("cpu"), threads)
    gpu, lock = claim_gpu(gpus)
    return Claim(torch.device("cuda", gpu.index), threads, lock)


def list_gpus() -> list[Gpu]:
    """The GPUs that CUDA shows this process; the one place where devices are counted."""
    return [
        Gpu(index, str(torch.cuda.get_device_properties(index).uuid), _memory_used(index))
        for index in range(torch.cuda.device_count())
    ]


def claim_gpu(gpus: list[Gpu], directory: Path | None = None) -> tuple[Gpu, BaseFileLock]:
    """Lock a slot of the GPU with the fewest claims, among equals the one with the least memory in use.

    A GPU has as many slots as it has claims, so that trials share GPUs evenly and never wait.
    """
    directory = directory or claims.directory()
    with FileLock(directory / "choosing.lock"):
        held = {gpu.uuid: sum(not _is_free(slot) for slot in _slots(directory, gpu)) for gpu in gpus}
        chosen = min(gpus, key=lambda gpu: (held[gpu.uuid], gpu.memory_used, gpu.index))
        free = [slot for slot in _slots(directory, chosen) if _is_free(slot)]
        lock = claims.try_claim(free[0] if free else directory / f"gpu-{chosen.uuid}-{held[chosen.uuid]}.lock")
        assert lock is not None  # nobody else may choose meanwhile
        return chosen, lock


def _slots(directory: Path, gpu: Gpu) -> list[Path]:
    return sorted(directory.glob(f"gpu-{gpu.uuid}-*.lock"))


def _is_free(slot: Path) -> bool:
    lock = claims.try_claim(slot)
    if lock is not None:
        lock.release()
    return lock is not None


def _memory_used(index: int) -> int:
    try:
        return torch.cuda.device_memory_used(index)
    except Exception:  # no NVML in some containers; the claims still spread the trials
        return 0
