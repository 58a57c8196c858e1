"""The curves of a trial that TensorBoard shows, where it is installed."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def add_epoch(directory: Path, epoch: int, metrics: dict[str, float]) -> None:
    """Add an epoch's metrics to the curves; NNI's name `default` becomes accuracy."""
    if writer := _writer(directory):
        for name, value in metrics.items():
            writer.add_scalar("accuracy" if name == "default" else name, value, epoch)
        writer.flush()


@cache
def _writer(directory: Path) -> Any:
    """One for the whole trial; None without TensorBoard, or with one that does not work here."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(directory))
    except Exception as error:  # an extra: its failures are no trial's concern
        logger.warning("no curves for TensorBoard, which does not work here: %s: %s", type(error).__name__, error)
        return None
