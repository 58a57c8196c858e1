"""How an epoch's time grows with width, batch size and number of images, beside what the machine could do at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.shared import machine
from benchmarks.shared.contenders import Contender, Work
from cifar.training.hparams import Hparams
from cifar.training.models import layer_sizes

HEADER = [
    "varied",
    "width",
    "batch",
    "images",
    "images/s",
    "seconds per epoch",
    "MFLOP per image",
    "GFLOP/s",
    "of the peak",
    "machine quiet",
]
_MEASURED_SECONDS = 1.5
_SEVERAL = {"width": (6, 12, 24, 48, 64, 96, 128), "batch": (4, 16, 64, 256, 1024), "images": (5_000, 15_000, 45_000)}


@dataclass(frozen=True)
class Point:
    """One configuration's speed; `peak` is the machine's rate of multiplying large matrices, in FLOP/s."""

    varied: str
    width: int
    batch_size: int
    images: int
    images_per_second: float
    peak: float
    quiet: bool

    @property
    def seconds(self) -> float:
        return self.images / self.images_per_second

    @property
    def share_of_peak(self) -> float:
        return self.images_per_second * flops(self.width) / self.peak

    def cells(self) -> list[str]:
        return [
            self.varied,
            f"{self.width}",
            f"{self.batch_size}",
            f"{self.images:,}",
            f"{self.images_per_second:,.0f}",
            f"{self.seconds:.1f}",
            f"{flops(self.width) / 1e6:.1f}",
            f"{self.images_per_second * flops(self.width) / 1e9:.0f}",
            f"{self.share_of_peak:.0%}",
            "yes" if self.quiet else "no",
        ]


def flops(width: int) -> float:
    """Floating-point operations to train `net` on one image: two per multiplication, forward once and back twice.

    Nobody needs the gradient of the pixels, so the first convolution goes back once.
    """
    channels1, channels2, units1, units2 = layer_sizes("net", width)
    first = 3 * 25 * channels1 * 28 * 28
    others = channels1 * 25 * channels2 * 10 * 10 + channels2 * 25 * units1 + units1 * units2 + units2 * 10
    return 2 * (2 * first + 3 * others)


def measure(data_name: str, quick: bool) -> Iterator[Point]:
    peak = matrix_rate()
    for varied, values in _SEVERAL.items():
        for value in values[:-1:4] if quick else values:
            width = value if varied == "width" else 6
            batch_size = value if varied == "batch" else 64
            images = value if varied == "images" else 45_000
            hparams = Hparams(width=width, batch_size=batch_size)
            steps = images // batch_size if varied == "images" else max(4, 2048 // batch_size)
            speed, quiet = machine.when_quiet(partial(_images_per_second, Work(data_name, hparams, steps)))
            yield Point(varied, width, batch_size, images, speed, peak, quiet)


def _images_per_second(work: Work) -> float:
    """The median of as many rounds as fit into the time, in a process of its own, which none before has slowed down."""
    speeds = list[float]()
    with Contender("cifar", work) as trial:
        began = time.perf_counter()
        while not speeds or time.perf_counter() - began < _MEASURED_SECONDS:
            trial.start()
            speeds.append(trial.images_per_second())
    return median(speeds)


def matrix_rate() -> float:
    """FLOP/s of float32 products of large matrices, by the faster of the machine's libraries."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    if torch.cuda.is_available():
        a, b = a.cuda(), b.cuda()
        return _rate(lambda: (a @ b).sum().item())
    return max(_rate(lambda: a @ b), _rate(lambda: F.linear(a.to_mkldnn(), b)))


def _rate(multiply: Callable[[], object]) -> float:
    """Of the quickest product: a limit is what the machine can do when nothing else holds it up."""
    multiply()
    end, took = time.perf_counter() + _MEASURED_SECONDS, list[float]()
    while time.perf_counter() < end:
        began = time.perf_counter()
        multiply()
        took.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(took)


def plot(points: list[Point], path: Path) -> None:
    """Seconds per epoch over each of the three, with the limit that the peak would set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4), layout="constrained", sharey=True)
    labels = {"width": "width", "batch": "batch size", "images": "number of images"}
    for axis, varied in zip(axes, _SEVERAL, strict=True):
        some = [point for point in points if point.varied == varied]
        field = {"width": "width", "batch": "batch_size", "images": "images"}[varied]
        values = [getattr(point, field) for point in some]
        axis.loglog(values, [point.seconds for point in some], "o-", label="measured")
        limits = [point.images * flops(point.width) / point.peak for point in some]
        axis.loglog(values, limits, "--", color="grey", label="at the peak rate of matrix products")
        axis.set_xticks(values, [f"{value:,}" for value in values])
        axis.minorticks_off()
        axis.set_xlabel(labels[varied])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("seconds per epoch")
    figure.suptitle("An epoch of `net`: width 6, batch 64, 45,000 images, except what varies")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
