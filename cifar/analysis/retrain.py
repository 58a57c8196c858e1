"""Trainings outside a search, several at once; none is repeated that has ended before."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from cifar.analysis.configurations import Configuration
from cifar.analysis.confirm import Candidate
from cifar.analysis.kept_trainings import KeptTrainings, Stage, Training, Validated
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.inference.model_file import SavedModel
from cifar.system.processes import spawned
from cifar.training import device
from cifar.training.train import EpochMetrics
from cifar.trials import layout
from cifar.trials.run import Trained, run_trial

_STOP_SECONDS = 8.0  # what a training may take to note where it stands


class Failed(Exception):
    """A training that ended without a network."""


class Trainer:
    """Trains configurations of an experiment again, below `directory`, and shows how far it is."""

    def __init__(self, directory: Path, dataset: Dataset, at_once: int, trainings: int) -> None:
        self.directory = directory
        self.dataset, self.splits = dataset, datasets.split(dataset)
        self.kept = KeptTrainings(directory, dataset, self.splits)
        self.at_once = at_once
        self.claim = device.claim(at_once, f"best-{directory.parent.name}")
        # Where it is not known yet how many there will be, the bar begins when it is.
        delay = 0.0 if trainings else 0.001
        self.progress = tqdm(total=trainings, unit=" trainings", leave=False, disable=None, delay=delay)
        self.tells = self.progress.disable  # line by line, where no terminal shows a bar
        self._shown = set[str]()

    def close(self) -> None:
        """End the bar, so that nothing is printed behind it."""
        self.progress.close()

    def expect(self, trainings: int) -> None:
        """More trainings than was known so far."""
        self.progress.total = (self.progress.total or 0) + trainings
        self.progress.refresh()

    def candidates(
        self, configurations: Sequence[Configuration], seeds: Sequence[int], stage: Stage = "search"
    ) -> Iterator[tuple[Configuration, Candidate | Failed]]:
        """Each configuration, trained with each of the seeds and validated."""
        trainings = {
            some.id: [Training(some.id, hparams, stage) for hparams in some.with_seeds(seeds)]
            for some in configurations
        }
        self._train_ahead([training for some in trainings.values() for training in some])
        for some in configurations:
            try:
                runs = [self._validated(training) for training in trainings[some.id]]
            except Failed as failure:
                yield some, failure
            else:
                yield some, Candidate(some, [run.predictions for run in runs], min(run.seconds for run in runs))

    def final_models(self, configuration: Configuration, seeds: Sequence[int]) -> list[SavedModel]:
        """Networks trained on the validation images too: how good they are, only test images can say."""
        trainings = [Training(configuration.id, hparams, "final") for hparams in configuration.with_seeds(seeds)]
        self._train_ahead(trainings)
        return [self._final_model(training) for training in trainings]

    def _train_ahead(self, trainings: Sequence[Training]) -> None:
        """Run the missing trainings, as many at once as the search did; failures are left to later callers."""
        missing = [training for training in trainings if not self.kept.has(training)]
        helpers = min(self.at_once, len(missing)) - 1
        arguments = (self.directory, self.dataset.name, self.dataset.fingerprint, self.at_once, missing)
        with spawned(_help, [arguments] * helpers, _STOP_SECONDS) as helping:
            self.train_missing(missing)
            for helper in helping:
                while helper.is_alive():
                    helper.join(1.0)
                    self._show(missing)

    def train_missing(self, trainings: Sequence[Training]) -> None:
        """Run the trainings that no other process runs, one after the other."""
        for training in trainings:
            directory = self.kept.directory(training)
            directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout, Failed), FileLock(directory / ".lock", timeout=0):
                if training.stage == "final":
                    self._final_model(training)
                else:
                    self._validated(training)
            self._show(trainings)

    def _show(self, trainings: Sequence[Training]) -> None:
        new = {training.name for training in trainings if self.kept.has(training)} - self._shown
        self._shown |= new
        self.progress.update(len(new))
        if new and self.tells:
            print(f"{len(self._shown)} of {self.progress.total} trainings done", file=sys.stderr)

    def _show_epoch(self, history: list[EpochMetrics]) -> None:
        """Of the training in this process; its helpers' are like it."""
        self.progress.set_postfix_str(f"epoch {len(history)}, {history[-1].accuracy:.1%}")

    def _final_model(self, training: Training) -> SavedModel:
        if kept := self.kept.model(training):
            return kept
        trained, _ = self._train(training, self.splits.all_trained_on())
        return self.kept.save_model(training, trained)

    def _validated(self, training: Training) -> Validated:
        if self.kept.has(training) and (kept := self.kept.validated(training)):
            return kept
        trained, seconds = self._train(training, self.splits)
        return self.kept.save_validated(training, trained, seconds)

    def _train(self, training: Training, splits: Splits) -> tuple[Trained, float]:
        if reason := self.kept.failure(training):
            raise Failed(reason)
        torch.set_num_threads(self.claim.threads(training.hparams))
        checkpoint = self.kept.directory(training) / layout.CHECKPOINT
        on, hparams = self.claim.device, training.hparams
        result, trained = run_trial(hparams, self.dataset, splits, on, self._show_epoch, checkpoint)
        if result.status == "interrupted":
            raise KeyboardInterrupt
        if trained is None:
            reason = f"training again with seed {hparams.seed} ended {result.status}: {result.reason}"
            if result.status == "diverged":  # as it would again; memory may be there another time
                self.kept.save_failure(training, reason)
            raise Failed(reason)
        checkpoint.unlink(missing_ok=True)
        return trained, result.seconds


def _help(directory: Path, data_name: str, fingerprint: str, at_once: int, trainings: Sequence[Training]) -> None:
    """In a process of its own: take part in the trainings."""
    dataset = datasets.load(data_name, trainings[0].hparams.size)
    if dataset.fingerprint != fingerprint:
        return  # the folder has changed: what it holds now is another experiment's
    with contextlib.suppress(KeyboardInterrupt):
        trainer = Trainer(directory, dataset, at_once, 0)
        trainer.progress.disable, trainer.tells = True, False
        trainer.train_missing(trainings)
