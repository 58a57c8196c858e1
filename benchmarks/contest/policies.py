"""The contenders: the own classes of NNI, Optuna, Ray and Syne Tune, and the simplest that can be thought of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from benchmarks.contest.replay import Policy
from benchmarks.contest.surrogate import Params
from benchmarks.table.plan import Plan
from cifar.search import start
from cifar.search.search_space import Space, ends, is_logarithmic, value_at
from cifar.training import defaults

_TRAIN_IMAGES = 45_000  # of CIFAR-10, without those to validate on
_FIRST_LOOK = 24  # trials of one epoch, of which the best goes on


class Random:
    """Random search; each trial runs to its end."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._chance = space, np.random.default_rng(seed)

    def propose(self, number: int) -> Params:
        return {name: value_at(self._chance.random(), sampler) for name, sampler in self._space.items()}

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        return True

    def hear(self, number: int, accuracy: float) -> None:
        pass


class OneEpoch(Random):
    """One epoch for all: of each two dozen random ones the best is trained again, to its end."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space, seed)
        self._seen: list[tuple[float, int]] = []
        self._params: dict[int, Params] = {}
        self._chosen = set[int]()

    def propose(self, number: int) -> Params:
        if len(self._seen) >= _FIRST_LOOK:
            self._chosen.add(number)
            _, best = max(self._seen)
            self._seen = []
            return self._params[best]
        self._params[number] = super().propose(number)
        return self._params[number]

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        return number in self._chosen

    def hear(self, number: int, accuracy: float) -> None:
        if number not in self._chosen:
            self._seen.append((accuracy, number))


class Nni:
    """A tuner and an assessor of NNI's kind, as NNI would call them."""

    def __init__(self, space: Space, tuner: Any, assessor: Any = None) -> None:
        self._tuner, self._assessor = tuner, assessor
        self._params: dict[int, Params] = {}
        self._curves: dict[int, list[dict[str, float]]] = {}
        self._stopped = set[int]()
        tuner.update_search_space(space)

    def propose(self, number: int) -> Params:
        self._params[number] = self._tuner.generate_parameters(number)
        return self._params[number]

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        if self._assessor is None:
            return True
        if self._assess(number, accuracy):
            return True
        self._stopped.add(number)
        return False

    def _assess(self, number: int, accuracy: float) -> bool:
        curve = self._curves.setdefault(number, [])
        curve.append({"default": accuracy, "seed": self._params[number].get("seed", 0)})
        return bool(self._assessor.assess_trial(str(number), curve).name == "Good")

    def hear(self, number: int, accuracy: float) -> None:
        self._tuner.receive_trial_result(number, self._params[number], {"default": accuracy})
        self._tuner.trial_end(number, True)
        if self._assessor is not None:
            if number not in self._stopped:
                self._assess(number, accuracy)  # whose answer to a last epoch NNI ignores
            self._assessor.trial_end(str(number), number not in self._stopped)


class Optuna:
    """An Optuna study, asked and told."""

    def __init__(self, space: Space, sampler: Any, pruner: Any) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._space = space
        self._trials: dict[int, Any] = {}
        self._pruned = set[int]()

    def propose(self, number: int) -> Params:
        trial = self._trials[number] = self._study.ask()
        return {name: _suggested(trial, name, sampler) for name, sampler in self._space.items()}

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        trial = self._trials[number]
        trial.report(accuracy, epoch)
        if trial.should_prune():
            self._pruned.add(number)
            return False
        return True

    def hear(self, number: int, accuracy: float) -> None:
        from optuna.trial import TrialState

        state = TrialState.PRUNED if number in self._pruned else TrialState.COMPLETE
        self._study.tell(self._trials[number], None if number in self._pruned else accuracy, state)


def _suggested(trial: Any, name: str, sampler: Any) -> float:
    """Optuna has no steps on a logarithmic scale."""
    return _on_steps(trial.suggest_float(name, *_range(sampler), log=is_logarithmic(sampler)), sampler)


def _on_steps(value: float, sampler: Any) -> float:
    """The nearest value that the sampler's third number allows, where it has one."""
    low, high = _range(sampler)
    step = sampler["_value"][2] if len(sampler["_value"]) == 3 else None
    return float(value if step is None else min(max(round(value / step) * step, low), high))


def _range(sampler: Any) -> tuple[float, float]:
    return ends(sampler) or (0.0, 1.0)


class Asha(Random):
    """Ray Tune's ASHA over random points, as PyTorch's tutorial has it: grace of one epoch, a factor of two."""

    def __init__(self, space: Space, seed: int, epochs: int) -> None:
        from ray.tune.schedulers.async_hyperband import _Bracket

        super().__init__(space, seed)
        self._bracket = _Bracket(1, epochs, 2, 0)

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        from ray.tune.schedulers import TrialScheduler

        trial = type("Trial", (), {"trial_id": str(number)})
        return bool(self._bracket.on_result(trial, epoch, accuracy) == TrialScheduler.CONTINUE)


class SyneTune:
    """Syne Tune's ASHA that proposes by conformal quantile regression, as its authors recommend."""

    def __init__(self, space: Space, seed: int, epochs: int) -> None:
        from syne_tune.optimizer.baselines import ASHACQR

        domains = {name: _domain(sampler) for name, sampler in space.items()}
        self._scheduler = ASHACQR(domains, "accuracy", "epoch", epochs, do_minimize=False, random_seed=seed)
        self._space, self._epochs = space, epochs
        self._trials: dict[int, Any] = {}
        self._stopped = set[int]()

    def propose(self, number: int) -> Params:
        from syne_tune.backend.trial_status import Trial

        trial = self._trials[number] = Trial(number, self._scheduler.suggest().config, datetime.now())
        self._scheduler.on_trial_add(trial)
        return {name: _on_steps(trial.config[name], sampler) for name, sampler in self._space.items()}

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        decision = self._scheduler.on_trial_result(self._trials[number], {"epoch": epoch, "accuracy": accuracy})
        if decision != "CONTINUE":
            self._stopped.add(number)
        return number not in self._stopped

    def hear(self, number: int, accuracy: float) -> None:
        if number in self._stopped:
            self._scheduler.on_trial_remove(self._trials[number])
        else:
            last = {"epoch": self._epochs, "accuracy": accuracy}
            self._scheduler.on_trial_complete(self._trials[number], last)


def _domain(sampler: Any) -> Any:
    """Syne Tune's; it has no steps."""
    from syne_tune import config_space

    scale = config_space.loguniform if is_logarithmic(sampler) else config_space.uniform
    return scale(*_range(sampler))


Maker = Callable[[Plan, int], Policy]  # of a table's plan, for a seed


def nni_as_shipped(plan: Plan, seed: int) -> Policy:
    """NNI's TPE and Medianstop, with the defaults that NNI gives them."""
    from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    return Nni(plan.space, TpeTuner("maximize", seed), MedianstopAssessor("maximize", 0))


def optuna_tpe(plan: Plan, seed: int) -> Policy:
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler

    return Optuna(plan.space, TPESampler(seed=seed), MedianPruner())


def optuna_gp(plan: Plan, seed: int) -> Policy:
    from optuna.pruners import MedianPruner
    from optuna.samplers import GPSampler

    return Optuna(plan.space, GPSampler(seed=seed), MedianPruner())


def ours(plan: Plan, seed: int) -> Policy:
    """This project's tuner and assessor, which begin with the recipe's defaults."""
    return _guided(plan, seed, defaults_of(plan))


def displaced(plan: Plan, seed: int) -> Policy:
    """Ours where the defaults' learning rate is ten times too high, or as near to that as the space allows."""
    known = defaults_of(plan)
    return _guided(plan, seed, known | {"lr": min(10 * known["lr"], plan.space["lr"]["_value"][1])})


def adversarial(plan: Plan, seed: int) -> Policy:
    """Ours where the defaults have the largest steps of the space, which diverge."""
    names = [name for name in ("lr", "momentum", "batch_size") if name in plan.space]
    ends_of = {name: _range(plan.space[name]) for name in names}
    worst = {name: low if name == "batch_size" else high for name, (low, high) in ends_of.items()}
    return _guided(plan, seed, defaults_of(plan) | worst)


def from_prior(plan: Plan, seed: int) -> Policy:
    """Ours without learning: defaults, points near them, and early discard."""
    return _guided(plan, seed, defaults_of(plan), {"n_startup_jobs": sys.maxsize})


def _guided(plan: Plan, seed: int, known: dict[str, Any], tpe_args: dict[str, Any] | None = None) -> Policy:
    from cifar.search.assessor import EarlyDiscard
    from cifar.search.guided_tpe import GuidedTpe

    return Nni(plan.space, GuidedTpe("maximize", seed, tpe_args, known), EarlyDiscard())


def defaults_of(plan: Plan) -> dict[str, Any]:
    fixed = {name: value for name, value in vars(plan.base).items() if name not in plan.space}
    return start.nearest(defaults.for_budget(fixed, plan.train_images or _TRAIN_IMAGES), plan.space)


GP, CQR = "Optuna: GPSampler and a pruner", "Syne Tune: ASHA and CQR"
SLOW = (GP, CQR)  # a search of theirs takes as long as a training
CONTENDERS: dict[str, Maker] = {
    "this project": ours,
    "this project, the defaults' rate ten times too high": displaced,
    "this project, defaults that diverge": adversarial,
    "random from this project's prior": from_prior,
    "random search": lambda plan, seed: Random(plan.space, seed),
    "one epoch for all": lambda plan, seed: OneEpoch(plan.space, seed),
    "NNI: TPE and Medianstop": nni_as_shipped,
    "Optuna: TPE and a pruner": optuna_tpe,
    GP: optuna_gp,
    "Ray: ASHA": lambda plan, seed: Asha(plan.space, seed, plan.base.epochs),
    CQR: lambda plan, seed: SyneTune(plan.space, seed, plan.base.epochs),
}
