"""The recipe's defaults as a training on so many images would have them: what a tuned network has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from cifar.training.hparams import Hparams

RECIPES_IMAGES = 45_000  # CIFAR-10's without those to validate on: for them the recipes were made
_EPOCHS_POWER = 0.5  # of how many times fewer the images are, by which there are more epochs (results/recipes/2000.md)
_FEWEST_STEPS = 400  # by the table of fast on 2,000 images they are worth 6 points more than 100
# Few images that are shown often have to change, or fast knows them by heart: of 2,000 images colours that change are
# worth 3.7 points in 47 epochs, and cost as much in five (results/colours/2000.md).
_COLOR_JITTER = {"fast": 0.5}
_FEW_IMAGES, _OFTEN = 10_000, 16
_SMALLEST_BATCH = {"fast": 16}  # which normalises by the images of a batch; of other networks 4
# How much further an image may move the parameters than by the recipe. Trainings of fast that show 80 to 400 images in
# all have 9 to 17 points more with this limit than without (three classes, three seeds); those of net have not.
_MOST_GROWN = {"fast": 10.0}
_FALLING = 2.0  # a rate that falls is half as high in the mean as at its peak


def smallest_batch(model: str) -> int:
    """The smallest batch size that fewer images give a network."""
    return _SMALLEST_BATCH.get(model, 4)


def for_data(given: Mapping[str, object], images: int) -> Hparams:
    """What `trial.py` trains that is given no more than this: on as many images as CIFAR-10's, the recipe itself."""
    return Hparams.from_params(given) if images >= RECIPES_IMAGES else for_budget(given, images)


def for_budget(given: Mapping[str, object], images: int) -> Hparams:
    """What `given` names, and for all else the recipe, with batches and steps that fit a training on `images` images.

    A recipe is made for its own epochs of CIFAR-10; of fewer images there are more epochs. A batch is halved until
    there are enough of them. How far one image moves the parameters stays the same, whatever batch size and momentum
    are; with fewer images in all each moves them further, by the root of how many times fewer (results/table.md). Few
    images change their colours where they are shown often.
    """
    recipe, asked = Hparams.from_params({"model": given.get("model", "net")}), Hparams.from_params(given)
    if "epochs" not in given:
        asked = replace(asked, epochs=round(asked.epochs * max(1.0, RECIPES_IMAGES / images) ** _EPOCHS_POWER))
    seen = asked.epochs * asked.epoch_images(images)
    if "color_jitter" not in given and images <= _FEW_IMAGES and seen >= _OFTEN * images:
        asked = replace(asked, color_jitter=_COLOR_JITTER.get(asked.model, 0.0))
    batch_size, least = asked.batch_size, 2 * max(smallest_batch(asked.model), asked.gradient_accumulation_steps)
    while "batch_size" not in given and batch_size >= least and seen < _FEWEST_STEPS * batch_size:
        batch_size //= 2
    lr = asked.lr
    if "lr" not in given and asked.optimizer == "sgd":
        lr *= batch_size / recipe.batch_size * (1 - asked.momentum) / (1 - recipe.momentum)
        lr *= min(_MOST_GROWN.get(asked.model, math.inf), math.sqrt(max(1.0, recipe.epochs * RECIPES_IMAGES / seen)))
        lr *= _FALLING if asked.schedule == "triangular" != recipe.schedule else 1.0
        lr = float(f"{lr:.2g}")
    return replace(asked, batch_size=batch_size, lr=lr)
