"""The configurations that `cifar best` trains again: the leaders of a search, and the recipe's defaults."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifar.errors import RequestError
from cifar.training import augmentation, defaults
from cifar.training.hparams import Hparams, command_hparams, command_size, present_name
from cifar.trials import store
from cifar.trials.leaderboard import param_text
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import ties

DEFAULTS = "defaults"  # their id
MOST_LEADERS = 5  # of a search, that are trained again
_FIRST_SEED = 1000  # far from the seeds that most searches use


@dataclass(frozen=True)
class Configuration:
    """Hyperparameters whose seed is yet to be chosen; `id` is that of their trial, or one of the defaults."""

    id: str
    name: str  # for people: "trial 17"
    hparams: Hparams
    params: dict[str, Any]  # the searched ones
    found: float | None = None  # validation accuracy in the search
    longer: Configuration | None = None  # at the final networks' budget, where that changes more than the budget

    @property
    def params_text(self) -> str:
        return ", ".join(f"{name} {param_text(value)}" for name, value in self.params.items())

    @property
    def budget_text(self) -> str:
        images = f"{self.hparams.images_per_epoch:,}" if self.hparams.images_per_epoch else "all"
        return f"{self.hparams.epochs} epochs of {images} images"

    @property
    def unseeded(self) -> Hparams:
        """Its hyperparameters with seed 0: equal for all trainings of one configuration."""
        return replace(self.hparams, seed=0)

    def with_seeds(self, seeds: Sequence[int]) -> Iterator[Hparams]:
        return (replace(self.hparams, seed=seed) for seed in seeds)


def of_trial(trial: Trial) -> Configuration:
    try:
        hparams = Hparams.from_params((trial.result or {})["hparams"])
    except (RequestError, KeyError, TypeError) as error:
        raise RequestError(
            f"trial {trial.number} was run by another version, which this one cannot repeat: {error}"
        ) from None
    return Configuration(trial.id, f"trial {trial.number}", hparams, trial.params, trial.accuracy)


def of_defaults(experiment: Path, data_name: str, images: int, **budget: int) -> Configuration:
    """What would be trained on so many images without a search: the recipe, fitted to the budget and to the data.

    The trial command's budget, if no other is given. Where a parameter has one choice alone there is nothing to tune.
    RequestError where the command cannot be trained.
    """
    config = store.read_config(experiment)
    space = config.get("searchSpace") or {}
    given, _ = command_hparams(str(config.get("trialCommand", "")))
    fixed = {
        name: sampler["_value"][0]
        for name, sampler in space.items()
        if sampler["_type"] == "choice" and len(sampler["_value"]) == 1
    }
    hparams = augmentation.fitting(defaults.for_budget({**given, **fixed, **budget}, images), data_name)
    params = {name: getattr(hparams, present_name(name), "") for name in space}
    return Configuration(DEFAULTS, "the defaults", hparams, params)


def recipe_of(experiment: Path, images: int) -> Hparams:
    """What would be trained without a search, and without the budget of its trials."""
    given, _ = command_hparams(str(store.read_config(experiment).get("trialCommand", "")))
    fixed = {name: value for name, value in given.items() if name not in ("epochs", "images_per_epoch")}
    return defaults.for_data(fixed, images)


def size_of(experiment: Path) -> int:
    """The pixels a side of an experiment's images."""
    return command_size(str(store.read_config(experiment).get("trialCommand", "")))


def leading(trials: list[Trial], experiment: Path) -> list[Trial]:
    """The best trial and all trials that tie with it. RequestError where none has finished."""
    ranked = best_first(trials)
    if not ranked:
        raise RequestError(f"no trial of experiment {experiment.name} has finished: there is nothing to confirm")
    tied = ties(trials, experiment)
    return [trial for trial in ranked if trial.id in tied] or ranked[:1]


def started(trials: list[Trial], experiment: Path) -> list[Trial]:
    """The trials that finished of what `--start-from` named, the best first."""
    arguments = (store.read_config(experiment).get("tuner") or {}).get("classArgs") or {}
    # What a point of a config leaves open is as in the defaults.
    points = [{**(arguments.get("defaults") or {}), **point} for point in arguments.get("start_from") or []]
    return [trial for trial in best_first(trials) if trial.params in points]


def new_seeds(trials: Sequence[Trial], count: int) -> list[int]:
    """Seeds that none of a search's trials has used: being chosen is luck in the old ones."""
    used = {(trial.result or {}).get("hparams", {}).get("seed") for trial in trials}
    return list(itertools.islice((seed for seed in itertools.count(_FIRST_SEED) if seed not in used), count))
