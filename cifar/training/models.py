"""The networks; width is their one size knob."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar.data.sizes import SIZE
from cifar.training.hparams import WIDTHS, Hparams

# Channels of the second convolution and units of the two hidden layers, at the width in WIDTHS.
_LATER_SIZES = {"net": (16, 120, 84), "wide": (128, 1024, 512), "lenet": (32, 120, 84)}


class Network(nn.Module):
    """Takes N x 3 x size x size in [-1, 1], gives N x classes logits.

    `tta_flip`: once trained, it gives the mean logits of an image and its mirror image.
    """

    def __init__(self, tta_flip: bool) -> None:
        super().__init__()
        self.tta_flip = tta_flip

    def init_whitening(self, images: Tensor) -> None:
        """Fit the whitening of pixels, where there is one, to training images; called once, before the first step."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training or not self.tta_flip:
            return self.logits(images)
        return (self.logits(images) + self.logits(images.flip(3))) / 2

    def logits(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class Net(Network):
    """The CNN of PyTorch's CIFAR-10 tutorial: two 5x5 convolutions, each pooled, and three linear layers.

    Sizes are the outputs of conv1, conv2, fc1 and fc2.
    """

    def __init__(
        self, sizes: tuple[int, int, int, int], classes: int, tta_flip: bool = False, image_size: int = SIZE
    ) -> None:
        super().__init__(tta_flip)
        channels1, channels2, units1, units2 = sizes
        self.conv1 = nn.Conv2d(3, channels1, 5)
        self.conv2 = nn.Conv2d(channels1, channels2, 5)
        side = ((image_size - 4) // 2 - 4) // 2  # each convolution takes 4 pixels, each pooling halves
        self.fc1 = nn.Linear(channels2 * side**2, units1)
        self.fc2 = nn.Linear(units1, units2)
        self.fc3 = nn.Linear(units2, classes)

    def logits(self, images: Tensor) -> Tensor:
        # ReLU and max-pooling commute exactly; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # of 32 pixels: N x channels1 x 14 x 14
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # N x channels2 x 5 x 5
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


class Fast(Network):
    """A VGG-like network that learns in few epochs: whitened pixels, three groups of two normalised 3x3 convolutions.

    The groups have width, 4 width and 4 width channels. Its ideas, of David Page (whitening, scaled logits), tysam-code
    (identity at the start) and Keller Jordan (quick biases), are in the latter's "94% on CIFAR-10 in 3.29 Seconds on a
    Single GPU" (2024).
    """

    def __init__(self, width: int, classes: int, tta_flip: bool = False) -> None:
        super().__init__(tta_flip)
        self.whiten = Whitening()
        self.groups = nn.Sequential(
            ConvGroup(self.whiten.channels, width), ConvGroup(width, 4 * width), ConvGroup(4 * width, 4 * width)
        )
        self.head = nn.Linear(4 * width, classes, bias=False)

    def init_whitening(self, images: Tensor) -> None:
        self.whiten.fit(images)

    def logits(self, images: Tensor) -> Tensor:
        x = F.gelu(self.whiten(images))  # of 32 pixels: N x 24 x 31 x 31
        x = self.groups(x)  # N x 4 width x 3 x 3
        logits: Tensor = self.head(x.amax((2, 3)))
        return logits / 9  # a gentle start: probabilities are nearly even at first


class Whitening(nn.Module):
    """Projects each 2x2 patch onto the patches' principal components, scaled to variance 1, and onto their negatives.

    Only its bias is learnt.
    """

    _PATCH = 3 * 2 * 2
    channels = 2 * _PATCH
    _LEAST_VARIANCE = 2e-3  # added to each component's: the weakest are mostly noise
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(self.channels, 3, 2, 2))
        self.bias = nn.Parameter(torch.zeros(self.channels))
        nn.init.dirac_(self.weight)  # until it is fitted, it lets pixels through

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, self._PATCH).double()
        variances, components = torch.linalg.eigh(patches.T @ patches / len(patches))
        scaled = (components / (variances + self._LEAST_VARIANCE).sqrt()).T.flip(0)  # the strongest first
        self.weight.copy_(torch.cat([scaled, -scaled]).view_as(self.weight))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight, self.bias)


class ConvGroup(nn.Module):
    """Two 3x3 convolutions, the first one pooled, each normalised and followed by GELU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _identity_conv(channels_in, channels_out), BatchNorm(channels_out)
        self.conv2, self.norm2 = _identity_conv(channels_out, channels_out), BatchNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


def _identity_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Its first outputs are its inputs, until it learns better."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:channels_in].detach())
    return conv


class BatchNorm(nn.Module):
    """Batch normalisation without a learnt scale, its bias learnt as with 64 times the learning rate."""

    _BIAS_SCALE = 8.0  # scales both the bias and its gradient: squared, as if before the learning rate
    _EPSILON = 1e-5
    _NEW_SHARE = 0.4  # of the latest batch in the running statistics: a training has few steps
    mean: Tensor
    variance: Tensor
    all_reduce: Callable[[Tensor], Tensor] | None = None  # the sum over processes that train together

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias * self._BIAS_SCALE
        if self.training and self.all_reduce:
            return self._synchronised(x, bias, self.all_reduce)
        return F.batch_norm(
            x, self.mean, self.variance, torch.ones_like(bias), bias, self.training, self._NEW_SHARE, self._EPSILON
        )

    def _synchronised(self, x: Tensor, bias: Tensor, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """By the statistics of all processes' images. PyTorch's own SyncBatchNorm knows GPUs alone."""
        values = x.float()
        own_count = values.new_full((1,), values[:, 0].numel())
        sums = all_reduce(torch.cat([values.sum((0, 2, 3)), own_count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.mean.lerp_(mean, self._NEW_SHARE)
            self.variance.lerp_(variance * count / (count - 1), self._NEW_SHARE)
        scaled = centred * (variance + self._EPSILON).rsqrt()[:, None, None] + bias[:, None, None]
        return scaled.to(x.dtype)


def layer_sizes(model: str, width: int) -> tuple[int, int, int, int]:
    """Outputs of a Net's conv1, conv2, fc1 and fc2: the tutorial's proportions, rounded, scaled to this width."""
    own_width = WIDTHS[model]
    channels2, units1, units2 = (max(1, (size * width + own_width // 2) // own_width) for size in _LATER_SIZES[model])
    return width, channels2, units1, units2


def build_model(hparams: Hparams, classes: int) -> Network:
    """A network with its default initialisation, drawn from torch's global generator."""
    if hparams.model == "fast":
        # Images come with their channels last; convolutions are fastest where their kernels do too.
        return Fast(hparams.width, classes, hparams.tta_flip).to(memory_format=torch.channels_last)
    assert hparams.model in _LATER_SIZES, hparams.model
    return Net(layer_sizes(hparams.model, hparams.width), classes, hparams.tta_flip, hparams.size)


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
