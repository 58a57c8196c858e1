"""Training images as an epoch shows them: mirrored, moved by a few pixels and recoloured, where the images are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cifar.data.datasets import epoch_generator
from cifar.training.hparams import Hparams

_SHARES = torch.tensor([1.0, 1.0, 1.0, 0.4, 0.4, 0.4])  # of the jitter: as much of a tint makes other colours of them


def fitting(hparams: Hparams, data_name: str) -> Hparams:
    """These hyperparameters without mirror images where a mirror image is of no class: a mirrored digit is no digit."""
    return replace(hparams, flip=False, tta_flip=False) if data_name == "digits" else hparams


class Augmentation:
    """What one epoch does to each image of a data set; the same for the same seed and epoch on any device."""

    def __init__(self, hparams: Hparams, images: int, epoch: int, device: torch.device) -> None:
        # Half of the images begin mirrored, and each is mirrored in every other epoch: in two epochs the network sees
        # both, where chance would show half of the images twice the same way.
        same_each_epoch = torch.Generator().manual_seed(hparams.seed)
        flipped = torch.randint(2, (images,), generator=same_each_epoch) == epoch % 2
        generator = epoch_generator(hparams.seed, epoch)
        shifts = torch.randint(-hparams.translate, hparams.translate + 1, (2, images), generator=generator)
        self.flipped = (flipped if hparams.flip else torch.zeros_like(flipped)).to(device)
        self.down, self.right = shifts.to(device)
        self.factors: Tensor | None = None  # of each image's brightness, contrast, saturation, red, green and blue
        if hparams.color_jitter:
            drawn = 2 * torch.rand(images, 6, generator=generator) - 1
            self.factors = (1 + hparams.color_jitter * _SHARES * drawn).to(device)

    def __call__(self, pixels: Tensor, index: Tensor) -> Tensor:
        """The images at `index` of all pixels (N x height x width x 3); a moved image is mirrored at its edge."""
        height, width = pixels.shape[1:3]
        rows = _inside(torch.arange(height, device=index.device) - self.down[index, None], height)
        columns = _inside(torch.arange(width, device=index.device) - self.right[index, None], width)
        columns = torch.where(self.flipped[index, None], width - 1 - columns, columns)
        seen = pixels[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return seen if self.factors is None else _recoloured(seen, self.factors[index])


def _recoloured(pixels: Tensor, factors: Tensor) -> Tensor:
    """Contrast changes around an image's mean, saturation around the grey of each pixel, and the light has a tint.

    A grey image stays grey.
    """
    has_colour = (pixels != pixels[..., :1]).flatten(1).any(1)
    tint = torch.where(has_colour[:, None], factors[:, 3:], 1.0)[:, None, None]
    brightness, contrast, saturation = factors[:, :3].T[:, :, None, None, None]
    images = pixels.float()
    mean = images.mean((1, 2, 3), keepdim=True)
    images = ((images - mean) * contrast + mean) * brightness
    grey = images.mean(3, keepdim=True)
    recoloured: Tensor = (grey + (images - grey) * saturation) * tint
    return recoloured.round_().clamp_(0, 255).to(pixels.dtype)


def _inside(places: Tensor, size: int) -> Tensor:
    """Places beyond an edge, reflected at it."""
    return size - 1 - (size - 1 - places.abs()).abs()
