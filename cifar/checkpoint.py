"""Where a running trial stands after each epoch, so that one that NNI starts again continues instead of repeating."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar.files import new_file
from cifar.optimizers import Optimizer
from cifar.train import EpochMetrics

logger = logging.getLogger(__name__)


class Checkpoint:
    """One trial's checkpoint file. `identity` says what is trained on what: another's checkpoint is not continued."""

    def __init__(self, path: Path, identity: dict[str, object]) -> None:
        self.path = path
        self.identity = identity

    def save(self, model: nn.Module, optimizer: Optimizer, history: list[EpochMetrics]) -> None:
        state = {
            "identity": self.identity,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": [asdict(metrics) for metrics in history],
        }
        with new_file(self.path) as temporary:
            torch.save(state, temporary)

    def restore(self, model: nn.Module, optimizer: Optimizer) -> list[EpochMetrics]:
        """Load what was saved into `model` and `optimizer`; returns the epochs behind it, none where none is fit."""
        state = self._read(next(model.parameters()).device)
        if state is None:
            return []
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return [EpochMetrics(**metrics) for metrics in state["history"]]

    def _read(self, device: torch.device) -> Any:
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.testzip() is not None:  # torch.load itself checks no checksum
                    raise zipfile.BadZipFile
            state = torch.load(self.path, map_location=device, weights_only=True)
            if state["identity"] == self.identity:
                return state
            reason = "it belongs to other hyperparameters or data"
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            reason = f"it cannot be read ({type(error).__name__})"
        logger.warning("checkpoint %s is not used, %s; training starts from the beginning", self.path, reason)
        return None
