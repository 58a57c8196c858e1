"""Which GPU a trial uses, or how many threads: a claim that dies with the process.

NNI's own GPU scheduler is not used: NNI 3.0 starves or floods the machine with it. Each trial claims for itself.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from filelock import BaseFileLock
from joblib import cpu_count

from cifar.errors import RequestError
from cifar.system import locks
from cifar.system.gpus import Gpu, list_gpus, show_only
from cifar.training.distributed import ALONE, Processes
from cifar.training.hparams import Hparams

# With fewer images, threads mostly wait for each other: a batch of 16 is no faster on two cores, and many times slower
# when other processes want them.
_IMAGES_PER_THREAD = 16


@dataclass(frozen=True)
class Claim:
    """A device, and a fair part of the cores where `trials` use them at once; held while this object lives."""

    device: torch.device
    trials: int
    world_size: int  # processes of this trial
    shares: tuple[BaseFileLock, ...]

    def threads(self, hparams: Hparams) -> int:
        """All trials together use the cores once, and each process no more threads than its micro-batches feed."""
        share: int = cpu_count() // (self.trials * self.world_size)
        images = math.ceil(hparams.batch_size / hparams.gradient_accumulation_steps / self.world_size)
        return max(1, min(share, images // _IMAGES_PER_THREAD))


def claim(concurrency: int, experiment: str | None = None, processes: Processes = ALONE) -> Claim:
    """The GPU with the fewest trials, else the CPU. CUDA must sleep as yet: it then wakes with that GPU alone, cuda:0.

    The cores are divided among the `concurrency` trials of this experiment and the running trials of others. Of
    processes that train together the main one claims a GPU for each at once: no trial holds one and waits for another.
    RequestError where there are fewer GPUs than processes.
    """
    shares = list[BaseFileLock]()

    def choose() -> tuple[list[Gpu], int]:
        with locks.choosing():
            cores = f"cores.{experiment or f'alone-{os.getpid()}'}"
            others = locks.count_shares("cores") - locks.count_shares(cores)
            gpus = choose_gpus(list_gpus(), processes.world_size)
            shares.extend(locks.take_share(name) for name in [cores, *(gpu.share for gpu in gpus)])
        return gpus, concurrency + others

    gpus, trials = processes.broadcast(choose)
    device = show_only(gpus[processes.rank]) if gpus else torch.device("cpu")
    processes.connect(device)
    return Claim(device, trials, processes.world_size, tuple(shares))


def choose_gpus(gpus: list[Gpu], count: int) -> list[Gpu]:
    """The GPUs in which the fewest trials have a share, among equals those with the least memory in use; [] of none.

    Trials share GPUs evenly and never wait. Call it under locks.choosing().
    """
    if 0 < len(gpus) < count:
        raise RequestError(f"{count} processes need a GPU each, and this machine shows {len(gpus)}")
    return sorted(gpus, key=lambda gpu: (locks.count_shares(gpu.share), gpu.memory_used))[:count]
