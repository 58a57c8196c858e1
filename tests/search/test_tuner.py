from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from nni.algorithms.hpo.tpe_tuner import TpeTuner

from cifar.search.tuner import RepeatingTpe

SPACE = {
    "width": {"_type": "quniform", "_value": [4, 32, 2]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
}
ARGUMENTS: dict[str, Any] = {"optimize_mode": "maximize", "seed": 1, "tpe_args": {"n_startup_jobs": 5}}


def made(space: dict[str, Any] | None = None) -> RepeatingTpe:
    tuner = RepeatingTpe(**ARGUMENTS)
    tuner.update_search_space(space or SPACE)
    return tuner


def accuracy(params: dict[str, Any]) -> float:
    return float(0.5 + params["width"] / 100 + 0.01 * np.random.RandomState(params.get("seed", 0)).standard_normal())


def search(tuner: TpeTuner, count: int, first: int = 0, at_once: int = 2) -> list[dict[str, Any]]:
    """Trials two at a time, as NNI tells of them."""
    proposed, running = list[dict[str, Any]](), list[tuple[int, dict[str, Any]]]()
    for number in range(first, first + count):
        params = tuner.generate_parameters(number)
        proposed.append(params)
        running.append((number, params))
        if len(running) == at_once:
            ended, its = running.pop(0)
            tuner.receive_trial_result(ended, its, {"default": accuracy(its)})
            tuner.trial_end(ended, True)
    return proposed


def test_one_of_sixteen_proposals_repeats_a_leader_with_a_seed_of_its_own() -> None:
    proposed = search(made(), 110)
    repeats = [params for params in proposed if "seed" in params]
    assert 5 <= len(repeats) <= 7
    assert all("seed" not in params for params in proposed[:6])
    assert len({json.dumps(params) for params in repeats}) == len(repeats)
    firsts = [params for params in proposed if "seed" not in params]
    best = sorted((accuracy(params) for params in firsts), reverse=True)
    for repeat in repeats:
        original = {name: value for name, value in repeat.items() if name != "seed"}
        assert original in firsts
        assert accuracy(original) >= best[len(best) // 3]


def test_the_three_leaders_take_turns() -> None:
    tuner = made()
    known = [{"width": 4.0 + 2 * number, "lr": 0.01} for number in range(10)]
    accuracies = dict(zip([params["width"] for params in known], [0.9, 0.89, 0.88, *[0.1] * 7], strict=True))
    tuner.import_data([{"parameter": params, "value": accuracies[params["width"]]} for params in known])
    repeated = list[float]()
    for number in range(48):
        params = tuner.generate_parameters(number)
        is_repeat = "seed" in params
        repeated += [params["width"]] if is_repeat else []
        tuner.receive_trial_result(number, params, {"default": accuracies[params["width"]] if is_repeat else 0.1})
    assert repeated == [4.0, 6.0, 8.0]


def test_without_its_repeats_it_is_nnis_own() -> None:
    own = TpeTuner(**ARGUMENTS)
    own.update_search_space(SPACE)
    first = [params for params in search(made(), 14, at_once=1) if "seed" not in params]
    assert first == search(own, len(first), at_once=1)


def test_a_result_that_comes_after_the_end_of_its_trial_is_no_error() -> None:
    tuner = made()
    for number in range(40):
        params = tuner.generate_parameters(number)
        tuner.trial_end(number, True)
        tuner.receive_trial_result(number, params, {"default": accuracy(params)})


def test_a_trial_without_a_result_is_no_error() -> None:
    tuner = made()
    search(tuner, 20)
    for number in range(20, 40):
        tuner.generate_parameters(number)
        tuner.trial_end(number, False)


@pytest.mark.parametrize("value", [None, {"acc": 0.5}, "0.5x", float("nan"), {"default": float("inf")}])
def test_a_result_that_is_no_number_is_no_error(value: Any) -> None:
    """A trial command of one's own may report it, and after an exception NNI would wait for ever."""
    tuner = made()
    params = search(tuner, 20)
    known = len(tuner._points)
    tuner.receive_trial_result(20, tuner.generate_parameters(20), value)
    tuner.trial_end(20, True)
    tuner.import_data([{"parameter": params[0], "value": value}])
    assert len(tuner._points) == known
    search(tuner, 20, first=21)


def test_a_resumed_search_knows_its_leaders_and_their_repeats() -> None:
    before = search(made(), 60)
    resumed = made()
    resumed.import_data(json.dumps([{"parameter": some, "value": {"default": accuracy(some)}} for some in before]))
    own = TpeTuner(**ARGUMENTS)
    own.update_search_space(SPACE)
    own.import_data([{"parameter": some, "value": accuracy(some)} for some in before if "seed" not in some])
    assert {key: len(records) for key, records in resumed._history.items()} == {
        key: len(records) for key, records in own._history.items()
    }
    again = search(resumed, 34, first=100)
    seeds = [some["seed"] for some in [*before, *again] if "seed" in some]
    keys = [json.dumps(some) for some in [*before, *again] if "seed" in some]
    assert len(seeds) >= 4
    assert len(set(keys)) == len(keys)  # none is trained twice with one seed


@pytest.mark.parametrize("space", [SPACE | {"seed": {"_type": "randint", "_value": [0, 10]}}])
def test_where_the_seed_is_searched_nothing_is_repeated(space: dict[str, Any]) -> None:
    assert all(params["seed"] < 10 for params in search(made(space), 40))


def test_a_point_that_is_proposed_again_is_a_repeat_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNI's TPE avoids it; a subclass, or another version, need not."""
    tuner = made()
    point = {"width": 8.0, "lr": 0.01}
    monkeypatch.setattr(TpeTuner, "generate_parameters", lambda *_, **__: dict(point))
    monkeypatch.setattr(TpeTuner, "receive_trial_result", lambda *_, **__: None)
    tuner._params = tuner._running_params = dict.fromkeys(range(4))
    proposed = []
    for number in range(4):
        proposed.append(tuner.generate_parameters(number))
        tuner.receive_trial_result(number, proposed[-1], {"default": 0.5})
    assert proposed[0] == point
    assert all({name: some[name] for name in point} == point for some in proposed)
    assert len({some.get("seed") for some in proposed}) == 4


def test_a_result_whose_parameters_nni_forgot_is_that_of_what_was_proposed() -> None:
    """It asked for two more trials where a finite space had one left, and kept '' for it."""
    tuner = made()
    params = tuner.generate_parameters(0)
    tuner.receive_trial_result(0, "", {"default": 0.6})
    assert [(point.params, point.results) for point in tuner._ranked()] == [(params, [0.6])]
