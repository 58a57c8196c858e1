from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nni import NoMoreTrialError
from nni.assessor import AssessResult

from cifar.search.assessor import EarlyDiscard
from cifar.search.coordinates import Coordinates
from cifar.search.guided_tpe import GuidedTpe
from cifar.search.search_space import fits

SPACE: dict[str, dict[str, Any]] = {
    "width": {"_type": "qloguniform", "_value": [4, 32, 2]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.3]},
    "momentum": {"_type": "uniform", "_value": [0.5, 0.98]},
    "batch_size": {"_type": "qloguniform", "_value": [4, 128, 4]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "optimizer": {"_type": "choice", "_value": ["sgd", "adam"]},
    "translate": {"_type": "randint", "_value": [0, 5]},
}
DEFAULTS = {"width": 6.0, "lr": 0.001, "momentum": 0.9, "batch_size": 4.0}


def step(params: dict[str, Any]) -> float:
    return float(params["lr"] / (1 - params["momentum"]) / params["batch_size"])


def accuracy(params: dict[str, Any]) -> float:
    """Wide networks are best, with steps of 0.01 per image, whatever momentum and batch size make them."""
    return float(0.4 + params["width"] / 100 - 0.05 * np.log(step(params) / 0.01) ** 2)


def searched(tuner: GuidedTpe, count: int, first: int = 0) -> list[dict[str, Any]]:
    proposed = []
    for number in range(first, first + count):
        proposed.append(tuner.generate_parameters(number))
        tuner.receive_trial_result(number, proposed[-1], {"default": accuracy(proposed[-1])})
        tuner.trial_end(number, True)
    return proposed


def made(space: dict[str, Any], seed: int = 0, **arguments: Any) -> GuidedTpe:
    tuner = GuidedTpe("maximize", seed, {"n_startup_jobs": 6, "gamma": 0.5}, **arguments)
    tuner.update_search_space(space)
    return tuner


def test_it_begins_with_what_it_is_told_and_stays_inside_the_space() -> None:
    known = DEFAULTS | {"width": 20.0}
    proposed = searched(made(SPACE, start_from=[DEFAULTS, known]), 40)
    assert proposed[:2] == [DEFAULTS, known]
    assert all(fits(params, SPACE) for params in proposed)


def test_what_an_earlier_run_began_and_goes_on_with_is_not_proposed_again() -> None:
    known, begun = DEFAULTS | {"width": 20.0}, {"width": 6, "lr": 0.001, "momentum": 0.9, "batch_size": 4}
    proposed = searched(made(SPACE, start_from=[DEFAULTS, known], begun=[begun]), 2)
    assert proposed[0] == known
    assert DEFAULTS not in proposed


def test_choices_and_whole_numbers_are_searched_too() -> None:
    proposed = searched(made(SPACE | OTHERS), 40)
    assert all(fits(params, SPACE | OTHERS) for params in proposed)
    assert {params["optimizer"] for params in proposed} == {"sgd", "adam"}


@pytest.mark.parametrize("start_from", [[DEFAULTS], [DEFAULTS | {"lr": 0.3}], []])
def test_it_finds_what_fits_together_from_good_and_from_bad_defaults(start_from: list[dict[str, Any]]) -> None:
    best = [max(map(accuracy, searched(made(SPACE, seed, start_from=start_from), 40))) for seed in range(5)]
    random = [
        max(accuracy(Coordinates(SPACE, np.random.default_rng(100 * seed + n)).anywhere()) for n in range(40))
        for seed in range(5)
    ]
    assert np.mean(best) > 0.68  # of 0.72
    assert np.mean(best) > np.mean(random)


def test_a_resumed_search_trains_no_start_again_with_the_same_seed() -> None:
    """NNI's manager keeps 6.0 as 6."""
    begun = searched(made(SPACE, start_from=[DEFAULTS, DEFAULTS | {"width": 12.0}]), 2)
    resumed = made(SPACE, start_from=[DEFAULTS, DEFAULTS | {"width": 12.0}])
    kept = [{name: int(some) if some == int(some) else some for name, some in params.items()} for params in begun]
    resumed.import_data(json.dumps([{"parameter": some, "value": {"default": 0.5}} for some in kept]))
    later = searched(resumed, 20, first=100)
    assert all(params not in begun for params in later)


def test_a_resumed_search_goes_on_from_what_is_known() -> None:
    before = searched(made(SPACE, start_from=[DEFAULTS]), 20)
    resumed = made(SPACE, start_from=[DEFAULTS])
    resumed.import_data(json.dumps([{"parameter": some, "value": {"default": accuracy(some)}} for some in before]))
    later = searched(resumed, 12, first=100)
    assert DEFAULTS not in [{name: some[name] for name in SPACE} for some in later[:3]]
    assert np.mean([*map(accuracy, later)]) > np.mean([*map(accuracy, before[:6])])


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 2.0))
def test_a_neighbour_with_another_batch_size_has_a_learning_rate_that_fits_it(seed: int, width: float) -> None:
    coordinates = Coordinates(SPACE | OTHERS, np.random.default_rng(seed))
    some = coordinates.anywhere()
    near = coordinates.near(some, width)
    assert fits(near, SPACE | OTHERS)
    if SPACE["lr"]["_value"][0] < near["lr"] < SPACE["lr"]["_value"][1] and width < 0.1:
        assert abs(np.log(step(near) / step(some))) < 6 * width * np.log(300)


def test_what_lies_near_counts_more_than_what_lies_far() -> None:
    coordinates = Coordinates(SPACE | OTHERS, np.random.default_rng(0))
    some = coordinates.anywhere()
    far = {**some, "width": 4.0 if some["width"] > 12 else 32.0}
    other = {**some, "optimizer": "adam" if some["optimizer"] == "sgd" else "sgd"}
    ((here, there, elsewhere),) = coordinates.likeness([some], [some, far, other], 0.1)
    assert here > elsewhere > there


def after(assessor: EarlyDiscard, *curves: list[float]) -> EarlyDiscard:
    """Trials with these figures have run to their end."""
    for number, curve in enumerate(curves):
        for epoch in range(1, len(curve) + 1):
            assert (
                assessor.assess_trial(str(number), [{"default": some} for some in curve[:epoch]]) is AssessResult.Good
            )
        assessor.trial_end(str(number), True)
    return assessor


def test_a_trial_ends_that_would_not_come_among_the_best() -> None:
    """Each gains 0.1 to 0.2 from its first epoch on; of three the best third ends at 0.6 and more."""
    assessor = after(EarlyDiscard(warm_up=3), [0.3, 0.4], [0.4, 0.55], [0.4, 0.6])
    assert assessor.assess_trial("hopeful", [{"default": 0.37}]) is AssessResult.Good
    assert assessor.assess_trial("hopeless", [{"default": 0.3}]) is AssessResult.Bad
    assessor.trial_end("hopeless", False)
    assert assessor.assess_trial("at its end", [{"default": 0.3}, {"default": 0.1}]) is AssessResult.Good


def test_where_early_epochs_say_little_no_trial_ends() -> None:
    assessor = after(EarlyDiscard(warm_up=3), [0.5, 0.3, 0.6], [0.2, 0.2, 0.65], [0.3, 0.4, 0.5])
    assert assessor.assess_trial("late", [{"default": 0.25}]) is AssessResult.Good
    assert assessor.assess_trial("late", [{"default": 0.25}, {"default": 0.21}]) is AssessResult.Good


@pytest.mark.parametrize("figure", [None, {"acc": 0.5}, "0.5x", float("nan")])
def test_a_figure_that_is_no_number_ends_no_trial(figure: Any) -> None:
    assessor = after(EarlyDiscard(warm_up=3), [0.3, 0.4], [0.4, 0.55], [0.4, 0.6])
    assert assessor.assess_trial("odd", [figure]) is AssessResult.Good
    assert assessor.assess_trial("odd", [figure, {"default": 0.1}]) is AssessResult.Good
    assert assessor.assess_trial("hopeless", [{"default": 0.3}]) is AssessResult.Bad


def test_only_trials_that_ran_to_their_end_tell_what_may_be_gained() -> None:
    assessor = after(EarlyDiscard(warm_up=3), [0.5, 0.6], [0.5, 0.6])
    assessor.assess_trial("running", [{"default": 0.5}, {"default": 0.6}])
    assert assessor.assess_trial("low", [{"default": 0.1}]) is AssessResult.Good
    assessor.trial_end("running", False)
    assert assessor.assess_trial("low", [{"default": 0.1}]) is AssessResult.Good
    assessor.trial_end("running", True)
    assert assessor.assess_trial("low", [{"default": 0.1}]) is AssessResult.Bad
    patient = after(EarlyDiscard(warm_up=2, start_step=2), [0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert patient.assess_trial("low", [{"default": 0.1}]) is AssessResult.Good
    assert patient.assess_trial("low", [{"default": 0.1}, {"default": 0.1}]) is AssessResult.Bad


def test_of_a_finite_space_every_point_is_proposed_and_none_twice() -> None:
    tuner = made(
        {"width": {"_type": "choice", "_value": [4, 6, 8]}, "translate": {"_type": "randint", "_value": [0, 2]}}
    )
    proposed = []
    with pytest.raises(NoMoreTrialError):
        for number in range(50):
            proposed.append(tuner.generate_parameters(number))
            tuner.receive_trial_result(number, proposed[-1], {"default": 0.5})
    firsts = [json.dumps(some) for some in proposed if "seed" not in some]
    assert len(firsts) == len(set(firsts)) == 6


def test_whatever_goes_wrong_in_it_nnis_own_proposes(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a tuner leaves NNI waiting for ever."""
    tuner = made(SPACE, defaults={"width": "wide"})
    searched(tuner, 20)
    assert "NNI's own TPE proposes instead" in caplog.text


KINDS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"_type": st.just("choice"), "_value": st.lists(st.integers(0, 9), min_size=1, unique=True)}),
    st.builds(
        lambda low, more: {"_type": "randint", "_value": [low, low + more]}, st.integers(0, 9), st.integers(1, 9)
    ),
    st.builds(
        lambda kind, low, more: {"_type": kind, "_value": [low, low + more]},
        st.sampled_from(["uniform", "loguniform"]),
        st.floats(0.001, 9),
        st.floats(0.01, 9),
    ),
    st.builds(
        lambda kind, low, steps: {"_type": kind, "_value": [2 * low, 2 * low + 2 * steps, 2]},
        st.sampled_from(["quniform", "qloguniform"]),
        st.integers(1, 9),
        st.integers(1, 9),
    ),
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from([*SPACE, "translate"]), KINDS, min_size=1), st.integers(0, 2**31))
def test_in_any_space_it_proposes_points_of_the_space(space: dict[str, Any], seed: int) -> None:
    tuner = made(space, seed, defaults=DEFAULTS)
    for number in range(20):
        try:
            params = tuner.generate_parameters(number)
        except NoMoreTrialError:
            return
        assert fits(params, space)
        if number % 5:
            tuner.receive_trial_result(number, params, {"default": 0.1 * (number % 7)})
        tuner.trial_end(number, number % 5 > 0)


def test_a_repeat_is_never_ended() -> None:
    assessor = after(EarlyDiscard(warm_up=2), [0.5, 0.6], [0.6, 0.7])
    assert assessor.assess_trial("low", [{"default": 0.1, "seed": 7}]) is AssessResult.Bad
    assert assessor.assess_trial("repeat", [{"default": 0.1, "seed": 5_002}]) is AssessResult.Good


def test_where_less_is_better_the_higher_trials_end() -> None:
    assessor = after(EarlyDiscard("minimize", keep=0.5, slack=0.0, warm_up=2), [2.0, 1.0], [2.0, 1.2])
    assert assessor.assess_trial("low", [{"default": 2.0}]) is AssessResult.Good
    assert assessor.assess_trial("high", [{"default": 3.0}]) is AssessResult.Bad
