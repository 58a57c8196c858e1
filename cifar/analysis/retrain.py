"""Trainings outside a search, several at once, each kept in a directory of its own: none is repeated."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from cifar.analysis.confirm import Candidate, with_seeds
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.system import processes
from cifar.system.files import read_json, write_json
from cifar.training import device
from cifar.training.hparams import Hparams
from cifar.trials import layout
from cifar.trials.predictions import Predictions, load_predictions, save_predictions
from cifar.trials.run import Trained, run_trial
from cifar.trials.store import Trial

_FAILED = "failed.json"
_STOP_SECONDS = 8.0  # what a training may take to note where it stands


class Failed(Exception):
    """A training that ended without a network."""


@dataclass(frozen=True)
class Training:
    """A trial's configuration with another seed; a final one trains on the validation images too."""

    trial: Trial
    hparams: Hparams
    final: bool = False

    @property
    def name(self) -> str:
        return f"{self.trial.id}-{'final-' if self.final else ''}seed{self.hparams.seed}"


class Trainer:
    """Trains configurations of an experiment's trials again, below `directory`, and shows how far it is."""

    def __init__(self, directory: Path, dataset: Dataset, at_once: int, trainings: int) -> None:
        self.directory = directory
        self.dataset, self.splits = dataset, datasets.split(dataset)
        self.at_once = at_once
        self.claim = device.claim(at_once, f"best-{directory.parent.name}")
        self.progress = tqdm(total=trainings, unit=" trainings", disable=None)
        self._shown = set[str]()

    def candidates(self, trials: Sequence[Trial], seeds: Sequence[int]) -> Iterator[tuple[Trial, Candidate | Failed]]:
        """Each trial's configuration, trained with each of the seeds and validated."""
        trainings = {trial.id: [Training(trial, hparams) for hparams in with_seeds(trial, seeds)] for trial in trials}
        self._train_ahead([training for of_trial in trainings.values() for training in of_trial])
        for trial in trials:
            try:
                runs = [self._validated(training) for training in trainings[trial.id]]
            except Failed as failure:
                yield trial, failure
            else:
                predictions, seconds = zip(*runs, strict=True)
                yield trial, Candidate(trial, list(predictions), min(seconds))

    def final_models(self, trial: Trial, hparams: Sequence[Hparams]) -> list[SavedModel]:
        """Networks trained on the validation images too: how good they are, only test images can say."""
        trainings = [Training(trial, some, final=True) for some in hparams]
        self._train_ahead(trainings)
        return [self._final_model(training) for training in trainings]

    def _train_ahead(self, trainings: Sequence[Training]) -> None:
        """Train what is missing, as many at once as the search did; what fails is left to who asks for it."""
        missing = [training for training in trainings if not self._is_kept(training)]
        with self._helpers(missing):
            self.train_missing(missing)

    @contextlib.contextmanager
    def _helpers(self, trainings: Sequence[Training]) -> Iterator[None]:
        """Processes that take part in the trainings while the block lasts, and until they have ended theirs."""
        spawn = multiprocessing.get_context("spawn")
        arguments = (os.getpid(), self.directory, self.dataset.name, self.dataset.fingerprint, self.at_once, trainings)
        helpers = [
            spawn.Process(target=_help, args=arguments, daemon=True)
            for _ in range(min(self.at_once, len(trainings)) - 1)
        ]
        try:
            for helper in helpers:
                helper.start()
            yield
            for helper in helpers:
                while helper.is_alive():
                    helper.join(1.0)
                    self._show(trainings)
        finally:
            for helper in helpers:
                if helper.pid is not None and helper.is_alive():
                    os.kill(helper.pid, signal.SIGINT)
            for helper in helpers:
                if helper.pid is not None:
                    helper.join(_STOP_SECONDS)
                    helper.kill()
                    helper.join()

    def train_missing(self, trainings: Sequence[Training]) -> None:
        """Train those that nobody else is training, one after the other."""
        for training in trainings:
            directory = self.directory / training.name
            directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout, Failed), FileLock(directory / ".lock", timeout=0):
                if training.final:
                    self._final_model(training)
                else:
                    self._validated(training)
            self._show(trainings)

    def _show(self, trainings: Sequence[Training]) -> None:
        new = {training.name for training in trainings if self._is_kept(training)} - self._shown
        self._shown |= new
        self.progress.update(len(new))

    def _is_kept(self, training: Training) -> bool:
        if training.final:
            return self._kept_model(training) is not None
        return self._kept_predictions(training) is not None

    def _final_model(self, training: Training) -> SavedModel:
        if kept := self._kept_model(training):
            return kept
        trained, _ = self._train(training, self.splits.all_trained_on())
        path = self.directory / training.name / "model.pt"
        model_file.save(path, trained.model, training.hparams, self.dataset, {})
        return model_file.load(path)

    def _kept_model(self, training: Training) -> SavedModel | None:
        try:
            kept = model_file.load(self.directory / training.name / "model.pt")
        except RequestError:  # none, or a damaged one: it is trained again
            return None
        same = kept.hparams == training.hparams and kept.facts["data"]["fingerprint"] == self.dataset.fingerprint
        return kept if same else None

    def _validated(self, training: Training) -> tuple[Predictions, float]:
        if kept := self._kept_predictions(training):
            return kept
        directory = self.directory / training.name
        trained, seconds = self._train(training, self.splits)
        predictions = Predictions(trained.predictions.numpy(), self.dataset.labels[self.splits.val].numpy())
        save_predictions(directory, predictions.predicted, predictions.labels)
        write_json(directory / layout.RESULT, {"identity": self._identity(training), "seconds": seconds})
        return predictions, seconds

    def _kept_predictions(self, training: Training) -> tuple[Predictions, float] | None:
        """Of an earlier training of the same, and its seconds; None where there is none, or what it left is damaged."""
        directory = self.directory / training.name
        predictions = load_predictions(directory)
        try:
            kept = read_json(directory / layout.RESULT)
            same = kept is not None and kept["identity"] == self._identity(training)
            return (predictions, float(kept["seconds"])) if predictions is not None and same and kept else None
        except (RequestError, KeyError, TypeError):
            return None

    def _identity(self, training: Training) -> dict[str, Any]:
        return {"hparams": asdict(training.hparams), "split_fingerprint": self.splits.fingerprint}

    def _train(self, training: Training, splits: Splits) -> tuple[Trained, float]:
        directory, hparams = self.directory / training.name, training.hparams
        self._refuse_to_fail_again(training)
        torch.set_num_threads(self.claim.threads(hparams))
        checkpoint = directory / layout.CHECKPOINT
        result, trained = run_trial(hparams, self.dataset, splits, self.claim.device, lambda _: None, checkpoint)
        if result.status == "interrupted":
            raise KeyboardInterrupt
        if trained is None:
            reason = f"training again with seed {hparams.seed} ended {result.status}: {result.reason}"
            if result.status == "diverged":  # as it would again; memory may be there another time
                write_json(directory / _FAILED, {"identity": self._identity(training), "reason": reason})
            raise Failed(reason)
        checkpoint.unlink(missing_ok=True)
        return trained, result.seconds

    def _refuse_to_fail_again(self, training: Training) -> None:
        with contextlib.suppress(RequestError, KeyError, TypeError):  # what is damaged says nothing
            failed = read_json(self.directory / training.name / _FAILED)
            if failed and failed["identity"] == self._identity(training):
                raise Failed(failed["reason"])


def _help(
    parent: int, directory: Path, data_name: str, fingerprint: str, at_once: int, trainings: Sequence[Training]
) -> None:
    """In a process of its own: take part in the trainings."""
    processes.end_with(parent)
    dataset = datasets.load(data_name)
    if dataset.fingerprint != fingerprint:
        return  # the folder has changed: what it holds now is another experiment's
    with contextlib.suppress(KeyboardInterrupt):
        trainer = Trainer(directory, dataset, at_once, 0)
        trainer.progress.disable = True
        trainer.train_missing(trainings)
