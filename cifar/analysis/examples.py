"""Labels that a model predicts for some images beside the true ones, and its surest mistakes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from cifar.data.datasets import Dataset, batches
from cifar.inference.model_file import SavedModel

_BATCH = 512


@dataclass(frozen=True)
class Example:
    """An image as a data URI, its class, and the class that the model gives it with that probability."""

    image: str
    truth: str
    predicted: str
    probability: float


def of_model(model: SavedModel, dataset: Dataset, index: Tensor, number: int) -> tuple[list[Example], list[Example]]:
    """`number` of the images in `index`, drawn with a fixed seed, and as many wrong answers, the surest first."""
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

    return [example(place) for place in drawn.tolist()], [example(place) for place in worst.tolist()]


def _data_uri(image: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
