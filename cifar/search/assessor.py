"""Early discard: after each epoch the worse trials end, and never one that nearly ties."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

import numpy as np
from nni.assessor import Assessor, AssessResult
from nni.utils import extract_scalar_reward

from cifar.search.tuner import FIRST_SEED


class EarlyDiscard(Assessor):  # type: ignore[misc]  # NNI has no types
    """Ends a trial that is not among the best `keep` of all that came to its epoch, by more than `slack`.

    `keep` is a share, `slack` a difference of the metric: what seeds make is no reason to end a trial. A leader's
    repeat runs to its end, whatever its first epochs are like: it is there to say what seeds make.
    """

    def __init__(
        self,
        optimize_mode: Literal["minimize", "maximize"] = "maximize",
        keep: float = 0.34,
        slack: float = 0.02,
        start_step: int = 1,
        warm_up: int = 4,
    ) -> None:
        self._sign = -1.0 if optimize_mode == "minimize" else 1.0
        self._keep, self._slack, self._start_step, self._warm_up = keep, slack, start_step, warm_up
        self._seen = defaultdict[int, dict[str, float]](dict)  # epoch -> trial -> figure

    def assess_trial(self, trial_job_id: str, trial_history: list[Any]) -> AssessResult:
        epoch, figure = len(trial_history), self._sign * float(extract_scalar_reward(trial_history[-1]))
        seen = self._seen[epoch]
        seen[trial_job_id] = figure
        if epoch < self._start_step or len(seen) < self._warm_up or _is_repeat(trial_history[-1]):
            return AssessResult.Good
        least = float(np.quantile([*seen.values()], 1 - self._keep)) - self._slack
        return AssessResult.Good if figure >= least else AssessResult.Bad

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """What an ended trial had stays what others are measured by."""


def _is_repeat(metrics: Any) -> bool:
    return isinstance(metrics, dict) and metrics.get("seed", 0) >= FIRST_SEED
