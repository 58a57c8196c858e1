"""Images per second, `cifar` beside the tutorial's loop, in alternating pairs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.shared import machine
from benchmarks.shared.contenders import Contender, Work
from cifar.training.hparams import Hparams


@dataclass(frozen=True)
class Row:
    """One line of the table: so many trials of `cifar` at once against one of the tutorial's."""

    name: str
    hparams: Hparams
    steps: int
    at_once: int = 1


@dataclass(frozen=True)
class Measured:
    """Images per second of each pair; those of `cifar` of all its trials together."""

    name: str
    tutorial: list[float]
    ours: list[float]
    quiet: bool

    @property
    def ratios(self) -> list[float]:
        return [ours / tutorial for ours, tutorial in zip(self.ours, self.tutorial, strict=True)]

    def cells(self) -> list[str]:
        spread = f"{min(self.ratios):.1f} to {max(self.ratios):.1f}"
        speeds = f"{median(self.tutorial):,.0f}", f"{median(self.ours):,.0f}"
        return [self.name, *speeds, f"{median(self.ratios):.1f}", spread, "yes" if self.quiet else "no"]


HEADER = ["work", "tutorial, images/s", "cifar, images/s", "median ratio", "from, to", "machine quiet"]


def rows(quick: bool) -> list[Row]:
    """Steps are chosen so that the tutorial takes some seconds for them."""
    net4, net64 = Hparams(batch_size=4), Hparams(batch_size=64)
    wide, wide_bf16 = Hparams(model="wide", batch_size=64), Hparams(model="wide", batch_size=64, precision="bfloat16")
    shorter = 5 if quick else 1
    chosen = [
        Row("width 6, batch 4", net4, 1600 // shorter),
        Row("width 6, batch 64", net64, 400 // shorter),
        Row("wide, batch 64", wide, 80 // shorter),
        Row("wide, batch 64, precision bfloat16", wide_bf16, 80 // shorter),
    ]
    at_once = [2] if not torch.cuda.is_available() else [2, 4, 8, 16]
    return chosen + [
        Row(f"width 6, batch 64, {number} trials at once", net64, 400 // shorter, number) for number in at_once
    ]


def measure(row: Row, data_name: str, pairs: int) -> Measured:
    """Tutorial, cifar, tutorial, cifar ...; a pair between which others used the machine is measured again, once."""
    work, measured, quiet = Work(data_name, row.hparams, row.steps), list[tuple[float, float]](), True
    with ExitStack() as stack:
        reference = Contender("tutorial", work)
        trials = [Contender("cifar", work, row.at_once) for _ in range(row.at_once)]
        for contender in (reference, *trials):
            stack.enter_context(contender)
        for _ in range(pairs):
            pair, was_quiet = machine.when_quiet(lambda: (_train([reference]), _train(trials)))
            quiet = quiet and was_quiet
            measured.append(pair)
    tutorial, ours = zip(*measured, strict=True)
    return Measured(row.name, [*tutorial], [*ours], quiet)


def _train(trials: list[Contender]) -> float:
    for trial in trials:
        trial.start()
    return sum(trial.images_per_second() for trial in trials)
