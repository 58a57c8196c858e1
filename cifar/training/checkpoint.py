"""Where a running trial stands after each epoch, so that one that NNI starts again continues instead of repeating."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar.system.files import new_file, read_tensors
from cifar.training.optimizers import Optimizer
from cifar.training.train import EpochMetrics

_FORMAT = 3  # raise this when what a checkpoint holds changes

logger = logging.getLogger(__name__)


class Checkpoint:
    """One trial's checkpoint file. A checkpoint of another `identity`, of network and data, is not continued."""

    def __init__(self, path: Path, identity: dict[str, object]) -> None:
        self.path = path
        self.identity = {**identity, "format": _FORMAT}

    def save(self, model: nn.Module, optimizer: Optimizer, history: list[EpochMetrics], predictions: Tensor) -> None:
        """Replace what was saved. A full disk costs the repetition of some epochs, and not the trial."""
        state = {
            "identity": self.identity,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": [asdict(metrics) for metrics in history],
            "predictions": predictions,
        }
        try:
            with new_file(self.path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:  # PyTorch says by either that it cannot write
            logger.warning("checkpoint %s cannot be written: %s", self.path, error)

    def restore(self, model: nn.Module, optimizer: Optimizer) -> tuple[list[EpochMetrics], Tensor] | None:
        """Load what was saved into `model` and `optimizer`, and return the epochs behind it and their last predictions.

        None where there is nothing, or nothing fit.
        """
        state = self._read(next(model.parameters()).device)
        if state is None:
            return None
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return [EpochMetrics(**metrics) for metrics in state["history"]], state["predictions"]

    def _read(self, device: torch.device) -> Any:
        if not self.path.exists():
            return None
        try:
            state = read_tensors(self.path, device)
            if state["identity"] == self.identity:
                return state
            reason = "it belongs to other hyperparameters, data or software"
        except Exception as error:  # as read_tensors says
            reason = f"it cannot be read ({type(error).__name__})"
        logger.warning("checkpoint %s is not used, %s; training starts from the beginning", self.path, reason)
        return None
