"""`python -m benchmarks.yardsticks.processes`: one training by 1, 2 and 4 processes, whose losses are to be equal.

torchrun starts them, on the CPU with gloo. Nothing is timed: four processes on two cores would say nothing of speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.system.processes import leave
from cifar.training import distributed
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train

SIZES = [1, 2, 4]
_BATCH = 50  # four do not divide it
_EPOCHS, _IMAGES = 3, 210  # few steps, since each makes of a rounding a larger one; the last batch is smaller
_CASES = {
    "net": Hparams(lr=0.02, batch_size=_BATCH, epochs=_EPOCHS, images_per_epoch=_IMAGES),
    "wide": Hparams(model="wide", width=16, lr=0.02, batch_size=_BATCH, epochs=_EPOCHS, images_per_epoch=_IMAGES),
    "lenet, Adam": Hparams(
        model="lenet", optimizer="adam", batch_size=_BATCH, epochs=_EPOCHS, images_per_epoch=_IMAGES
    ),
    "fast": Hparams(
        model="fast", width=8, lr=0.1, batch_size=_BATCH, epochs=_EPOCHS, images_per_epoch=_IMAGES, precision="float32"
    ),
}
HEADER = ["network", "micro-batches", "processes", "loss after each epoch, training", "validation", "differ by at most"]


@dataclass(frozen=True)
class Losses:
    """Of one training, after each epoch; `reference` are those of one process."""

    name: str
    gradient_accumulation_steps: int
    processes: int
    training: list[float]
    validation: list[float]
    reference: list[float]

    @property
    def difference(self) -> float:
        """The largest, as a share of the loss."""
        pairs = zip([*self.training, *self.validation], self.reference, strict=True)
        return max(abs(own - other) / other for own, other in pairs)

    def cells(self) -> list[str]:
        training, validation = (
            " ".join(f"{loss:.6f}" for loss in losses) for losses in (self.training, self.validation)
        )
        difference = "" if self.processes == 1 else f"{self.difference:.0e}"
        return [self.name, str(self.gradient_accumulation_steps), str(self.processes), training, validation, difference]


def main() -> int:
    data_name = machine.choose_data()
    datasets.load(data_name)  # once, and not by all at once
    facts = machine.describe("python -m benchmarks.yardsticks.processes", data_name)
    report = Report(RESULTS / "processes", "One training by several processes", facts)
    title = f"Batches of {_BATCH}, {_EPOCHS} epochs of {_IMAGES:,} images, float32, gloo"
    report.table(title, "processes", HEADER, compare(data_name))
    return 0


def compare(data_name: str) -> Iterator[Losses]:
    with tqdm(total=len(_CASES) * 2 * len(SIZES), file=sys.stderr, disable=None) as bar:
        for name, whole in _CASES.items():
            for hparams in (whole, replace(whole, gradient_accumulation_steps=3)):
                reference = list[float]()
                for size in SIZES:
                    training, validation = losses(hparams, data_name, size)
                    reference = reference or [*training, *validation]
                    bar.update()
                    yield Losses(name, hparams.gradient_accumulation_steps, size, training, validation, reference)


def losses(hparams: Hparams, data_name: str, processes: int) -> tuple[list[float], list[float]]:
    """Training and validation losses of a training by so many processes, which torchrun starts."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "losses.json"
        # standalone: on any free port, where the default is one that may be taken
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        asked = json.dumps([asdict(hparams), data_name, str(out)])
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", *launcher, "-m", "benchmarks.yardsticks.processes", asked]
        ended = subprocess.run(command, cwd=RESULTS.parent, env=environment, capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"{processes} processes failed:\n{ended.stdout}{ended.stderr}")
        training, validation = json.loads(out.read_text())
    return training, validation


def work(asked: str) -> None:
    """In each of the processes: train, and the main one writes the losses down."""
    values, data_name, out = json.loads(asked)
    hparams, dataset = Hparams.from_params(values), datasets.load(data_name)
    torch.set_num_threads(1)
    with distributed.process_group() as processes:
        model = new_model(hparams, dataset)
        optimizer, splits = new_optimizer(model, hparams), datasets.split(dataset)
        epochs = list(train(model, optimizer, hparams, dataset, splits, processes=processes))
        if processes.is_main:
            found = [epoch.metrics.train_loss for epoch in epochs], [epoch.metrics.loss for epoch in epochs]
            Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    if "RANK" in os.environ:
        work(sys.argv[1])
        leave(0)
    else:
        sys.exit(main())
