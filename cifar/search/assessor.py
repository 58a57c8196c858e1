"""Early discard: a trial ends when it can no longer come among the best, by what earlier ones gained from there on."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from nni.assessor import Assessor, AssessResult

from cifar.search.tuner import FIRST_SEED, figure


class EarlyDiscard(Assessor):  # type: ignore[misc]  # NNI has no types
    """Ends a trial that would not come among the best `keep` of the finished ones, however much it gained.

    From its epoch on a trial may gain as much as the luckiest of `warm_up` or more that ran to their end; where early
    epochs say little of the last, that is so much that hardly any trial is ended. `keep` is a share, `slack` a
    difference of the metric: what seeds make is no reason to end a trial. A leader's repeat runs to its end, whatever
    its first epochs are like: it is there to say what seeds make.
    """

    def __init__(
        self,
        optimize_mode: Literal["minimize", "maximize"] = "maximize",
        keep: float = 0.34,
        slack: float = 0.02,
        start_step: int = 1,
        warm_up: int = 6,
    ) -> None:
        self._sign = -1.0 if optimize_mode == "minimize" else 1.0
        self._keep, self._slack, self._start_step, self._warm_up = keep, slack, start_step, warm_up
        self._curves: dict[str, list[float]] = {}  # figures of a trial's epochs
        self._whole = set[str]()  # trials that ran to their end

    def assess_trial(self, trial_job_id: str, trial_history: list[Any]) -> AssessResult:
        figures = [figure(metrics) for metrics in trial_history]
        curve = [self._sign * some for some in figures if some is not None]
        if len(curve) < len(figures):  # an exception would hang the experiment
            return AssessResult.Good
        self._curves[trial_job_id], epoch = curve, len(curve)
        longer = [some for trial, some in self._curves.items() if trial in self._whole and len(some) > epoch]
        if epoch < self._start_step or len(longer) < self._warm_up or _is_repeat(trial_history[-1]):
            return AssessResult.Good
        gain = max(some[-1] - some[epoch - 1] for some in longer)
        least = np.quantile([some[-1] for some in longer], 1 - self._keep) - self._slack
        return AssessResult.Good if curve[-1] + gain >= least else AssessResult.Bad

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """NNI calls it of trials that were ended early too, without success."""
        if success:
            self._whole.add(trial_job_id)


def _is_repeat(metrics: Any) -> bool:
    return isinstance(metrics, dict) and metrics.get("seed", 0) >= FIRST_SEED
