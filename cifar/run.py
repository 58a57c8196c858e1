"""One trial, run to a result however it ends: finite metrics, a status and a reason."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version

import torch
from torch import nn

from cifar.data import Dataset, Splits
from cifar.hparams import Hparams
from cifar.models import parameter_count
from cifar.result import Result, Status
from cifar.train import Diverged, EpochMetrics, new_model, train


def run_trial(
    hparams: Hparams,
    dataset: Dataset,
    splits: Splits,
    device: torch.device,
    on_epoch: Callable[[EpochMetrics], None],
) -> tuple[Result, nn.Module | None]:
    """Train on `device` to a Result; the model comes with it unless the trial failed."""
    history: list[EpochMetrics] = []
    model: nn.Module | None = None
    try:
        dataset, splits = dataset.to(device), splits.to(device)
        model = new_model(hparams, dataset)
        for metrics in train(model, hparams, dataset, splits):
            history.append(metrics)
            on_epoch(metrics)
        result = _ended("ok", f"trained {len(history)} epochs", history, model)
    except Diverged as error:
        result, model = _failed("diverged", str(error), history, dataset), None
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        result, model = _failed("out_of_memory", str(error).splitlines()[0], history, dataset), None
    except KeyboardInterrupt:
        result = _ended("interrupted", f"interrupted after {len(history)} epochs", history, model)
    return replace(result, details=_details(hparams, dataset, splits, device)), model


def _is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch's own allocator has a class for it; CUDA's libraries and the CPU's allocator only say so."""
    texts = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: ")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def epoch_metrics(metrics: EpochMetrics) -> dict[str, float]:
    """One epoch under NNI's names: `default` is the validation accuracy, which the tuner maximises."""
    return {
        "default": metrics.accuracy,
        "loss": metrics.loss,
        "train_loss": metrics.train_loss,
        "images_per_second": metrics.images_per_second,
        "seconds": metrics.seconds,
    }


def _ended(status: Status, reason: str, history: list[EpochMetrics], model: nn.Module | None) -> Result:
    """The last epoch is the result; the best one stands beside it, for choosing by it would flatter."""
    if not history or model is None:
        return Result(status, reason)
    best = max(history, key=lambda metrics: metrics.accuracy)
    metrics = epoch_metrics(history[-1]) | {
        "best_accuracy": best.accuracy,
        "best_epoch": float(best.epoch),
        "epochs": float(len(history)),
        "parameters": float(parameter_count(model)),
    }
    return Result(status, reason, metrics, len(history), history[-1].seconds)


def _failed(status: Status, reason: str, history: list[EpochMetrics], dataset: Dataset) -> Result:
    """The figures of guessing: finite, and bad enough that the tuner learns to keep away."""
    chance, seconds = 1 / len(dataset.classes), history[-1].seconds if history else 0.0
    metrics = {
        "default": chance,
        "loss": math.log(len(dataset.classes)),
        "train_loss": math.log(len(dataset.classes)),
        "images_per_second": 0.0,
        "seconds": seconds,
        "epochs": float(len(history)),
    }
    return Result(status, reason, metrics, len(history), seconds)


def _details(hparams: Hparams, dataset: Dataset, splits: Splits, device: torch.device) -> dict[str, object]:
    return {
        "hparams": asdict(hparams),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "split_fingerprint": splits.fingerprint,
            "train_images": len(splits.train),
            "val_images": len(splits.val),
            "classes": len(dataset.classes),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("cifar-nni", "torch", "nni", "numpy")},
    }
