"""What trainings outside a search leave, each in a directory of its own, so that none is repeated."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cifar.data.datasets import Dataset, Splits
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.system.files import read_json, write_json
from cifar.training.hparams import Hparams
from cifar.trials import layout
from cifar.trials.predictions import Predictions, load_predictions, save_predictions
from cifar.trials.run import Trained

# At the search's budget, at that of the final networks, and a final network: on the validation images too.
Stage = Literal["search", "long", "final"]


@dataclass(frozen=True)
class Training:
    """A configuration with one of the new seeds."""

    configuration: str  # its id
    hparams: Hparams
    stage: Stage = "search"

    @property
    def name(self) -> str:
        return f"{self.configuration}-{'' if self.stage == 'search' else self.stage + '-'}seed{self.hparams.seed}"


@dataclass(frozen=True)
class Validated:
    """The predictions of a training for the validation images, and its seconds."""

    predictions: Predictions
    seconds: float


class KeptTrainings:
    """The trainings below a directory. What another configuration or other data left there counts as nothing."""

    def __init__(self, directory: Path, dataset: Dataset, splits: Splits) -> None:
        self._directory, self._dataset, self._splits = directory, dataset, splits

    def directory(self, training: Training) -> Path:
        return self._directory / training.name

    def has(self, training: Training) -> bool:
        has_model = training.stage != "final" or self.model(training) is not None
        return has_model and (training.stage == "final" or self.validated(training) is not None)

    def save_validated(self, training: Training, trained: Trained, seconds: float) -> Validated:
        directory = self.directory(training)
        labels = self._dataset.labels[self._splits.val].numpy()
        predictions = Predictions(trained.predictions.numpy(), labels)
        save_predictions(directory, predictions.predicted, labels)
        write_json(directory / layout.TRAINING, {"identity": self._identity(training), "seconds": seconds})
        return Validated(predictions, seconds)

    def validated(self, training: Training) -> Validated | None:
        """None where this training has left no predictions, or damaged ones."""
        predictions = load_predictions(self.directory(training))
        kept = self._read(training, layout.TRAINING)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return Validated(predictions, float(kept["seconds"])) if predictions is not None and kept else None
        return None

    def save_model(self, training: Training, trained: Trained) -> SavedModel:
        path = self.directory(training) / layout.MODEL
        model_file.save(path, trained.model, training.hparams, self._dataset, {})
        return model_file.load(path)

    def model(self, training: Training) -> SavedModel | None:
        try:
            kept = model_file.load(self.directory(training) / layout.MODEL)
        except RequestError:  # none, or a damaged one: it is trained again
            return None
        same = kept.hparams == training.hparams and kept.facts["data"]["fingerprint"] == self._dataset.fingerprint
        return kept if same else None

    def save_failure(self, training: Training, reason: str) -> None:
        content = {"identity": self._identity(training), "reason": reason}
        write_json(self.directory(training) / layout.FAILURE, content)

    def failure(self, training: Training) -> str | None:
        """Why this training would fail again."""
        failed = self._read(training, layout.FAILURE)
        return str(failed["reason"]) if failed and "reason" in failed else None

    def _read(self, training: Training, name: str) -> dict[str, Any] | None:
        """What a file of this very training holds; what is damaged says nothing."""
        with contextlib.suppress(RequestError):
            content = read_json(self.directory(training) / name)
            if content and content.get("identity") == self._identity(training):
                return content
        return None

    def _identity(self, training: Training) -> dict[str, Any]:
        return {"hparams": asdict(training.hparams), "split_fingerprint": self._splits.fingerprint}
