"""What a search begins with: the recipe's defaults for its budget, and what its user knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar.errors import RequestError
from cifar.search.search_space import Space, fits, nearest_value, sampled_values
from cifar.training import augmentation, defaults
from cifar.training.hparams import Hparams, command_hparams, present_name
from cifar.trials import store

Params = dict[str, Any]

_LEADERS = 3  # of an earlier experiment
SHIPPED_WIDTHS = ([4, 32, 2], [8, 32, 4], [32, 128, 16])  # low end, high end and step
# Likewise, each with the batch size of the defaults for which its range was made.
SHIPPED_BATCH_SIZES = {(4, 128, 4): 4, (64, 1024, 64): 128, (256, 2048, 256): 1024}
_OF_A_STEP = ("batch_size", "momentum")  # by which, with the learning rate, an image moves the parameters
_SMALLEST, _FEWEST_STEPS = 4, 25  # batch size, and step of batch sizes; steps of a trial with the largest


def defaults_of(space: Space, command: str, images: int, data_name: str) -> Params:
    """The defaults of a trial command that trains on so many images, as the nearest point of the space."""
    given, _ = command_hparams(command)
    known = nearest(defaults.for_budget(given, images), space)
    # A space that does not reach the defaults' batch size changes the learning rate that goes with it.
    held = {present_name(name): value for name, value in known.items() if present_name(name) in _OF_A_STEP}
    return nearest(augmentation.fitting(defaults.for_budget({**given, **held}, images), data_name), space)


def fitting_space(space: Space, command: str, images: int) -> Space:
    """The space for trials on so many images: where a shipped range of batch sizes is for more of them, a lower one.

    It moves as the default batch size does, and its upper end leaves a trial some steps. A range of one's own stays.
    """
    low, high, step = _batch_sizes(space)
    if (low, high, step) not in SHIPPED_BATCH_SIZES:
        return space
    given, _ = command_hparams(command)
    here = defaults.for_budget(given, images)
    moved = min(1.0, here.batch_size / SHIPPED_BATCH_SIZES[low, high, step])
    smallest = min(low, defaults.smallest_batch(here.model))
    step, low = max(_SMALLEST, round(step * moved)), max(smallest, round(low * moved))
    most = here.epochs * here.epoch_images(images) // _FEWEST_STEPS
    high = max(2 * low, int(min(high * moved, most) // step * step))
    return {**space, "batch_size": {**space["batch_size"], "_value": [low, high, step]}}


def _batch_sizes(space: Space) -> tuple[Any, Any, Any]:
    """Ends and step of a quantised range; zeros where there is none."""
    sampler = space.get("batch_size", {"_type": "", "_value": []})
    low, high, step = sampler["_value"] if sampler["_type"] == "qloguniform" else (0, 0, 0)
    return low, high, step


def _reachable(space: Space) -> Space:
    """With the smallest batch sizes that a shipped range may come to: which images there are is not known yet."""
    low, high, step = _batch_sizes(space)
    if (low, high, step) not in SHIPPED_BATCH_SIZES:
        return space
    return {**space, "batch_size": {**space["batch_size"], "_value": [min(low, _SMALLEST), high, 1]}}


def nearest(hparams: Hparams, space: Space) -> Params:
    """The point of the space that these hyperparameters are, or would be if it reached so far."""
    return {name: nearest_value(getattr(hparams, present_name(name)), sampler) for name, sampler in space.items()}


def points(asked: Sequence[str], space: Space, command: str, experiments: Path) -> list[Params]:
    """What `--start-from` names: `width=26,lr=0.02`, or an experiment, whose best configurations are taken.

    RequestError for what the search space does not have.
    """
    found, reachable = list[Params](), _reachable(space)
    for text in asked:
        if text in space:
            raise RequestError(f"--start-from {text}: {text} needs a value, {text}=VALUE")
        found += [_read(text, reachable)] if "=" in text else _leaders(text, reachable, command, experiments)
    return found


def within(points: Sequence[Params], space: Space) -> list[Params]:
    """The points of the space that these are or come nearest to: few images have smaller batches."""
    return [{name: nearest_value(value, space[name]) for name, value in point.items()} for point in points]


def _read(text: str, space: Space) -> Params:
    params = Params()
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in space:
            raise RequestError(f"--start-from {text}: {name!r} is not searched; known are {', '.join(space)}")
        if name in params:
            raise RequestError(f"--start-from {text}: {name} is given twice")
        params[name] = _value(value, name, space[name], text)
    try:
        Hparams.from_params(params)
    except RequestError as error:
        raise RequestError(f"--start-from {text}: {error}") from None
    return params


def _value(value: str, name: str, sampler: Mapping[str, Any], text: str) -> Any:
    if sampler["_type"] == "choice":
        choices = {str(choice).lower(): choice for choice in sampler["_value"]}  # true is Python's True
        if value.lower() not in choices:
            raise RequestError(f"--start-from {text}: {name} must be one of {', '.join(choices)}, got {value!r}")
        return choices[value.lower()]
    try:
        number = float(value)
    except ValueError:
        raise RequestError(f"--start-from {text}: {name} must be a number, got {value!r}") from None
    if not fits({name: number}, {name: sampler}) or not math.isfinite(number):
        low, *_, high = sampled_values(sampler)
        raise RequestError(f"--start-from {text}: {name} must be from {low:g} to {high:g} to be searched, got {value}")
    near = nearest_value(number, sampler)
    if not math.isclose(near, number):
        steps = f"in steps of {sampler['_value'][2]:g}" if len(sampler["_value"]) > 2 else "whole"
        raise RequestError(f"--start-from {text}: {name} is searched {steps}: {near:g} is the nearest to {value}")
    return near


def _leaders(experiment_id: str, space: Space, command: str, experiments: Path) -> list[Params]:
    """The best configurations of an earlier experiment of this network, as far as they were searched there and here."""
    experiment = store.find(experiment_id, experiments)
    there, here = (_network(some) for some in (store.read_config(experiment).get("trialCommand", command), command))
    if there != here:
        raise RequestError(f"--start-from {experiment_id}: it trained the network {there}, this one trains {here}")
    trials = store.best_first(store.read_trials(experiment))
    known = [{name: trial.params[name] for name in space if name in trial.params} for trial in trials]
    fitting = [some for some in known if some and fits(some, {name: space[name] for name in some})]
    if not fitting:
        raise RequestError(f"--start-from {experiment_id}: no trial of it has parameters that this search space has")
    return fitting[:_LEADERS]


def _network(command: str) -> str:
    given, _ = command_hparams(command)
    return Hparams.from_params(given).model


def completed(some: Sequence[Params], known: Params) -> list[Params]:
    """These points with the defaults for what they leave open; the defaults first, and none twice."""
    whole = [known, *({**known, **params} for params in some)]
    return [params for number, params in enumerate(whole) if params not in whole[:number]]
