"""The networks; width is their one size knob."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar.hparams import WIDTHS

# Channels of the second convolution and units of the two hidden layers, at the width in WIDTHS.
_LATER_SIZES = {"net": (16, 120, 84), "wide": (128, 1024, 512), "lenet": (32, 120, 84)}


class Net(nn.Module):
    """The CNN of PyTorch's CIFAR-10 tutorial: two 5x5 convolutions, each pooled, and three linear layers.

    Sizes are the outputs of conv1, conv2, fc1 and fc2. Takes N x 3 x 32 x 32 in [-1, 1], gives N x classes logits.
    """

    def __init__(self, sizes: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        channels1, channels2, units1, units2 = sizes
        self.conv1 = nn.Conv2d(3, channels1, 5)
        self.conv2 = nn.Conv2d(channels1, channels2, 5)
        self.fc1 = nn.Linear(channels2 * 5 * 5, units1)
        self.fc2 = nn.Linear(units1, units2)
        self.fc3 = nn.Linear(units2, classes)

    def forward(self, images: Tensor) -> Tensor:
        # ReLU and max-pooling commute exactly; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # N x channels1 x 14 x 14
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # N x channels2 x 5 x 5
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


def layer_sizes(model: str, width: int) -> tuple[int, int, int, int]:
    """Outputs of conv1, conv2, fc1 and fc2: the tutorial's proportions, rounded, scaled to this width."""
    own_width = WIDTHS[model]
    channels2, units1, units2 = (max(1, (size * width + own_width // 2) // own_width) for size in _LATER_SIZES[model])
    return width, channels2, units1, units2


def build_model(model: str, width: int, classes: int) -> Net:
    """A network with PyTorch's default initialisation, drawn from torch's global generator."""
    return Net(layer_sizes(model, width), classes)


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
