"""Labels that a model predicts for some images beside the true ones, and its surest mistakes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cifar.data.datasets import Dataset, batches
from cifar.inference.model_file import SavedModel
from cifar.trials.predictions import Predictions, confusion_matrix

_BATCH = 512


@dataclass(frozen=True)
class Answers:
    """Some images and a network's answers: drawn at random, and its mistakes, the surest first; all in a table."""

    drawn: list[Example]
    worst: list[Example]
    confusion: NDArray[np.int64]  # true classes down, predicted across


@dataclass(frozen=True)
class Example:
    """An image as a data URI, its class, and the class that the model gives it with that probability."""

    image: str
    truth: str
    predicted: str
    probability: float


def of_model(model: SavedModel, dataset: Dataset, index: Tensor, number: int) -> Answers:
    """To the images in `index`; `number` of them and of the mistakes are shown, drawn with a fixed seed."""
    with torch.inference_mode():
        logits = torch.cat([model.network(images) for images, _ in batches(dataset, index, _BATCH)])
    surest, predicted = logits.softmax(1).max(1)
    drawn = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:number]
    wrong = (predicted != dataset.labels[index]).nonzero().flatten()
    worst = wrong[surest[wrong].argsort(descending=True)][:number]

    def example(place: int) -> Example:
        image = int(index[place])
        names = dataset.classes[int(dataset.labels[image])], dataset.classes[int(predicted[place])]
        return Example(_data_uri(dataset.images[image]), *names, float(surest[place]))

    predictions = Predictions(predicted.numpy(), dataset.labels[index].numpy())
    confusion = confusion_matrix([predictions], len(dataset.classes))
    return Answers([*map(example, drawn.tolist())], [*map(example, worst.tolist())], confusion)


def _data_uri(image: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
