"""What a notebook needs: experiments as tables and figures, models that predict, one training. See docs/notebook.md.

All of it raises RequestError, with a sentence, where something cannot be had.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cifar.data import datasets, preview
from cifar.data.datasets import Dataset, Splits
from cifar.data.sizes import SIZE
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.inference.predict import find_images, predict, predict_arrays
from cifar.search.config import experiments_directory
from cifar.training import augmentation, defaults, device
from cifar.training.device import Claim
from cifar.training.hparams import Hparams
from cifar.training.train import EpochMetrics
from cifar.trials import layout, store, top_models
from cifar.trials.leaderboard import records
from cifar.trials.run import run_trial
from cifar.trials.store import best_first

if TYPE_CHECKING:
    import plotly.graph_objects as go

Picture = str | Path | NDArray[Any] | Image.Image | torch.Tensor


@dataclass(frozen=True)
class Data:
    """A data set's training images, and which of them are held out to validate on.

    `images` are N x 3 x size x size uint8, `labels` N int64; `train` and `validation` are places among them.
    """

    dataset: Dataset
    splits: Splits

    def __repr__(self) -> str:
        parts = f"{len(self.train):,} images to train on, {len(self.validation):,} to validate on"
        return f"Data({Path(self.dataset.name).name!r}: {parts}, {len(self.classes)} classes)"

    @property
    def images(self) -> torch.Tensor:
        """N x 3 x size x size uint8, red, green and blue."""
        return self.dataset.images

    @property
    def labels(self) -> torch.Tensor:
        """N int64, places in `classes`."""
        return self.dataset.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.classes

    @property
    def train(self) -> torch.Tensor:
        """Places of the images to train on, int64."""
        return self.splits.train

    @property
    def validation(self) -> torch.Tensor:
        """Places of the images to validate on, int64."""
        return self.splits.val

    def counts(self) -> pd.DataFrame:
        """Images of each class, to train and to validate on."""
        parts = {"train": self.train, "validation": self.validation}
        number = len(self.classes)
        columns = {name: np.bincount(self.labels[part].numpy(), minlength=number) for name, part in parts.items()}
        return pd.DataFrame(columns, index=pd.Index(self.classes, name="class"))

    def preview(self) -> Image.Image:
        """Some images of each class, as one picture."""
        return preview.grid(self.dataset)[0]


@dataclass(frozen=True)
class Model:
    """A trained network. `accuracy` has what was measured of it, as fractions."""

    saved: SavedModel

    def __repr__(self) -> str:
        measured = ", ".join(f"{name} {value:.1%}" for name, value in self.accuracy.items())
        return f"Model({self.saved.hparams.model}, {len(self.classes)} classes: {measured})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.saved.classes

    @property
    def hparams(self) -> dict[str, Any]:
        """All hyperparameters that it was trained with."""
        return asdict(self.saved.hparams)

    @property
    def accuracy(self) -> dict[str, float]:
        """What was measured of it, as fractions."""
        return self.saved.accuracy

    def predict(self, pictures: Picture | Sequence[Picture], top: int = 3) -> pd.DataFrame:
        """A row for each picture: its most probable classes, and their probabilities as fractions.

        A picture is the path of a file or of a folder of files, an opened image, an array (height x width x 3 (RGB) or
        4 (with transparency) uint8, x 3 of longer integers, or height x width of any number), or a tensor of
        `Data.images`, 3 x size x size. RequestError where one cannot be read.
        """
        if isinstance(pictures, (torch.Tensor, np.ndarray)):
            pictures = [*pictures] if pictures.ndim == 4 else [pictures]
        elif isinstance(pictures, (str, Path, Image.Image)):
            pictures = [pictures]
        return pd.DataFrame([row for picture in pictures for row in self._rows(picture, top)])

    def _rows(self, picture: Picture, top: int) -> list[dict[str, Any]]:
        if isinstance(picture, torch.Tensor):
            picture = (picture.permute(1, 2, 0) if picture.ndim == 3 else picture).numpy()
        if isinstance(picture, (np.ndarray, Image.Image)):
            try:
                return [_row("array", predict_arrays(self.saved, [picture], top)[0])]
            except (TypeError, ValueError, OSError) as error:
                shape = np.asarray(picture).shape
                raise RequestError(f"an array of shape {shape} is no picture: {error}") from None
        if not isinstance(picture, (str, Path)):
            raise RequestError(f"a picture is a path, an image, an array or a tensor, got {type(picture).__name__}")
        paths = [*find_images([Path(picture)])]
        if not paths:
            raise RequestError(f"no pictures in {picture}")
        found = [*predict(self.saved, paths, top)]
        for one in found:
            if one.error:
                raise RequestError(f"{one.path} is no readable picture: {one.error}")
        return [_row(str(one.path), one.classes) for one in found]


def _row(name: str, classes: Sequence[tuple[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"picture": name}
    for number, (label, share) in enumerate(classes, 1):
        row |= {f"class {number}": label, f"probability {number}": share}
    return row


@dataclass(frozen=True)
class Experiment:
    """An experiment that NNI has run, or runs: asked again, it has what there is by then."""

    directory: Path

    def __repr__(self) -> str:
        return f"Experiment({self.directory.name!r}: {len(store.read_trials(self.directory))} trials)"

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial, the best first: accuracy and its interval as fractions, hyperparameters, ending."""
        return pd.DataFrame(records(store.read_trials(self.directory), self.directory))

    @property
    def curves(self) -> pd.DataFrame:
        """A row for each epoch of each trial; `default` is the validation images' figure that is tuned."""
        numbers = {trial.id: trial.number for trial in store.read_trials(self.directory)}
        rows = [
            {"trial": numbers[trial], "epoch": epoch, **metrics}
            for trial, epochs in store.read_curves(self.directory).items()
            for epoch, metrics in enumerate(epochs, 1)
        ]
        return pd.DataFrame(rows)

    @property
    def answer(self) -> dict[str, Any] | None:
        """What `cifar best` or `cifar fit` found: winner, gain over the defaults, tests; None before either ran."""
        from cifar.analysis import answer

        return answer.read(self.directory)

    def figures(self) -> dict[str, go.Figure]:
        """The report's figures of the search, by their titles. Needs the packages of the extra `report`."""
        from cifar.analysis import figures
        from cifar.search.search_space import fits

        space = store.read_config(self.directory).get("searchSpace") or {}
        trials = [trial for trial in store.read_trials(self.directory) if fits(trial.params, space)]
        found = figures.of_search(trials, space, store.read_curves(self.directory))
        return {
            figure.title if len(figure.plots) == 1 else f"{figure.title}: {plot.layout.xaxis.title.text}": plot
            for figure in found
            for plot in figure.plots
        }

    def model(self) -> Model:
        """The answer's, else the best that the search has kept. RequestError where there is none."""
        paths = [layout.best_model(self.directory), *top_models.best(self.directory)]
        for path in paths:
            if path.exists():
                return load_model(path)
        raise RequestError(f"experiment {self.directory.name} has kept no model")


@dataclass(frozen=True)
class Training:
    """One network, trained: `history` has a row for each epoch, `accuracy` is the validation images' after the last."""

    model: Model
    history: pd.DataFrame
    data: Data

    def __repr__(self) -> str:
        return f"Training({len(self.history)} epochs: {self.accuracy:.1%} of the validation images)"

    @property
    def accuracy(self) -> float:
        """Of the validation images after the last epoch, as a fraction: what `metric` names."""
        return float(self.history[self.model.saved.hparams.metric].iloc[-1])

    def save(self, path: str | Path) -> None:
        """For `cifar predict`, `cifar export` and load_model."""
        model_file.save(
            Path(path), self.model.saved.network, self.model.saved.hparams, self.data.dataset, self.model.accuracy
        )


def load_data(name: str | Path = "cifar10", size: int = SIZE) -> Data:
    """`cifar10`, `digits` or a folder of pictures, as `size` x `size` pixels; decoded once, then cached.

    RequestError where they cannot be had or read.
    """
    dataset = datasets.load(str(name), size)
    return Data(dataset, datasets.split(dataset))


def load_experiment(experiment_id: str | None = None, config: str | Path = "config.yml") -> Experiment:
    """The experiment whose ID begins so, or the latest, of those that `config` has run.

    RequestError where there is none, or no trial of it has finished.
    """
    experiment = Experiment(store.find(experiment_id, experiments_directory(Path(config))))
    if not best_first(store.read_trials(experiment.directory)):
        raise RequestError(f"no trial of experiment {experiment.directory.name} has finished")
    return experiment


def load_model(path: str | Path) -> Model:
    """A model file of `python trial.py --save`, of a search, or of `cifar best`. RequestError for any other."""
    return Model(model_file.load(Path(path)))


def train(data: Data | str | Path, progress: bool = True, **hparams: object) -> Training:
    """One network by these hyperparameters, and by the defaults for so many images, which `python trial.py` has too.

    RequestError where it diverges, or where the network does not fit into memory.
    """
    data = data if isinstance(data, Data) else load_data(data, Hparams.from_params(hparams).size)
    whole = augmentation.fitting(defaults.for_data(hparams, len(data.train)), data.dataset.name)
    claim = _claimed()
    torch.set_num_threads(claim.threads(whole))
    with tqdm(total=whole.epochs, unit=" epochs", disable=not progress) as bar:

        def on_epoch(history: list[EpochMetrics]) -> None:
            bar.update(len(history) - bar.n)
            bar.set_postfix_str(f"{whole.metric.replace('_', ' ')} {history[-1].of(whole.metric):.1%}")

        result, trained = run_trial(whole, data.dataset, data.splits, claim.device, on_epoch)
    if result.status == "interrupted":
        raise KeyboardInterrupt
    if trained is None:
        raise RequestError(f"{result.status.replace('_', ' ')}: {result.reason}")
    history = pd.DataFrame([asdict(metrics) for metrics in trained.history]).set_index("epoch")
    accuracy = {f"validation_{whole.metric}": trained.history[-1].of(whole.metric)}
    facts = {"data": {"name": Path(data.dataset.name).name, "fingerprint": data.dataset.fingerprint}}
    network = trained.model.cpu().eval()
    return Training(Model(SavedModel(network, whole, data.classes, accuracy, facts)), history, data)


@functools.cache
def _claimed() -> Claim:
    """For as long as the notebook lives: CUDA, once awake, keeps its GPU."""
    return device.claim(1)
