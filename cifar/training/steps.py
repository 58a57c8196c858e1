"""Which form of a training step is fastest where the network is. All have the same losses, to rounding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cifar.training.cpu_step import CpuStep, keep_freed_memory
from cifar.training.cuda_step import CudaGraphStep
from cifar.training.distributed import ALONE, Processes
from cifar.training.distributed_step import DistributedStep
from cifar.training.hparams import Hparams
from cifar.training.models import Net, Network
from cifar.training.optimizers import Optimizer
from cifar.training.plain_step import train_step

Step = Callable[[Tensor, Tensor], Tensor]  # a batch's images and labels -> the sum of their losses


def new_step(model: Network, optimizer: Optimizer, hparams: Hparams, processes: Processes = ALONE) -> Step:
    """A step that trains this model by this optimizer."""
    device = next(model.parameters()).device
    hparams = replace(hparams, precision=precision_on(device, hparams))
    if device.type == "cpu":
        keep_freed_memory()
    if processes.world_size > 1:
        return DistributedStep(model, optimizer, hparams, processes)
    if type(model) is Net and _is_written_out(device, hparams):
        return CpuStep(model, optimizer, hparams.gradient_accumulation_steps)
    step = partial(train_step, model, optimizer, hparams)
    return CudaGraphStep(step, model, optimizer) if device.type == "cuda" else step


def _is_written_out(device: torch.device, hparams: Hparams) -> bool:
    """Whether cpu_step.py knows such a step of a Net."""
    return device.type == "cpu" and hparams.precision == "float32" and not hparams.label_smoothing


@contextmanager
def smallest_numbers_as_zero() -> Iterator[None]:
    """A CPU is slow at those below 1e-38, to which momentum of units that no longer learn fades (results/denormals.md).

    It is a setting of the thread, and other arithmetic in it may need them.
    """
    before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def precision_on(device: torch.device, hparams: Hparams) -> str:
    """The arithmetic that `auto` chooses on this device, else the one that `hparams` name."""
    if hparams.precision != "auto":
        return hparams.precision
    has_bfloat16 = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
