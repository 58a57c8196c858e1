"""A search space as a place to move in: distances between parameters, neighbours, points near a start.

Learning rate, momentum and batch size are not to be judged one by one: what they make together, how far one image moves
the network's parameters in the long run, decides whether it learns. Here the learning rate's coordinate is that, so
that a neighbour with another batch size has a learning rate that fits it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.search.search_space import Space, ends, is_logarithmic, place, value_at

Params = dict[str, Any]
Floats = NDArray[np.float64]

_OTHER_CHOICE = 0.2  # how often a neighbour has one, and how near it counts
_TRIES = 20


class Coordinates:
    """Of a space of ranges and choices; everything random comes from `rng`."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self.ranges = [name for name, sampler in space.items() if ends(sampler)]
        self._choices = [name for name in space if name not in self.ranges]
        self._has_steps = "lr" in self.ranges and is_logarithmic(space["lr"])

    def of(self, params: Mapping[str, Any]) -> Floats:
        """A coordinate for each range, from 0 to 1 on its scale; that of the learning rate's step has no ends."""
        places = {name: place(params[name], self._space[name]) or 0.0 for name in self.ranges}
        if self._has_steps:
            places["lr"] = math.log(params["lr"] * _step(params)) / self._decades
        return np.array([*places.values()])

    def likeness(self, some: list[Params], others: list[Params], width: float) -> Floats:
        """How dense each of the others makes the space where each of `some` lies, some x others.

        `width` is that of a kernel.
        """
        here, there = (np.array([self.of(one) for one in several]) for several in (some, others))
        density: Floats = np.exp(-(((here[:, None] - there) / width) ** 2).sum(2) / 2) / width ** len(self.ranges)
        for name in self._choices:
            theirs = [other[name] for other in others]
            density *= [[1.0 if one[name] == other else _OTHER_CHOICE for other in theirs] for one in some]
        return density

    def anywhere(self) -> Params:
        return {name: self._drawn(name) for name in self._space}

    def near(self, params: Params, width: float) -> Params:
        """A neighbour, about `width` away in each coordinate."""
        moved = {name: self._moved(name, params[name], width) for name in self._space}
        return self._with_step(moved, params, width) if self._has_steps else moved

    def around(self, start: Params, width: float) -> Params:
        """Anywhere, but with steps about as large as those at the start."""
        return self._with_step(self.anywhere(), start, width) if self._has_steps else self.near(start, width)

    @property
    def _decades(self) -> float:
        low, high = self._space["lr"]["_value"]
        return math.log(high / low)

    def _drawn(self, name: str) -> Any:
        sampler = self._space[name]
        if sampler["_type"] == "choice":
            return sampler["_value"][self._rng.integers(len(sampler["_value"]))]
        if sampler["_type"] == "randint":
            return int(self._rng.integers(*sampler["_value"]))
        return value_at(self._rng.random(), sampler)

    def _moved(self, name: str, value: Any, width: float) -> Any:
        if name in self._choices:
            return self._drawn(name) if self._rng.random() < _OTHER_CHOICE else value
        moved = (place(value, self._space[name]) or 0.0) + width * self._rng.standard_normal()
        reflected = 1 - abs(1 - abs(moved) % 2)
        return value_at(reflected, self._space[name])

    def _with_step(self, params: Params, like: Params, width: float) -> Params:
        """These with a learning rate whose steps are about those of `like`, as far as its range allows."""
        low, high = self._space["lr"]["_value"]
        for _ in range(_TRIES):
            step = like["lr"] * _step(like) * math.exp(width * self._decades * self._rng.standard_normal())
            lr = step / _step(params)
            if low <= lr <= high:
                break
        return {**params, "lr": min(max(lr, low), high)}


def _step(params: Mapping[str, Any]) -> float:
    """How far one image moves the network's parameters for each unit of learning rate."""
    return 1.0 / (1.0 - float(params.get("momentum", 0.0))) / float(params.get("batch_size", 1.0))
