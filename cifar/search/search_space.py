"""What NNI's samplers mean: which values each gives, how many there are, and whether a trial's parameters fit.

A search space is a mapping of names to {"_type": ..., "_value": [...]}, as search_space.json has it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cifar.errors import RequestError

Space = Mapping[str, Mapping[str, Any]]

VALUES = {  # number of values that each sampler takes; None is any number
    "choice": None,
    "randint": 2,
    "uniform": 2,
    "loguniform": 2,
    "quniform": 3,
    "qloguniform": 3,
}
_CATEGORICAL = ("choice", "randint")
_LARGEST = 1e12  # no hyperparameter needs more, and arithmetic on more overflows
_ROUNDING = 1e-9  # by which NNI's logarithms may miss an end of a range, in proportion


def read(path: Path) -> Any:
    """What a search space file holds. RequestError where it cannot be read, or is neither JSON nor YAML.

    JSON is read as JSON: YAML, as which NNI reads it, takes 1e-4 for a text and knows no tabs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"searchSpaceFile {path} cannot be read: {error.strerror}") from None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        problem = error
    if b"\0" in content:
        raise RequestError(f"searchSpaceFile {path} is no text in UTF-8: save it as UTF-8")
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RequestError(f"searchSpaceFile {path} is no JSON: {problem}") from None


def sampler_problem(sampler: Any) -> str | None:
    """How a sampler breaks the rules of its type; None where it does not."""
    kind, values = (sampler.get("_type"), sampler.get("_value")) if isinstance(sampler, Mapping) else (None, None)
    if not isinstance(kind, str) or kind not in VALUES:
        return f"must have one of the types {', '.join(VALUES)}, got {kind!r}"
    count = VALUES[kind]
    if not isinstance(values, list) or not values or count not in (None, len(values)):
        return f"must have a list of {count or 'at least 1'} values for {kind}, got {values!r}"
    if kind != "choice":
        return _range_problem(kind, values)
    return None


def _range_problem(kind: str, values: list[Any]) -> str | None:
    if texts := [v for v in values if isinstance(v, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", v)]:
        return (
            f"must have numbers as values for {kind}, and YAML takes {texts[0]} for a text: write {float(texts[0])!r}"
        )
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= _LARGEST for v in values):
        return f"must have numbers up to {_LARGEST:g} as values for {kind}, got {values!r}"
    low, high = values[:2]
    if not low < high:
        return f"must have its low end below its high end, got {values!r}"
    if "log" in kind and low <= 0:
        return f"must lie above 0 for {kind}, got {values!r}"
    if len(values) == 3 and not 1 / _LARGEST <= values[2] <= high - low:
        return f"must have a step above 0 and at most as wide as the range, got {values!r}"
    return None


def sampled_values(sampler: Mapping[str, Any]) -> list[Any]:
    """All choices; of a range both ends and, since whole ends may hide that it is continuous, a value between."""
    kind, values = sampler["_type"], sampler["_value"]
    if kind == "choice":
        return list(values)
    if kind == "randint":
        return [values[0], values[1] - 1]  # the upper end is excluded
    if kind in ("quniform", "qloguniform"):
        low, high, step = values
        multiple = math.ceil(low / step) * step  # samples are multiples of the step, cut to the range
        return list(dict.fromkeys([low, min(multiple, high), min(multiple + step, high), high]))
    low, high = (float(value) for value in values)
    return [low, low + (high - low) / math.pi, high]


def range_text(sampler: Mapping[str, Any]) -> str:
    """What a sampler gives, for people: 4 to 32, or sgd or adam."""
    if sampler["_type"] == "choice":
        return " or ".join(map(str, sampler["_value"]))
    if sampler["_type"].endswith("normal"):
        return f"around {sampler['_value'][0]:g}"
    low, *_, high = sampled_values(sampler)
    return f"{low:g} to {high:g}"


def points(sampler: Mapping[str, Any]) -> float:
    """How many values a sampler can give, infinity included."""
    kind, values = sampler["_type"], sampler["_value"]
    if kind == "choice":
        return float(len({json.dumps(value) for value in values}))
    if kind == "randint":
        return float(math.ceil(values[1]) - math.ceil(values[0]))
    if kind in ("quniform", "qloguniform"):
        return float(_multiple(sampler, 1.0) - _multiple(sampler, 0.0) + 1)  # some are cut to the range, none is equal
    return math.inf


def end_problem(sampler: Mapping[str, Any]) -> str | None:
    """Why NNI's grid search would never end on a sampler, to which each tuner turns when it has drawn a point twice."""
    if not has_lonely_end(sampler):
        return None
    low, high, step = sampler["_value"]
    below = math.floor(high / step) * step
    ends = " or ".join(f"{end:g}" for end in (below, below + step) if end > low)
    return f"must end at a multiple of its step, as {ends}, got {[low, high, step]}: NNI would search {high:g} for ever"


def has_lonely_end(sampler: Mapping[str, Any]) -> bool:
    """Whether the high end alone, and nothing just below it, is rounded up to it.

    NNI's grid search then halves the space between them for ever, once it has tried all else.
    """
    if sampler["_type"] not in ("quniform", "qloguniform"):
        return False
    return _multiple(sampler, 1.0) != _multiple(sampler, math.nextafter(1.0, 0.0))


def _multiple(sampler: Mapping[str, Any], place: float) -> int:
    """Which multiple of its step a quantised sampler gives at a place from 0 to 1 in its range, as NNI computes it."""
    low, high, step = (float(value) for value in sampler["_value"])
    if sampler["_type"] == "quniform":
        return round((low + (high - low) * place) / step)
    low, high = math.log(low), math.log(high)
    return round(math.exp(low + (high - low) * place) / step)


def fits(params: Mapping[str, Any], space: Space) -> bool:
    """Whether these are parameters that the space can give: all of its names, and each value inside its range.

    Trials that somebody adds in NNI's page need not fit, nor those from before the space was changed there.
    """
    return all(name in params and _is_among(params[name], sampler) for name, sampler in space.items())


def _is_among(value: Any, sampler: Any) -> bool:
    kind, values = (sampler.get("_type"), sampler.get("_value")) if isinstance(sampler, Mapping) else (None, None)
    if not isinstance(kind, str) or not isinstance(values, list) or len(values) < (VALUES.get(kind) or 1):
        return False  # somebody has put this there by hand
    if kind == "choice":
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)  # 1 == True
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    if kind not in VALUES:  # NNI's others have no ends
        return True
    if kind == "randint":
        return value == int(value) and values[0] <= value < values[1]
    low, high = (float(end) for end in values[:2])
    spare = _ROUNDING * max(abs(low), abs(high))
    return low - spare <= value <= high + spare


def is_categorical(sampler: Any) -> bool:
    """Whether NNI's TPE takes its values for choices without an order."""
    return isinstance(sampler, Mapping) and sampler.get("_type") in _CATEGORICAL


def is_logarithmic(sampler: Mapping[str, Any]) -> bool:
    return "log" in sampler["_type"]


def ends(sampler: Mapping[str, Any]) -> tuple[float, float] | None:
    """The ends of a continuous or quantised range; None for choices, and for samplers of NNI's that have none."""
    if not sampler["_type"].endswith("uniform"):
        return None
    low, high = sampler["_value"][:2]
    return low, high


def value_at(place: float, sampler: Mapping[str, Any]) -> float:
    """The value at a place from 0 to 1 of a range, as NNI draws it: a quantised one is a multiple of its step."""
    low, high = (float(end) for end in sampler["_value"][:2])
    if sampler["_type"] in ("quniform", "qloguniform"):
        return min(max(_multiple(sampler, place) * float(sampler["_value"][2]), low), high)
    if is_logarithmic(sampler):
        return math.exp(math.log(low) + (math.log(high) - math.log(low)) * place)
    return low + (high - low) * place


def place(value: Any, sampler: Mapping[str, Any]) -> float | None:
    """Where a value lies in its range, from 0 to 1 on the scale it is drawn on; None where there is no range."""
    range_ = ends(sampler)
    if range_ is None or not isinstance(value, (int, float)):
        return None
    scale = math.log if is_logarithmic(sampler) else float
    low, high = (scale(end) for end in range_)
    return (scale(value) - low) / (high - low)


def nearest_value(value: Any, sampler: Mapping[str, Any]) -> Any:
    """The value nearest to this one that the sampler can give; of choices that are no numbers the middle one."""
    if sampler["_type"] == "choice":
        return _nearest_choice(value, sampler["_value"])
    low, high = ends(sampler) or (sampler["_value"][0], sampler["_value"][1] - 1)
    if sampler["_type"] in ("quniform", "qloguniform"):
        step = sampler["_value"][2]
        value = round(value / step) * step
    nearest = min(max(value, low), high)
    return int(nearest) if sampler["_type"] == "randint" else float(nearest)


def _nearest_choice(value: Any, choices: list[Any]) -> Any:
    if value in choices:
        return choices[choices.index(value)]  # 6 where the choice is 6.0
    if any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in (value, *choices)):
        return choices[len(choices) // 2]
    scale = math.log if min(value, *choices) > 0 else float  # learning rates differ by factors
    return min(choices, key=lambda one: abs(scale(one) - scale(value)))
