"""How good a network is on some images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar.data.datasets import Dataset, batches
from cifar.training.distributed import ALONE, Processes

_BATCH, _BATCH_ON_CPU = 512, 128  # larger ones leave a CPU's caches


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracies as fractions, and the predicted label of each image.

    The balanced accuracy is the mean of the accuracies of the classes that have images.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    predictions: Tensor


def evaluate(
    model: nn.Module, dataset: Dataset, index: Tensor, processes: Processes = ALONE, precision: str = "float32"
) -> Evaluation:
    """The evaluation of the images at `index`, of which several processes take a shard each."""
    total, predictions = _predict(model, dataset, processes.shard(index), precision)
    total, predictions = processes.all_reduce(total), processes.all_gather(predictions)
    labels = dataset.labels[index].cpu()
    correct = (predictions == labels).double()
    return Evaluation(total.item() / len(index), correct.mean().item(), _balanced(correct, labels), predictions)


def _balanced(correct: Tensor, labels: Tensor) -> float:
    images = labels.bincount()
    right = labels.bincount(correct, minlength=len(images))
    return (right / images)[images > 0].mean().item()


@torch.inference_mode()
def _predict(model: nn.Module, dataset: Dataset, index: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """The sum of the losses of the images at `index`, and the label that the model predicts for each."""
    model.eval()
    on = index.device
    total = torch.zeros((), device=on)
    predictions = [index[:0]]
    for images, labels in batches(dataset, index, _BATCH_ON_CPU if on.type == "cpu" else _BATCH):
        with torch.autocast(on.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(images).float()
        total += F.cross_entropy(logits, labels, reduction="sum")
        predictions.append(logits.argmax(1))
    return total, torch.cat(predictions)


def class_accuracies(evaluation: Evaluation, dataset: Dataset, index: Tensor) -> dict[str, float]:
    """Accuracy of each class that has images in `index`, in the data set's order."""
    labels = dataset.labels[index].cpu()
    correct = (evaluation.predictions == labels).double()
    return {
        name: correct[labels == label].mean().item()
        for label, name in enumerate(dataset.classes)
        if (labels == label).any()
    }
