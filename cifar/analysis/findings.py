"""What a search shows beyond its best trial: what the tuner gained, what stopping saved, which ranges are too short."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cifar.analysis.statistics import gain_in_equal_seconds, gains, holm
from cifar.search import search_space
from cifar.search.algorithms import TPE_STARTUP_JOBS, is_guided, name_of
from cifar.training.intervals import Interval
from cifar.trials.store import Trial, best_first

Curves = Mapping[str, Sequence[Mapping[str, float]]]  # trial id -> metrics of each epoch

_End = Literal["lower", "upper"]
_FEWEST = 5  # of which resampling can say something
_EDGE = 0.1  # of a range, on its own scale


@dataclass(frozen=True)
class TunerGain:
    """What TPE's proposals were better by than this search's own random ones."""

    random: int  # trials
    proposed: int
    mean: Interval  # of a trial's accuracy
    best: Interval  # of the best accuracy among equally many trials
    best_in_equal_seconds: Interval  # of training


@dataclass(frozen=True)
class Stopping:
    """What early stopping saved; `could_have_won` are trials that it may have ended wrongly, None if unknown.

    The same would have been said of `false_alarms` of `replayed` trials that ran to their end and did not win.
    """

    stopped: int
    epochs_run: int
    epochs_planned: int
    could_have_won: list[Trial] | None
    false_alarms: int = 0
    replayed: int = 0


def tuner_gain(trials: Sequence[Trial], result_times: Mapping[str, int], tuner: Mapping[str, Any]) -> TunerGain | None:
    """None where the tuner is not TPE, or one that does not begin at random, or fewer than five trials of either kind
    have a result.

    TPE draws at random until it knows so many trials, and with a constant liar it takes running trials as known.
    """
    if name_of(tuner) != "TPE" or is_guided(tuner):
        return None
    arguments = (tuner.get("classArgs") or {}).get("tpe_args") or {}
    startup = arguments.get("n_startup_jobs", TPE_STARTUP_JOBS)
    lies = arguments.get("constant_liar_type", "best") is not None
    kinds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for trial in trials:
        # A diverged one counts with the accuracy of guessing, as the tuner heard it.
        if trial.accuracy is not None and not trial.by_hand and "seed" not in trial.params:  # that is a repeat
            is_random = _known(trial, trials, result_times, lies) < startup
            kinds[is_random].append((trial.accuracy, float((trial.result or {}).get("seconds", 0.0))))
    if min(map(len, kinds.values())) < _FEWEST:
        return None
    (drawn, drawn_seconds), (proposed, proposed_seconds) = (np.array(kinds[kind]).T for kind in (True, False))
    at_equal_seconds = gain_in_equal_seconds(drawn, proposed, (drawn_seconds, proposed_seconds))
    return TunerGain(len(drawn), len(proposed), *gains(drawn, proposed), at_equal_seconds)


def _known(trial: Trial, trials: Sequence[Trial], result_times: Mapping[str, int], lies: bool) -> int:
    """How many trials the tuner knew when it proposed this one: those with a result, and where it lies, the running."""
    known = 0
    for earlier in trials:
        if earlier.number < trial.number and not earlier.by_hand:
            heard = result_times.get(earlier.id, math.inf) <= trial.started
            ran = not earlier.ended or earlier.changed > trial.started
            known += heard or (lies and ran)
    return known


def stopping(trials: Sequence[Trial], curves: Curves) -> Stopping:
    """A stopped trial could have won if the largest rise that any finished one had from there would have sufficed."""
    stopped = [trial for trial in trials if trial.status == "stopped_early"]
    finished = [trial for trial in trials if trial.status == "ok" and trial.id in curves]
    best = max((trial.accuracy or 0.0 for trial in finished), default=None)
    run = sum(_epochs(trial) for trial in stopped)
    planned = sum(int((trial.result or {}).get("hparams", {}).get("epochs", _epochs(trial))) for trial in stopped)
    doubtful = [trial for trial in stopped if best is not None and _could_pass(best, trial, finished, curves)]
    if best is None:
        return Stopping(len(stopped), run, planned, None)
    return Stopping(len(stopped), run, planned, doubtful, *_replayed(best, stopped, finished, curves))


def _replayed(best: float, stopped: Sequence[Trial], finished: Sequence[Trial], curves: Curves) -> tuple[int, int]:
    """How often what is said of stopped trials would be wrong: said of finished ones as they were at such an epoch."""
    if not stopped:
        return 0, 0
    epoch = int(np.median([_epochs(trial) for trial in stopped]))
    losers = [t for t in finished if (t.accuracy or 0.0) < best and 0 < epoch < len(curves[t.id])]
    rise = _largest_rise(epoch, finished, curves)
    alarms = sum(curves[trial.id][epoch - 1]["default"] + rise > best for trial in losers)
    return alarms, len(losers)


def _epochs(trial: Trial) -> int:
    return int((trial.result or {}).get("epochs", 0))


def _could_pass(best: float, stopped: Trial, finished: Sequence[Trial], curves: Curves) -> bool:
    """With the largest rise that any finished trial had from there on."""
    return (stopped.accuracy or 0.0) + _largest_rise(_epochs(stopped), finished, curves) > best


def _largest_rise(epoch: int, finished: Sequence[Trial], curves: Curves) -> float:
    rises = [
        (trial.accuracy or 0.0) - curves[trial.id][epoch - 1]["default"]
        for trial in finished
        if 0 < epoch <= len(curves[trial.id])
    ]
    return max(rises, default=0.0)


def range_warnings(trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each parameter whose best values crowd at an end of its range: better ones may lie beyond.

    Half of the best fifth must lie at the end, and all of it nearer than the other trials do, by a rank test of all
    parameters and ends together.
    """
    ranked = best_first(list(trials))
    leading = max(_FEWEST, math.ceil(len(ranked) / 5))
    crowds = dict[str, _Crowd]()
    for name, sampler in space.items():
        known = [place for trial in ranked if (place := _place(trial, name, sampler)) is not None]
        if len(known) == len(ranked) >= leading + _FEWEST:
            crowds |= {
                f"{name} {end}": _Crowd(name, end, known[:leading], known[leading:]) for end in ("lower", "upper")
            }
    crowded = holm({key: crowd.chance for key, crowd in crowds.items()})
    return [crowds[key].sentence(space) for key in crowds if key in crowded and crowds[key].is_at_the_end]


def _place(trial: Trial, name: str, sampler: Mapping[str, Any]) -> float | None:
    return search_space.place(trial.params[name], sampler) if name in trial.params else None


@dataclass(frozen=True)
class _Crowd:
    """Where the best and the other trials lie in the range of a parameter, seen from one of its ends."""

    name: str
    end: _End
    best: list[float]
    others: list[float]

    @property
    def is_at_the_end(self) -> bool:
        middle = float(np.median(self.best))
        return middle <= _EDGE if self.end == "lower" else middle >= 1 - _EDGE

    @property
    def chance(self) -> float:
        """That the best would lie so near to the end if the parameter meant nothing."""
        from scipy.stats import mannwhitneyu

        nearer = "less" if self.end == "lower" else "greater"
        return float(mannwhitneyu(self.best, self.others, alternative=nearer).pvalue)

    def sentence(self, space: Mapping[str, Mapping[str, Any]]) -> str:
        bound = space[self.name]["_value"][self.end == "upper"]
        where = f"half of the best {len(self.best)} lie within a tenth of the {self.end} end of its range, {bound}"
        return f"{self.name}: {where}, nearer than the others do; try values beyond it"


def endings(trials: Sequence[Trial]) -> list[tuple[str, int, str]]:
    """How trials ended, how many did, and the reason of the last of them, the most frequent first."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.status].append(trial)
    counted = [(status, len(some), some[-1].reason) for status, some in groups.items()]
    return sorted(counted, key=lambda ending: -ending[1])
