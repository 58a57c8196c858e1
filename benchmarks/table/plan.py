"""Which trainings the tables hold: spaces, budgets, and configurations that fill them evenly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from scipy.stats import qmc

from cifar.search.search_space import Space, value_at
from cifar.training.hparams import Hparams

ROOT = Path(__file__).parents[2]
_REPEATED = 5  # of so many configurations one is trained with a second seed
_BAND = (0.002, 0.04)  # of lr / ((1 - momentum) * batch_size): outside it net hardly learns, or diverges


@dataclass(frozen=True)
class Plan:
    """A table: `configurations` of a space, each trained like `base`; `train_images`: of so many, 0 for all."""

    name: str
    space: Space
    base: Hparams
    configurations: int
    train_images: int = 0
    banded: bool = False  # every other configuration has a learning rate that fits its momentum and batch
    chosen_from: str | None = None  # a table of the same configurations on a smaller budget: half are its best


@dataclass(frozen=True)
class Training:
    """A row of a table to be: its configuration's number, and the seed."""

    number: int
    hparams: Hparams


def _space(path: str, **changes: Any) -> Space:
    space: dict[str, Any] = json.loads((ROOT / path).read_text())
    return {**space, **changes}


_NET = Hparams(epochs=4, images_per_epoch=10_000, schedule="triangular", flip=True, translate=2)
_FAST = Hparams(model="fast", epochs=5, images_per_epoch=10_000, tta_flip=False)
_NET_SPACE, _FAST_SPACE = _space("search_space.json"), _space("searches/fast/search_space.json")
_SMALL_SPACE = {**_FAST_SPACE, "batch_size": {"_type": "qloguniform", "_value": [16, 256, 16]}}

PLANS = {
    plan.name: plan
    for plan in [
        Plan("net", _NET_SPACE, _NET, 300, banded=True),
        Plan("fast", _FAST_SPACE, _FAST, 120),
        Plan("fast-2000", _SMALL_SPACE, replace(_FAST, epochs=16, images_per_epoch=0), 120, train_images=2_000),
        Plan(
            "net-full",
            _NET_SPACE,
            replace(_NET, images_per_epoch=0),
            40,
            banded=True,
            chosen_from="net",
        ),
    ]
}


def trainings(plan: Plan, ranking: list[int]) -> Iterator[Training]:
    """All of a table, in an order in which each beginning fills the space evenly.

    `ranking`: numbers of the configurations of the table that `chosen_from` names, the best first.
    """
    every = configurations(plan)
    if plan.chosen_from is None:
        for number, params in enumerate(islice(every, plan.configurations)):
            yield _training(plan, number, params, seed=0)
            if number % _REPEATED == 0:
                yield _training(plan, number, params, seed=1)
        return
    half = plan.configurations // 2
    known = list(islice(every, max(ranking) + 1))
    others = [number for number in range(len(known)) if number not in ranking[:half]]
    for number in [*ranking[:half], *others[: plan.configurations - half]]:
        yield _training(plan, number, known[number], seed=0)


def _training(plan: Plan, number: int, params: dict[str, float], seed: int) -> Training:
    """Each configuration has chance of its own: with one seed for all, neighbours would have the same luck."""
    return Training(number, Hparams.from_params({**vars(plan.base), **params, "seed": 2 * number + seed}))


def configurations(plan: Plan) -> Iterator[dict[str, float]]:
    """Quasi-random points without end; every other one of a banded plan lies in the band."""
    samplers = list(plan.space.items())
    points = qmc.Halton(len(samplers), seed=0)
    number = 0
    while True:
        places = points.random()[0]
        params = {name: value_at(place, sampler) for place, (name, sampler) in zip(places, samplers, strict=True)}
        if not plan.banded or number % 2 == 0 or _BAND[0] < step_per_image(params) < _BAND[1]:
            number += 1
            yield params


def step_per_image(params: Mapping[str, float]) -> float:
    """How far one image moves the parameters in the long run: what learning rate, momentum and batch make together."""
    return params["lr"] / (1 - params["momentum"]) / params["batch_size"]
