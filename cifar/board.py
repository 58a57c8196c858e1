"""What TensorBoard, where it is installed, shows of a trial: its curves and its network."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar import sources


def add_epoch(directory: Path, epoch: int, metrics: dict[str, float]) -> None:
    """The metrics as NNI has them, `default` under the name of what it is."""
    if writer := _writer(directory):
        for name, value in metrics.items():
            writer.add_scalar("accuracy" if name == "default" else name, value, epoch)
        writer.flush()


def add_graph(directory: Path, model: nn.Module) -> None:
    if writer := _writer(directory):
        image = torch.zeros(1, 3, sources.SIZE, sources.SIZE, device=next(model.parameters()).device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TensorBoard's graphs still need torch.jit.trace
            writer.add_graph(model, image)
        writer.flush()


@cache
def _writer(directory: Path) -> Any:
    """One for the whole trial; None without TensorBoard."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory))
