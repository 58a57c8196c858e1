"""A table as a function: what any configuration of its space would do, epoch by epoch, with chance as it was seen."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from benchmarks.table import rows
from benchmarks.table.plan import Plan, step_per_image
from benchmarks.table.rows import Row
from cifar.errors import RequestError
from cifar.search.search_space import place, value_at

Params = Mapping[str, float]
Floats = NDArray[np.float64]

_SEARCHED = 20_000  # points among which the best one is looked for
_SAME = 0.15  # seeds that differ by more: one of them failed, which is not what others do about as far up
_NEIGHBOURS = 6  # pairs of seeds, of configurations about as good, from which chance is drawn


@dataclass(frozen=True)
class Error:
    """Of what the surrogate predicts for configurations that it was not fitted on, in accuracy."""

    all: float  # root of the mean square
    better_half: float
    rank_correlation: float


class Surrogate:
    """Fitted on a table's rows; accuracies are fractions of the validation images, seconds are of one epoch."""

    def __init__(self, plan: Plan, table: Sequence[Row]) -> None:
        self.plan = plan
        trained = _trained(table)
        self._params = [{name: float(curve[0][name]) for name in plan.space} for curve in trained]
        self._curves = np.array([[float(row["val_accuracy"]) for row in curve] for curve in trained])
        seconds = [[float(row["seconds"]) for row in curve] for curve in trained]
        self._numbers = [int(curve[0]["number"]) for curve in trained]
        features = np.array([self.features(params) for params in self._params])
        with _without_ends():
            self._model = _accuracy_model(features.shape[1]).fit(features, self._curves)
        taken = np.array([np.mean(of_training) for of_training in seconds])
        known = taken > 0  # one that diverged at once took none
        self._clock = _clock_model().fit(features[known], taken[known])

    @property
    def trainings(self) -> int:
        return len(self._curves)

    def features(self, params: Params) -> list[float]:
        """Places in their ranges, but for the learning rate: the size of a step per image."""
        places = {name: place(params[name], sampler) or 0.0 for name, sampler in self.plan.space.items()}
        places["lr"] = math.log10(step_per_image(params))
        places["momentum"] = -math.log10(1 - params["momentum"])
        return list(places.values())

    def curves(self, some: Sequence[Params]) -> Floats:
        """The mean validation accuracy over seeds, configurations x epochs."""
        features = np.array([self.features(params) for params in some])
        predicted: Floats = np.clip(self._model.predict(features), 0.0, 1.0)
        return predicted

    def epoch_seconds(self, params: Params) -> float:
        return float(self._clock.predict([self.features(params)])[0])

    def training(self, params: Params, chance: np.random.Generator, val_images: int | None = None) -> Floats:
        """The curve of one training; with fewer validation images than the table has there is more chance in it."""
        mean = self.curves([params])[0]
        order = np.argsort(np.abs(self._pair_levels - mean[-1]))[:_NEIGHBOURS]
        curve = mean + self._pairs[chance.choice(order)] * chance.choice([-1.0, 1.0])
        if val_images:
            curve = chance.binomial(val_images, np.clip(curve, 0.0, 1.0)) / val_images
        clipped: Floats = np.clip(curve, 0.0, 1.0)
        return clipped

    @cached_property
    def best(self) -> float:
        """The highest mean accuracy after the last epoch, of many points of the space."""
        chance = np.random.default_rng(0)
        some = [self.drawn(chance) for _ in range(_SEARCHED)]
        return float(self.curves(some)[:, -1].max())

    def drawn(self, chance: np.random.Generator) -> dict[str, float]:
        return {name: value_at(chance.random(), sampler) for name, sampler in self.plan.space.items()}

    @cached_property
    def _pair_curves(self) -> list[tuple[Floats, Floats]]:
        same = defaultdict[int, list[Floats]](list)
        for number, curve in zip(self._numbers, self._curves, strict=True):
            same[number].append(curve)
        pairs = [(found[0], found[1]) for found in same.values() if len(found) > 1]
        return [(one, other) for one, other in pairs if abs(one[-1] - other[-1]) < _SAME]

    @cached_property
    def _pairs(self) -> Floats:
        """What one seed adds to the mean: the difference of two, over the root of two."""
        return np.array([(one - other) / math.sqrt(2) for one, other in self._pair_curves])

    @cached_property
    def _pair_levels(self) -> Floats:
        return np.array([(one[-1] + other[-1]) / 2 for one, other in self._pair_curves])

    def error(self) -> Error:
        """By cross-validation, of the last epoch."""
        from scipy.stats import spearmanr

        features = np.array([self.features(params) for params in self._params])
        folds = KFold(10, shuffle=True, random_state=0)
        with _without_ends():
            predicted = cross_val_predict(_accuracy_model(features.shape[1]), features, self._curves, cv=folds)[:, -1]
        true = self._curves[:, -1]
        wrong, good = (predicted - true) ** 2, true >= np.median(true)
        rank = float(spearmanr(predicted, true).statistic)
        return Error(math.sqrt(wrong.mean()), math.sqrt(wrong[good].mean()), rank)


@contextlib.contextmanager
def _without_ends() -> Iterator[None]:
    """A hyperparameter that means nothing has a length scale without end, which is no reason for a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def load(plan: Plan) -> Surrogate:
    if not (known := rows.read(plan.name)):
        raise RequestError(f"the table {plan.name} is empty: first python -m benchmarks.table {plan.name}")
    return Surrogate(plan, known)


def _trained(table: Sequence[Row]) -> list[list[Row]]:
    """The rows of each training, by epoch."""
    trained = defaultdict[tuple[str, str], list[Row]](list)
    for row in table:
        trained[row["number"], row["seed"]].append(row)
    return [*trained.values()]


def _accuracy_model(features: int) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0) * Matern(np.ones(features), nu=1.5) + WhiteKernel(0.01)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    return make_pipeline(StandardScaler(), process)


def _clock_model() -> TransformedTargetRegressor:
    regression = make_pipeline(StandardScaler(), PolynomialFeatures(2), LinearRegression())
    return TransformedTargetRegressor(regression, func=np.log, inverse_func=np.exp)
