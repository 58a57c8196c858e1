"""The line that trains a trial's configuration again, outside of any search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from cifar.errors import RequestError
from cifar.system.files import short
from cifar.training.hparams import Hparams, option
from cifar.trials.store import Trial

# Always named: their defaults follow from the data, or say most of the configuration.
_NAMED = ("width", "lr", "momentum", "batch_size", "epochs")
_NAMED_OF_FAST = (*_NAMED, "color_jitter")


def trial_line(hparams: Hparams, data_name: str) -> str:
    """`python trial.py ...` with these hyperparameters, as far as they are not the network's defaults."""
    usual, words = Hparams.from_params({"model": hparams.model}), ["python trial.py"]
    named = _NAMED_OF_FAST if hparams.model == "fast" else _NAMED
    if data_name != "cifar10":
        place = short(Path(data_name)) if Path(data_name).is_absolute() else data_name
        words.append(f"--data {shlex.quote(place)}")
    for name, value in vars(hparams).items():
        if name in named or value != getattr(usual, name) or (name == "model" and value != "net"):
            words.append(option(name, value))
    return " ".join(words)


def line_of(trial: Trial, data_name: str | None = None) -> str | None:
    """Of a trial that left a result, on its own data unless others are named; None where another version ran it."""
    result: Mapping[str, object] = trial.result or {}
    hparams, name = result.get("hparams"), data_name or trial.data.get("name")
    if not isinstance(hparams, Mapping) or not isinstance(name, str):
        return None
    try:
        return trial_line(Hparams.from_params(hparams), name)
    except RequestError:
        return None
