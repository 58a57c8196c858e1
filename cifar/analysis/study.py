"""An experiment as an Optuna study, so that Optuna's analyses apply to it. Nothing is searched here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from cifar.search import search_space
from cifar.training.intervals import Interval
from cifar.trials.store import Trial, best_first

_PROBE = "a random number"
_TREES = 200
_FORESTS = 40  # each grown on trials drawn anew, which shows how much the importances depend on the few there are


def rebuild(trials: Sequence[Trial], space: Mapping[str, Any]) -> optuna.Study:
    """The trials under their NNI numbers, their accuracy the value.

    Those without an accuracy to compare count as failed, which Optuna leaves out.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    ranked = best_first(list(trials))
    distributions = {name: _distribution(name, sampler, ranked) for name, sampler in space.items()}
    for trial in sorted(ranked, key=lambda trial: trial.number):
        while len(study.trials) < trial.number:
            study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
        params = {name: trial.params[name] for name in distributions}
        frozen = optuna.trial.create_trial(params=params, distributions=distributions, value=trial.accuracy or 0.0)
        study.add_trial(frozen)
    return study


@dataclass(frozen=True)
class Importances:
    """How much of the accuracies' variance each hyperparameter explains, and how much that means.

    `of_chance` is the most that a random number had in any of as many forests; `explained` is R² of a forest on trials
    that it was not grown on: near or below 0 they explain nothing.
    """

    shares: dict[str, Interval]
    of_chance: float
    explained: float


def importances(study: optuna.Study) -> Importances:
    """By fANOVA, over resampled trials, beside a probe: numbers drawn at random, as a further hyperparameter."""
    generator, shares = np.random.default_rng(0), list[dict[str, float]]()
    complete = study.get_trials(states=[TrialState.COMPLETE])
    for seed in range(_FORESTS):
        resampled = optuna.create_study(direction="maximize")
        # One number per trial: a trial that is drawn twice must not be known by all its parameters but the probe.
        probed = [_probed(trial, generator) for trial in complete]
        resampled.add_trials([probed[number] for number in generator.choice(len(probed), len(probed))])
        if len({trial.value for trial in resampled.trials}) > 1:
            evaluator = FanovaImportanceEvaluator(n_trees=32, seed=seed)
            shares.append(get_param_importances(resampled, evaluator=evaluator))
    names = [name for name in (shares[0] if shares else {}) if name != _PROBE]
    columns = {name: np.asarray([some.get(name, 0.0) for some in shares]) for name in names}
    intervals = {
        name: Interval(float(v.mean()), *np.quantile(v, [0.025, 0.975]).tolist()) for name, v in columns.items()
    }
    of_one = [some.get(_PROBE, 0.0) for some in shares]
    of_chance = max(of_one, default=0.0)
    ranked = dict(sorted(intervals.items(), key=lambda item: -item[1].value))
    return Importances(ranked, of_chance, _explained(complete) if shares else 0.0)


def _probed(trial: FrozenTrial, generator: np.random.Generator) -> FrozenTrial:
    return optuna.trial.create_trial(
        params={**trial.params, _PROBE: float(generator.random())},
        distributions={**trial.distributions, _PROBE: FloatDistribution(0.0, 1.0)},
        value=trial.value,
    )


def _explained(trials: Sequence[FrozenTrial]) -> float:
    """R² out of the bag: each trial predicted by the trees that were not grown on it."""
    from sklearn.ensemble import RandomForestRegressor

    columns = [[_as_number(trial, name) for name in sorted(trial.params)] for trial in trials]
    forest = RandomForestRegressor(_TREES, oob_score=True, random_state=0)
    return float(forest.fit(columns, [trial.value for trial in trials]).oob_score_)


def _as_number(trial: FrozenTrial, name: str) -> float:
    distribution = trial.distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(trial.params[name]))
    return float(trial.params[name])


def _distribution(name: str, sampler: Mapping[str, Any], trials: Sequence[Trial]) -> BaseDistribution:
    """The range on its scale; quantised samplers may step over its ends, and some have none: then values count."""
    values = [trial.params[name] for trial in trials]
    if sampler["_type"] == "choice":
        return CategoricalDistribution(sampler["_value"])
    bounds = search_space.ends(sampler) or values
    low, high = min(*bounds, *values), max(*bounds, *values)
    return FloatDistribution(low, high, log=search_space.is_logarithmic(sampler))
