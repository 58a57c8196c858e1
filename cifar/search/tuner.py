"""NNI's TPE, which now and then trains a leader again with another seed.

How much of an accuracy is the seed's luck, nothing else in a search can tell. config.yml names this class in place of
NNI's own; it runs in NNI's tuner process.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.utils import extract_scalar_reward

_log = logging.getLogger(__name__)

_EVERY = 16  # proposals of which one repeats a leader, once the random phase is over: a leader's trial is a dear one
_LEADERS = 3  # that take turns
FIRST_SEED = 5_000  # of repeats; far from the seeds that trial commands name


@dataclass
class _Point:
    """A configuration that was trained, once or more."""

    params: dict[str, Any]
    results: list[float] = field(default_factory=list)
    begun: int = 1  # trainings, those that run included


class RepeatingTpe(TpeTuner):  # type: ignore[misc]  # NNI has no types
    """TPE as NNI has it, with its arguments; of 16 proposals one is a leader's with a seed of its own.

    TPE itself hears of first trainings alone: to it a repeat would be a second point in the same place.
    """

    def __init__(
        self,
        optimize_mode: Literal["minimize", "maximize"] = "maximize",
        seed: int | None = None,
        tpe_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(optimize_mode, seed, tpe_args)
        self._points: dict[str, _Point] = {}
        self._repeating = set[int]()  # parameter ids
        self._proposed = 0  # since the last repeat
        self._given: dict[int, dict[str, Any]] = {}

    def generate_parameters(self, parameter_id: int, **others: Any) -> dict[str, Any]:
        given = self._given[parameter_id] = self._next(parameter_id)
        return given

    def _next(self, parameter_id: int) -> dict[str, Any]:
        leader = self._leader_to_repeat()
        if leader is not None:
            self._repeating.add(parameter_id)
            self._proposed = 0
            leader.begun += 1
            return {**leader.params, "seed": FIRST_SEED + leader.begun}
        self._proposed += 1
        params = self._propose(parameter_id)
        known = self._points.get(point_key(params))
        if known is None or "seed" in self.space_names:
            return params
        known.begun += 1  # proposed once more, it is a repeat by itself
        return {**params, "seed": FIRST_SEED + known.begun}

    def _propose(self, parameter_id: int) -> dict[str, Any]:
        proposed: dict[str, Any] = super().generate_parameters(parameter_id)
        return proposed

    def _leader_to_repeat(self) -> _Point | None:
        """The one of the leaders that was trained least; None where no repeat is due."""
        few = len(self._points) <= self.args.n_startup_jobs
        if self._proposed < _EVERY - 1 or few or "seed" in self.space_names:
            return None
        return min(self._ranked()[:_LEADERS], key=lambda point: point.begun)

    def _ranked(self) -> list[_Point]:
        """All that have a result, the best first."""
        return sorted(self._points.values(), key=lambda point: -fmean(point.results))

    @property
    def space_names(self) -> set[str]:
        return {key[-1] if isinstance(key, tuple) else str(key) for key in self.space or {}}

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **others: Any) -> None:
        # NNI forgets those of a trial when it asks for two more and a finite space has one left.
        parameters = parameters or self._given[parameter_id]
        number = figure(value)
        if number is None:  # after an exception NNI would wait for ever; of a failed trial it hears nothing either
            _log.error("a trial ended with %r, which is no finite number: the search learns nothing from it", value)
            return
        if parameter_id not in self._repeating:
            # NNI may tell of a trial's end before it tells its result, and TPE then knows the trial no more.
            self._running_params.setdefault(parameter_id, self._params[parameter_id])
            super().receive_trial_result(parameter_id, parameters, value, **others)
        self._note(parameters, number)

    def _note(self, parameters: Mapping[str, Any], number: float) -> None:
        sign = -1.0 if self.optimize_mode.value == "minimize" else 1.0
        params = {name: some for name, some in parameters.items() if name != "seed" or name in self.space_names}
        point = self._points.setdefault(point_key(params), _Point(params))
        point.results.append(sign * number)
        point.begun = max(point.begun, len(point.results))

    def trial_end(self, parameter_id: int, success: bool, **others: Any) -> None:
        if parameter_id not in self._repeating:
            super().trial_end(parameter_id, success, **others)

    def import_data(self, data: Any) -> None:
        """What a resumed experiment has: repeats are known by their seed, which the search space lacks."""
        trials = [json.loads(one) if isinstance(one, str) else one for one in _loaded(data)]
        trials = [one for one in trials if figure(one["value"]) is not None]
        groups = defaultdict[bool, list[Any]](list)
        for trial in trials:
            groups["seed" in trial["parameter"] and "seed" not in self.space_names].append(trial)
        super().import_data(groups[False])
        for trial in trials:
            self._note(trial["parameter"], float(extract_scalar_reward(trial["value"])))


def _loaded(data: Any) -> list[Any]:
    loaded: list[Any] = json.loads(data) if isinstance(data, str) else data
    return loaded


def figure(metrics: Any) -> float | None:
    """The number that a trial reported, alone or as `default`; None where it is none, or not finite."""
    try:
        number = float(extract_scalar_reward(metrics))
    except RuntimeError:
        return None
    return number if math.isfinite(number) else None


def point_key(params: Mapping[str, Any]) -> str:
    """Equal for equal parameters: NNI's manager keeps 6.0 as 6."""
    floats = {name: float(value) if type(value) is int else value for name, value in params.items()}
    return json.dumps(floats, sort_keys=True)
