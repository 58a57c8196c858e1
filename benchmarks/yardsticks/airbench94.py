"""`python -m benchmarks.yardsticks.airbench94`: fast beside airbench94, the public record script, on the same images.

Each has its own recipe, at the same width, batch, epochs and learning rate. On a GPU they train ten times, on all but
the test images, which judge them (results/yardstick-gpu). On a CPU once, judged by the validation images, and three
times with a quarter of airbench94's width, half of its batch and four epochs; there in bfloat16 instead of float16.
The seconds of fast hold an evaluation after each epoch, those of airbench94 two at the end. `make bench-searches`
installs it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, standard_error
from cifar.data import datasets, test_log
from cifar.data.datasets import Dataset, Splits
from cifar.training.evaluation import evaluate
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train
from cifar.trials import layout

_GPU = torch.cuda.is_available()
_OWN = Hparams(model="fast")
_SMALL = Hparams(model="fast", width=16, batch_size=512, lr=0.75, epochs=4)
_CASES = {"tested": (_OWN, 10)} if _GPU else {"small": (_SMALL, 3), "own": (_OWN, 1)}
_DEVICE = machine.device()
HEADER = ["network", "runs", "accuracy", "airbench94's own evaluation", "seconds per run"]


@dataclass(frozen=True)
class Images:
    """What networks learn from, and what judges them: the images at some places of a data set."""

    dataset: Dataset
    splits: Splits
    judge: Dataset
    judged: Tensor

    def __str__(self) -> str:
        return f"{len(self.splits.train):,} images, judged by {len(self.judged):,} others"

    @staticmethod
    def validation(dataset: Dataset) -> Images:
        splits = datasets.split(dataset)
        return Images(dataset, splits, dataset, splits.val)

    @staticmethod
    def test(dataset: Dataset, test: Dataset) -> Images:
        assert test.classes == dataset.classes
        return Images(dataset, datasets.split(dataset).all_trained_on(), test, torch.arange(len(test.labels)))


@dataclass(frozen=True)
class Runs:
    """One per seed. `own` has the accuracies by airbench94's evaluation, which moves images too; ours only mirrors."""

    name: str
    accuracies: list[float]
    own: list[float]
    seconds: list[float]

    def cells(self) -> list[str]:
        return [
            self.name,
            str(len(self.accuracies)),
            _mean(self.accuracies),
            _mean(self.own) if self.own else "",
            f"{fmean(self.seconds):.1f}",
        ]


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.2%}" + (f" ± {standard_error(values):.2%}" if len(values) > 1 else "")


def main() -> int:
    data_name = machine.choose_data()
    dataset, test = datasets.load(data_name), datasets.load_test(data_name)
    images = Images.test(dataset, test) if _GPU else Images.validation(dataset)
    stem = RESULTS / ("yardstick-gpu" if _GPU else "yardstick")
    report = Report(
        stem, "Beside airbench94", machine.describe("python -m benchmarks.yardsticks.airbench94", data_name)
    )
    if _GPU:  # its libraries load their kernels, and choose among them, at the first use
        compare(Images.validation(dataset), _OWN, seeds=1)
    for name, (recipe, seeds) in _CASES.items():
        title = f"Width {recipe.width}, batch {recipe.batch_size}, {recipe.epochs} epochs of {images}"
        report.table(title, name, HEADER, compare(images, recipe, seeds))
    return 0


def compare(images: Images, recipe: Hparams, seeds: int) -> list[Runs]:
    ours, airbench = Runs("fast", [], [], []), Runs("airbench94", [], [], [])
    with _airbench(images, recipe) as train_airbench:
        for seed in tqdm(range(seeds), file=sys.stderr, disable=None):
            with _timed(ours.seconds):
                ours.accuracies.append(_train_ours(replace(recipe, seed=seed), images))
            torch.manual_seed(seed)
            with _timed(airbench.seconds):
                mirrored, own = train_airbench()
            airbench.accuracies.append(mirrored)
            airbench.own.append(own)
            if images.judge is not images.dataset:
                read = [ours.accuracies[-1], mirrored, own]
                what = "benchmarks.yardsticks.airbench94, beside airbench94"
                test_log.append(images.judge, what, [seed], read, layout.test_log(RESULTS))
    return [ours, airbench]


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def _train_ours(hparams: Hparams, images: Images) -> float:
    dataset = images.dataset.to(_DEVICE)
    model = new_model(hparams, dataset)
    # As in a trial: airbench94's import has let cuDNN choose algorithms by their time, for all of this process.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        list(train(model, new_optimizer(model, hparams), hparams, dataset, images.splits.to(_DEVICE)))
    return evaluate(model, images.judge.to(_DEVICE), images.judged.to(_DEVICE)).accuracy


@contextmanager
def _airbench(images: Images, recipe: Hparams) -> Iterator[Callable[[], tuple[float, float]]]:
    """airbench94 over these images: a call trains it once and returns its accuracies, mirrored and by its own way."""
    from airbench import lib_airbench94, utils

    width = recipe.width
    own_lr = lib_airbench94.hyp["opt"]["lr"]  # per 1,024 images, so the same for any batch size
    assert recipe.lr / recipe.batch_size == _OWN.lr / _OWN.batch_size

    def new_net() -> Any:
        return lib_airbench94.make_net94({"block1": width, "block2": 4 * width, "block3": 4 * width})

    def train_once() -> tuple[float, float]:
        loader = utils.CifarLoader(
            "cifar10", batch_size=recipe.batch_size, aug={"flip": True, "translate": 2}, altflip=True
        )
        make = new_net if _GPU else lambda: _in_bfloat16(new_net())
        net = lib_airbench94.train94(loader, epochs=recipe.epochs, learning_rate=own_lr, make_net=make, verbose=False)
        judges = utils.CifarLoader("cifar10", train=False, batch_size=2000)
        return utils.evaluate(net, judges, tta_level=1), utils.evaluate(net, judges, tta_level=2)

    with ExitStack() as stack:
        if not _GPU:
            stack.enter_context(_without_gpu())
        stack.enter_context(_working_in(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        _write_for_airbench("train", images.dataset, images.splits.train)
        _write_for_airbench("test", images.judge, images.judged)
        yield train_once


def _write_for_airbench(part: str, dataset: Dataset, index: Tensor) -> None:
    """Where it looks for CIFAR-10 before it downloads it; `test` are those that judge it."""
    Path("cifar10").mkdir(exist_ok=True)
    pixels = dataset.images[index].permute(0, 2, 3, 1).contiguous()
    content = {"images": pixels, "labels": dataset.labels[index], "classes": list(dataset.classes)}
    torch.save(content, f"cifar10/{part}.pt")


def _in_bfloat16(net: nn.Module) -> nn.Module:
    plain = net.forward

    def forward(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=net.training):
            logits: Tensor = plain(images)
        return logits.float()

    net.forward = forward
    return net


@contextmanager
def _without_gpu() -> Iterator[None]:
    """airbench94 knows GPUs alone: without one, what it asks of one stays on the CPU, in float32."""
    load = torch.load
    replaced: list[tuple[Any, str, Any]] = [
        (nn.Module, "cuda", lambda module: module),
        (nn.Module, "half", lambda module: module),
        (Tensor, "half", lambda tensor: tensor.float()),
        (torch, "load", lambda path, map_location: load(path)),
        (torch.cuda, "Event", mock.MagicMock()),  # its clock
        (torch.cuda, "synchronize", lambda: None),
    ]
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


@contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    sys.exit(main())
