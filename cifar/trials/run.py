"""One trial, run to a result however it ends: finite metrics, a status and a reason."""

from __future__ import annotations

import copy
import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar import __version__
from cifar.data.balance import why_useless
from cifar.data.datasets import Dataset, Splits
from cifar.training.checkpoint import Checkpoint
from cifar.training.distributed import ALONE, Processes
from cifar.training.hparams import Hparams
from cifar.training.models import parameter_count
from cifar.training.steps import precision_on
from cifar.training.train import Diverged, EpochMetrics, new_model, new_optimizer, train
from cifar.trials.result import Result, Status


@dataclass(frozen=True)
class Trained:
    """A network as it was after its last whole epoch, the label that it gave each validation image, on the CPU, and all
    its epochs, those before an interruption too."""

    model: nn.Module
    predictions: Tensor
    history: list[EpochMetrics]


def run_trial(
    hparams: Hparams,
    dataset: Dataset,
    splits: Splits,
    device: torch.device,
    on_epoch: Callable[[list[EpochMetrics]], None],
    checkpoint_path: Path | None = None,
    processes: Processes = ALONE,
    report: Callable[[Result], None] | None = None,
) -> tuple[Result, Trained | None]:
    """Train on `device` to a Result; the trained network comes with it unless the trial failed.

    Calls `on_epoch` with all epochs so far after each. With a checkpoint path, continues from what lies there. `report`
    gets the result instead, and the process ends, where another of the processes has run out of memory.
    """
    checkpoint = Checkpoint(checkpoint_path, _identity(hparams, splits)) if checkpoint_path else None
    training = _Training(hparams, checkpoint, processes)

    def finished(result: Result) -> Result:
        return replace(result, details=_details(hparams, dataset, splits, device, processes))

    def ended(status: Status, how: str) -> Result:
        labels = dataset.labels[splits.val.to(dataset.labels.device)]
        return finished(_ended(status, how, training.trained, hparams.metric, labels, len(dataset.classes)))

    def failed(status: Status, reason: str) -> Result:
        return finished(_failed(status, reason, training.history, dataset))

    def report_out_of_memory(reason: str) -> None:
        if report:
            report(failed("out_of_memory", reason))

    try:
        with processes.bounding_waits(report_out_of_memory), processes.naming_lost_peers():
            training.run(dataset.to(device), splits.to(device), on_epoch)
    except Diverged as error:
        return failed("diverged", str(error)), None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        processes.tell_out_of_memory(reason)
        return failed("out_of_memory", reason), None
    except KeyboardInterrupt:
        return ended("interrupted", "interrupted after"), training.trained
    return ended("ok", "trained"), training.trained


class _Training:
    """A trial's network on its way through the epochs."""

    def __init__(self, hparams: Hparams, checkpoint: Checkpoint | None, processes: Processes) -> None:
        self.hparams, self.checkpoint, self.processes = hparams, checkpoint, processes
        self.trained: Trained | None = None  # one value, so that an interrupt finds a network and its figures, or none

    @property
    def history(self) -> list[EpochMetrics]:
        return _epochs(self.trained)

    def run(self, dataset: Dataset, splits: Splits, on_epoch: Callable[[list[EpochMetrics]], None]) -> None:
        model = new_model(self.hparams, dataset)
        optimizer = new_optimizer(model, self.hparams)
        if self.checkpoint and (saved := self.checkpoint.restore(model, optimizer)):
            history, predictions = saved
            self.trained = Trained(copy.deepcopy(model), predictions.cpu(), history)
        first_epoch = len(self.history) + 1
        for epoch in train(model, optimizer, self.hparams, dataset, splits, first_epoch, self.processes):
            history = [*self.history, epoch.metrics]
            self.trained = Trained(copy.deepcopy(model), epoch.predictions.cpu(), history)
            if self.checkpoint and self.processes.is_main:  # before the report: should the manager be gone, all is kept
                self.checkpoint.save(model, optimizer, history, epoch.predictions)
            on_epoch(history)


def restored(
    hparams: Hparams, dataset: Dataset, splits: Splits, device: torch.device, checkpoint_path: Path
) -> Trained | None:
    """The network of a trial as its checkpoint has it; None where there is none, or none that fits."""
    model = new_model(hparams, dataset.to(device))
    saved = Checkpoint(checkpoint_path, _identity(hparams, splits)).restore(model, new_optimizer(model, hparams))
    return Trained(model, saved[1].cpu(), saved[0]) if saved else None


def _epochs(trained: Trained | None) -> list[EpochMetrics]:
    return trained.history if trained else []


def is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch's own allocator has a class for it; CUDA's libraries and the CPU's allocator only say so."""
    texts = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: ")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def epoch_metrics(history: list[EpochMetrics], metric: str) -> dict[str, float]:
    """The last epoch under NNI's names: `default` is the figure of the validation images that the tuner maximises.

    The others are rounded to what they mean, since NNI's page shows every digit.
    """
    return {
        "default": history[-1].of(metric),
        "accuracy": history[-1].accuracy,
        "balanced_accuracy": history[-1].balanced_accuracy,
        "loss": round(history[-1].loss, 4),
        "train_loss": round(history[-1].train_loss, 4),
        "images_per_second": round(history[-1].images_per_second, 1),
        "seconds": round(_seconds(history), 1),
    }


def _seconds(history: list[EpochMetrics]) -> float:
    return sum(metrics.seconds for metrics in history)


def _identity(hparams: Hparams, splits: Splits) -> dict[str, object]:
    """What a checkpoint must agree in to be continued; the split's fingerprint covers the images."""
    return asdict(hparams) | {"split_fingerprint": splits.fingerprint}


def _ended(status: Status, how: str, trained: Trained | None, metric: str, labels: Tensor, classes: int) -> Result:
    """The last epoch is the result; the best one stands beside it, for choosing by it would flatter."""
    history = _epochs(trained)
    reason = f"{how} {len(history)} {'epoch' if len(history) == 1 else 'epochs'}"
    if trained is None:
        return Result(status, reason)
    best = max(history, key=lambda metrics: metrics.of(metric))
    predicted_classes = len(trained.predictions.unique())
    share = _class_shares(labels)["largest_class_share"]
    if why := why_useless(predicted_classes, history[-1].of(metric), metric, share, classes):
        reason += f"; {why}"
    metrics = epoch_metrics(history, metric) | {
        "best_accuracy": best.of(metric),
        "best_epoch": float(best.epoch),
        "predicted_classes": float(predicted_classes),
        "epochs": float(len(history)),
        "parameters": float(parameter_count(trained.model)),
    }
    return Result(status, reason, metrics, len(history), _seconds(history))


def _failed(status: Status, reason: str, history: list[EpochMetrics], dataset: Dataset) -> Result:
    """The figures of guessing: finite, and bad enough that the tuner learns to keep away."""
    chance, seconds = 1 / len(dataset.classes), _seconds(history)
    metrics = {
        "default": chance,
        "loss": math.log(len(dataset.classes)),
        "train_loss": math.log(len(dataset.classes)),
        "images_per_second": 0.0,
        "seconds": seconds,
        "epochs": float(len(history)),
    }
    return Result(status, reason, metrics, len(history), seconds)


def _details(
    hparams: Hparams, dataset: Dataset, splits: Splits, device: torch.device, processes: Processes
) -> dict[str, object]:
    return {
        "hparams": asdict(hparams),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "split_fingerprint": splits.fingerprint,
            "train_images": len(splits.train),
            "val_images": len(splits.val),
            **_class_shares(dataset.labels[splits.val.to(dataset.labels.device)]),
            "classes": len(dataset.classes),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": precision_on(device, hparams),
        "processes": processes.world_size,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "cifar-nni": __version__}
        | {name: version(name) for name in ("torch", "nni", "numpy")},
    }


def _class_shares(labels: Tensor) -> dict[str, float]:
    """What guessing the most frequent class would get, and by how many images a balanced accuracy is as good as judged:
    a class of few makes it uncertain."""
    images = labels.bincount().double()
    images = images[images > 0]
    return {
        "largest_class_share": (images.max() / images.sum()).item(),
        "balanced_images": (len(images) ** 2 / (1 / images).sum()).item(),
    }
