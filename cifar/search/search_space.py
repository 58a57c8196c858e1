"""What NNI's samplers mean: which values each gives, how many there are, and whether a trial's parameters fit.

A search space is a mapping of names to {"_type": ..., "_value": [...]}, as search_space.json has it.
"""

from __future__ import annotations

import json
import math
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


def has_lonely_end(sampler: Mapping[str, Any]) -> bool:
    """Whether the high end alone, and nothing just below it, is rounded up to it.

    NNI then halves the space between them for ever once it has tried all else: its grid search, to which each tuner
    turns when it has drawn a point twice, does not end.
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
