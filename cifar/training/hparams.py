"""Hyperparameters: the only place where a default, a meaning or a rule is written."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from cifar.data.sizes import LARGE_SIZE, SIZE
from cifar.errors import RequestError

# Channels of each network's first convolution as its authors wrote it; `width` replaces this number.
WIDTHS = {"net": 6, "wide": 64, "lenet": 16, "fast": 64}

METRICS = ("accuracy", "balanced_accuracy")
SAME_FOR_ALL = ("metric", "size")  # trials of a search, or they would not compare

# Where a network has other defaults than the tutorial's recipe.
RECIPES: dict[str, dict[str, object]] = {name: {"width": width} for name, width in WIDTHS.items()}
RECIPES["fast"] |= {
    "lr": 1.5,
    "momentum": 0.85,
    "batch_size": 1024,
    "epochs": 10,
    "weight_decay": 0.0013,
    "precision": "auto",
    "schedule": "triangular",
    "nesterov": True,
    "label_smoothing": 0.2,
    "flip": True,
    "translate": 2,
    "lookahead_decay": 0.95,
    "tta_flip": True,
}

# What experiments and model files of version 0.1 call some of them; both are still read.
_FORMER_NAMES = {
    "accumulate": "gradient_accumulation_steps",
    "average": "lookahead_decay",
    "mirrored": "tta_flip",
    "shift": "translate",
}

Rule = Callable[[str, object], Any]


def _integer(low: int, high: int) -> Rule:
    """An integer, or a float that is one: NNI's quantised samplers send 16.0."""

    def check(name: str, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise RequestError(f"{name} must be an integer from {low} to {high}, got {value!r}")
        return value

    return check


def _integer_of(*choices: int) -> Rule:
    def check(name: str, value: object) -> int:
        if value not in choices or isinstance(value, bool):
            raise RequestError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
        return int(value)

    return check


def _number(text: str, inside: Callable[[float], bool]) -> Rule:
    def check(name: str, value: object) -> float:
        number = math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            number = float(value)
        if math.isnan(number) or not inside(number):
            raise RequestError(f"{name} must be a number {text}, got {value!r}")
        return number

    return check


def _one_of(*choices: str) -> Rule:
    def check(name: str, value: object) -> str:
        if value not in choices:
            raise RequestError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return str(value)

    return check


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, got {value!r}")
    return value


def _hparam(group: str, default: object, rule: Rule, meaning: str, metavar: str = "") -> Any:
    """`group` is where help lists it, `metavar` what stands there for its value."""
    known = {"group": group, "default": default, "rule": rule, "meaning": meaning, "metavar": metavar}
    return field(default=None, metadata=known)


def _choice(group: str, default: str, choices: Sequence[str], meaning: str) -> Any:
    return _hparam(group, default, _one_of(*choices), meaning, "|".join(choices))


@dataclass(frozen=True)
class Hparams:
    """One trial's hyperparameters, checked on construction; None takes the default.

    Defaults are the tutorial's recipe, or the network's own of RECIPES. Raises RequestError for a value that breaks
    its rule.
    """

    model: str = _choice("network", "net", [*WIDTHS], "the tutorial's network, its wide one, LeNet, or a fast one")
    width: int = _hparam(
        "network", None, _integer(1, 1024), "channels of the first convolution, all later sizes in proportion"
    )
    size: int = _hparam(
        "network",
        SIZE,
        _integer_of(SIZE, LARGE_SIZE),
        f"pixels a side of an image: {SIZE}, or {LARGE_SIZE} for a folder's pictures",
        f"{SIZE}|{LARGE_SIZE}",
    )
    lr: float = _hparam("training", 0.001, _number("above 0", lambda v: v > 0), "learning rate")
    momentum: float = _hparam("training", 0.9, _number("from 0 to below 1", lambda v: 0 <= v < 1), "momentum of sgd")
    batch_size: int = _hparam("training", 4, _integer(1, 2**20), "images per optimizer step")
    epochs: int = _hparam("training", 2, _integer(1, 100_000), "passes over the training images")
    images_per_epoch: int = _hparam(
        "training",
        0,
        _integer(0, 2**31),
        "training images that each epoch draws, for a search on a small budget; 0: all",
    )
    optimizer: str = _choice("training", "sgd", ["sgd", "adam"], "rule by which gradients change the parameters")
    schedule: str = _choice(
        "training",
        "constant",
        ["constant", "triangular"],
        "learning rate over the steps; triangular rises for a quarter of them and then falls",
    )
    weight_decay: float = _hparam(
        "training", 0.0, _number("of at least 0", lambda v: v >= 0), "L2 penalty on the parameters"
    )
    nesterov: bool = _hparam("training", False, _flag, "Nesterov's form of sgd's momentum")
    label_smoothing: float = _hparam(
        "training",
        0.0,
        _number("from 0 to below 1", lambda v: 0 <= v < 1),
        "share of each label spread over all classes",
    )
    lookahead_decay: float = _hparam(
        "training",
        0.0,
        _number("from 0 to below 1", lambda v: 0 <= v < 1),
        "decay per step of the exponential average to which the parameters return; 0: no average",
    )
    gradient_accumulation_steps: int = _hparam(
        "training",
        1,
        _integer(1, 2**20),
        "micro-batches that each batch is split into; saves memory, changes no result but fast's, "
        "which normalises each by itself",
    )
    precision: str = _choice(
        "training",
        "float32",
        ["float32", "bfloat16", "auto"],
        "arithmetic of training and validation; auto: bfloat16 where the hardware has it; tests are in float32",
    )
    seed: int = _hparam(
        "training", 0, _integer(0, 2**32 - 1), "seed of initial parameters, and of the order and views of images"
    )
    flip: bool = _hparam("images", False, _flag, "mirror each training image in every other epoch; digits never")
    translate: int = _hparam("images", 0, _integer(0, 31), "pixels by which training images move at most, each way")
    color_jitter: float = _hparam(
        "images",
        0.0,
        _number("from 0 to below 1", lambda v: 0 <= v < 1),
        "share by which brightness, contrast and saturation of training images change at most, and tint by 0.4 of it",
    )
    tta_flip: bool = _hparam(
        "images", False, _flag, "classify an image by the mean logits of itself and its mirror image; digits never"
    )
    balanced: bool = _hparam(
        "images", False, _flag, "show as many images of each class, those of small classes several times in an epoch"
    )
    metric: str = _choice(
        "images",
        "accuracy",
        METRICS,
        "what is tuned of the validation images; balanced_accuracy is the mean of the classes' accuracies",
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if value is None:  # model comes first, so it has passed its rule
                value = _default(spec, self.model)
            object.__setattr__(self, spec.name, spec.metadata["rule"](spec.name, value))
        if self.gradient_accumulation_steps > self.batch_size:
            raise RequestError(
                f"gradient_accumulation_steps must be at most batch_size ({self.batch_size}), "
                f"got {self.gradient_accumulation_steps}"
            )

    @property
    def augments(self) -> bool:
        return self.flip or self.translate > 0 or self.color_jitter > 0

    def epoch_images(self, images: int) -> int:
        """How many of so many training images an epoch shows."""
        return min(self.images_per_epoch or images, images)

    @classmethod
    def from_params(cls, params: Mapping[str, object]) -> Hparams:
        """Hparams from a tuner's params or a command line; an unknown name is a RequestError."""
        known = [spec.name for spec in fields(cls)]
        for former, now in _FORMER_NAMES.items():
            if former in params and now in params:
                raise RequestError(f"{former} is the former name of {now}: give one of them, got both")
        params = {present_name(name): value for name, value in params.items()}
        for name, value in params.items():
            if name not in known:
                raise RequestError(f"unknown hyperparameter {name!r}; known are {', '.join(known)}")
            if value is None:
                raise RequestError(f"{name} must have a value, got None")
        return cls(**params)  # type: ignore[arg-type]


def present_name(name: str) -> str:
    """The name of a hyperparameter that version 0.1 may have called otherwise."""
    return _FORMER_NAMES.get(name, name)


def _default(spec: Field[Any], model: object) -> object:
    recipe = RECIPES.get(str(model), {})
    return recipe.get(spec.name, spec.metadata["default"])


def add_arguments(
    parser: argparse.ArgumentParser, about: str | None = None, without: Sequence[str] = (), defaults: bool = True
) -> None:
    """An option for each hyperparameter, in groups; options not given stay out of the parsed namespace.

    Help says the defaults where they are the command's own.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for spec in (some for some in fields(Hparams) if some.name not in without):
        name = spec.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name, None if groups else about)
        _add_argument(groups[name], spec, f" (default: {_defaults(spec)})" if defaults else "")


def command_model(command: str) -> str:
    """The network that a trial command trains."""
    given, _ = command_hparams(command)
    return str(given.get("model", "net"))


def command_size(command: str) -> int:
    """The pixels a side with which a trial command trains."""
    given, _ = command_hparams(command)
    return Hparams.from_params({"size": given["size"]} if "size" in given else {}).size


def _add_argument(group: argparse._ArgumentGroup, spec: Field[Any], default: str) -> None:
    name, former = spec.name, [name for name, now in _FORMER_NAMES.items() if now == spec.name]
    dashed = f"--{name.replace('_', '-')}"
    hidden = [f"--{some}" for some in [name, *former] if f"--{some}" != dashed]
    meaning = f"{spec.metadata['meaning']}{default}"
    for names, text in (([dashed], meaning), (hidden, argparse.SUPPRESS)):
        how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        if names and spec.type == "bool":
            group.add_argument(*names, action=argparse.BooleanOptionalAction, **how)
        elif names:
            type_, short = {"int": (int, "N"), "float": (float, "X"), "str": (str, "")}[str(spec.type)]
            group.add_argument(*names, type=type_, metavar=spec.metadata["metavar"] or short, **how)


def _defaults(spec: Field[Any]) -> str:
    """The defaults of all networks, equal ones only once: "0.001; fast: 1.5"."""
    own = [f"{model}: {_shown(recipe[spec.name])}" for model, recipe in RECIPES.items() if spec.name in recipe]
    general = spec.metadata["default"]
    return "; ".join(own if general is None else [_shown(general), *own])


def _shown(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def given_arguments(options: argparse.Namespace) -> dict[str, object]:
    """The hyperparameters that the command line named."""
    return {spec.name: getattr(options, spec.name) for spec in fields(Hparams) if hasattr(options, spec.name)}


def option(name: str, value: object) -> str:
    """A hyperparameter as it stands in a command."""
    dashed = name.replace("_", "-")
    return f"--{'' if value else 'no-'}{dashed}" if isinstance(value, bool) else f"--{dashed} {value}"


def command_hparams(command: str) -> tuple[dict[str, object], list[str]]:
    """The hyperparameters that a trial command names, and its other words; RequestError where one cannot be read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_arguments(parser)
    try:
        options, others = parser.parse_known_args(shlex.split(command))
    except (argparse.ArgumentError, ValueError) as error:
        raise RequestError(str(error)) from None
    return given_arguments(options), others
