"""What accuracies of trials are worth, each beside its neighbours: of many lucky ones the luckiest seems the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.search.coordinates import Coordinates
from cifar.search.search_space import Space

Floats = NDArray[np.float64]

_REACH = 0.45  # of a range: so far a trial says something of others (results/leader.md)
_OTHER_CHOICE = 0.45  # how far apart two choices are, in the same measure
_SEED_DEVIATION = 0.006  # of networks that differ by their seeds alone (results/table.md)
_LEAST_SPREAD = 0.03  # standard deviation of the configurations' accuracies, at least


@dataclass(frozen=True)
class Expected:
    """Accuracies without much of their luck, and how unsure they are together."""

    accuracies: Floats
    covariance: Floats

    def chance_below(self, one: int, other: int, growth: Sequence[float], doubt: Sequence[float]) -> float:
        """How likely the one has the lower error, where each one's error is to become so many times as high.

        `doubt`: by what share each of these errors may turn out another, as a standard deviation.
        """
        from scipy.special import ndtr

        weights = np.zeros(len(self.accuracies))
        weights[other] += growth[other]
        weights[one] -= growth[one]
        errors = 1 - self.accuracies
        spread = weights @ self.covariance @ weights + np.sum((weights * errors * doubt) ** 2)
        return float(ndtr(weights @ errors / math.sqrt(max(float(spread), 1e-12))))


def expected(
    space: Space,
    params: Sequence[Mapping[str, Any]],
    accuracies: Sequence[float],
    val_images: int,
    at: Sequence[Mapping[str, Any]] | None = None,
) -> Expected:
    """A Gaussian process through the trials, at each of them, or at other places of the space.

    The luck is that of a seed and of so many validation images; where there are thousands, little is taken away.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor  # a second that other commands need not spend
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    found = np.asarray(accuracies, dtype=float)
    middle = float(found.mean())
    luck = middle * (1 - middle) / val_images + _SEED_DEVIATION**2
    spread = max(float(found.var()) - luck, _LEAST_SPREAD**2)
    places, kernel = _places(space, [*params, *(at or ())]), ConstantKernel(spread) * Matern(_REACH, nu=2.5)
    tried, asked = places[: len(params)], places[len(params) if at else 0 :]
    process = GaussianProcessRegressor(kernel, alpha=luck, optimizer=None).fit(tried, found - middle)
    above, covariance = process.predict(asked, return_cov=True)
    return Expected(middle + above, covariance)


def _places(space: Space, params: Sequence[Mapping[str, Any]]) -> Floats:
    """The trials as points, choices as corners that are equally far apart."""
    coordinates = Coordinates(space, np.random.default_rng(0))
    taken = {name: {some[name] for some in params} for name in space if name not in coordinates.ranges}
    corners = [
        [_OTHER_CHOICE / math.sqrt(2) * (some[name] == value) for name, values in taken.items() for value in values]
        for some in params
    ]
    return np.hstack([np.array([coordinates.of(some) for some in params]), np.array(corners)])
