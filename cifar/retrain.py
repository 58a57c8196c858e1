"""Trainings outside a search, each kept in a directory of its own, so that none is repeated after an interruption."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from cifar import device, model_file, validation
from cifar.confirm import Candidate, new_seeds
from cifar.data import Dataset, Splits
from cifar.errors import RequestError
from cifar.files import read_json, write_json
from cifar.hparams import Hparams
from cifar.model_file import SavedModel
from cifar.run import Trained, run_trial
from cifar.store import Trial
from cifar.validation import Answers


class Failed(Exception):
    """A training that ended without a network."""


class Trainer:
    """Trains the configurations of an experiment's trials again, below `directory`."""

    def __init__(self, directory: Path, dataset: Dataset, splits: Splits, trainings: int) -> None:
        self.directory = directory
        self.dataset, self.splits = dataset, splits
        self.claim = device.claim(1)
        self.progress = tqdm(total=trainings, unit=" trainings", disable=None)

    def candidate(self, trial: Trial, seeds: int) -> Candidate:
        """The trial's configuration, trained with so many new seeds and validated."""
        runs = [self._validated(trial, hparams) for hparams in new_seeds(trial, seeds)]
        return Candidate(trial, [answers for answers, _ in runs], fmean(seconds for _, seconds in runs))

    def final_model(self, trial: Trial, hparams: Hparams) -> SavedModel:
        """A network trained on the validation images too: how good it is, only test images can say."""
        directory = self.directory / f"{trial.id}-final-seed{hparams.seed}"
        path = directory / "model.pt"
        if not self._is_kept(path, hparams):
            everything = torch.arange(len(self.dataset.labels))
            trained, _ = self._train(
                directory, hparams, Splits(everything, self.splits.val, f"{self.splits.fingerprint}, all trained on")
            )
            model_file.save(path, trained.model, hparams, self.dataset, {})
        self.progress.update()
        return model_file.load(path)

    def _is_kept(self, path: Path, hparams: Hparams) -> bool:
        try:
            kept = model_file.load(path)
        except RequestError:  # none, or a damaged one: it is trained again
            return False
        return kept.hparams == hparams and kept.facts["data"]["fingerprint"] == self.dataset.fingerprint

    def _validated(self, trial: Trial, hparams: Hparams) -> tuple[Answers, float]:
        directory = self.directory / f"{trial.id}-seed{hparams.seed}"
        identity = {"hparams": asdict(hparams), "split_fingerprint": self.splits.fingerprint}
        seconds, answers = _kept_seconds(directory / "result.json", identity), validation.load(directory)
        if answers is None or seconds is None:
            trained, seconds = self._train(directory, hparams, self.splits)
            answers = Answers(trained.predictions.numpy(), self.dataset.labels[self.splits.val].numpy())
            validation.save(directory, answers.predictions, answers.labels)
            write_json(directory / "result.json", {"identity": identity, "seconds": seconds})
        self.progress.update()
        return answers, seconds

    def _train(self, directory: Path, hparams: Hparams, splits: Splits) -> tuple[Trained, float]:
        directory.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(self.claim.threads(hparams))
        checkpoint = directory / "checkpoint.pt"
        result, trained = run_trial(hparams, self.dataset, splits, self.claim.device, lambda _: None, checkpoint)
        if result.status == "interrupted":
            raise KeyboardInterrupt
        if trained is None:
            raise Failed(f"training again with seed {hparams.seed} ended {result.status}: {result.reason}")
        checkpoint.unlink(missing_ok=True)
        return trained, result.seconds


def _kept_seconds(path: Path, identity: dict[str, Any]) -> float | None:
    """Of an earlier training of the same; None where there is none, or what it left is damaged."""
    try:
        kept = read_json(path)
        return float(kept["seconds"]) if kept and kept["identity"] == identity else None
    except (RequestError, KeyError, TypeError):
        return None
