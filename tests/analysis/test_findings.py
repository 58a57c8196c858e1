from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_experiments as fake
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.analysis import findings
from cifar.analysis.statistics import expected_best, gain_in_equal_seconds, holm
from cifar.trials import store

TPE = {"name": "TPE", "classArgs": {"tpe_args": {"n_startup_jobs": 5}}}


def made(path: Path, trials: list[dict[str, Any]]) -> tuple[list[store.Trial], dict[str, Any]]:
    experiment = fake.make(path / "made", trials)
    return store.read_trials(experiment), store.read_curves(experiment)


def test_tpes_trials_are_compared_with_its_own_random_ones(tmp_path: Path) -> None:
    experiment = fake.make(
        tmp_path / "made", [{"accuracy": 0.4 + 0.01 * n} for n in range(5)] + [{"accuracy": 0.6}] * 5
    )
    gain = findings.tuner_gain(store.read_trials(experiment), store.read_result_times(experiment), TPE)
    assert gain is not None
    assert (gain.random, gain.proposed) == (5, 5)
    assert gain.mean.value == pytest.approx(0.18)
    assert 0.15 < gain.mean.low < 0.18 < gain.mean.high < 0.21
    assert gain.best.value == pytest.approx(0.16)  # 0.6 against 0.44
    assert 0.15 < gain.best.low <= gain.best.value <= gain.best.high < 0.18


def test_equal_phases_show_no_gain(tmp_path: Path) -> None:
    accuracies = [0.3, 0.5, 0.4, 0.6, 0.45] * 2
    experiment = fake.make(tmp_path / "made", [{"accuracy": accuracy} for accuracy in accuracies])
    gain = findings.tuner_gain(store.read_trials(experiment), store.read_result_times(experiment), TPE)
    assert gain is not None
    assert gain.mean.low < 0 < gain.mean.high


@pytest.mark.parametrize("tuner", [{"name": "Random"}, {}, {"name": "TPE"}])  # TPE's own random phase takes 20
def test_without_both_phases_there_is_no_gain_to_tell(tmp_path: Path, tuner: dict[str, Any]) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.5}] * 10)
    assert findings.tuner_gain(store.read_trials(experiment), store.read_result_times(experiment), tuner) is None


def test_a_stopped_trial_could_have_won_if_another_rose_as_much_from_there(tmp_path: Path) -> None:
    # The finished trial rose by 0.3 after its first epoch: enough for 0.35 to pass 0.6, not enough for 0.25.
    trials, curves = made(
        tmp_path,
        [
            {"accuracy": 0.6, "epochs": 2},
            {"accuracy": 0.35, "epochs": 1, "status": "stopped_early"},
            {"accuracy": 0.25, "epochs": 1, "status": "stopped_early"},
        ],
    )
    found = findings.stopping(trials, curves)
    assert (found.stopped, found.epochs_run, found.epochs_planned) == (2, 2, 4)
    assert [trial.number for trial in found.could_have_won or []] == [1]


def test_whether_stopping_was_wrong_cannot_be_told_before_a_trial_has_finished(tmp_path: Path) -> None:
    trials, curves = made(tmp_path, [{"accuracy": 0.3, "epochs": 1, "status": "stopped_early"}] * 3)
    assert findings.stopping(trials, curves).could_have_won is None


@pytest.mark.parametrize(("width", "end"), [(32.0, "upper end of its range, 32"), (4.0, "lower end of its range, 4")])
def test_best_values_at_an_end_of_the_range_are_a_warning(tmp_path: Path, width: float, end: str) -> None:
    best = [{"accuracy": 0.6 + 0.01 * n, "params": {"width": width, "lr": 0.005 + 0.0001 * n}} for n in range(5)]
    others = [{"accuracy": 0.3, "params": {"width": 8.0 + 4 * (n % 4), "lr": 0.006 + 0.0001 * n}} for n in range(20)]
    trials, _ = made(tmp_path, others + best)
    (warning,) = findings.range_warnings(trials, fake.SPACE)
    assert warning.startswith("width: half of the best 5 lie within a tenth of the ")
    assert end in warning


def test_where_all_trials_crowd_at_an_end_it_says_nothing_of_the_best(tmp_path: Path) -> None:
    trials, _ = made(tmp_path, [{"accuracy": 0.5, "params": {"width": 32.0, "lr": 0.005}}] * 25)
    assert findings.range_warnings(trials, fake.SPACE) == []


def test_scales_are_those_of_the_search_space(tmp_path: Path) -> None:
    """0.06 is half of the range of lr, but on its logarithmic scale it lies near the upper end."""
    best = [{"accuracy": 0.5, "params": {"width": 12.0, "lr": 0.06 + 0.005 * n}} for n in range(5)]
    others = [{"accuracy": 0.3, "params": {"width": 12.0, "lr": 0.002 + 0.0001 * n}} for n in range(20)]
    trials, _ = made(tmp_path, best + others)
    (warning,) = findings.range_warnings(trials, fake.SPACE)
    assert warning.startswith("lr: ")


@pytest.mark.parametrize(("count", "parameters"), [(60, 4), (20, 4), (30, 6)])
def test_pure_noise_seldom_warns(count: int, parameters: int) -> None:
    space = {f"p{n}": {"_type": "uniform", "_value": [0, 1]} for n in range(parameters)}
    generator, warned = np.random.default_rng(0), 0
    for _ in range(400):
        trials = [
            store.Trial(str(n), n, "SUCCEEDED", dict(zip(space, generator.random(parameters), strict=True)), None)
            for n in range(count)
        ]
        warned += bool(findings.range_warnings(scored(trials, generator), space))
    assert warned / 400 <= 0.05


def scored(trials: list[store.Trial], generator: np.random.Generator) -> list[store.Trial]:
    results = [{"status": "ok", "metrics": {"default": value}} for value in generator.random(len(trials))]
    return [replace(trial, result=result) for trial, result in zip(trials, results, strict=True)]


@pytest.mark.parametrize(("drawn", "proposed"), [(10, 10), (10, 50)])
def test_the_gain_over_random_search_has_no_bias(drawn: int, proposed: int) -> None:
    """Both of the same kind: the truth is no gain."""
    generator, found = np.random.default_rng(0), list[float]()
    for _ in range(400):
        values = generator.normal(0.5, 0.1, drawn), generator.normal(0.5, 0.1, proposed)
        found.append(float(expected_best(values[1], 10) - expected_best(values[0], 10)))
    assert abs(float(np.mean(found))) < 0.01  # three standard errors


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
def test_the_expected_best_is_the_mean_over_all_choices(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    best = np.mean([max(chosen) for chosen in itertools.combinations(values, count)])
    assert float(expected_best(np.array(values), count)) == pytest.approx(best)


def test_holms_correction() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a"}
    assert holm({"a": 0.01, "b": 0.02, "c": 0.03}) == {"a", "b", "c"}
    assert holm({}) == set()


def test_endings_count_and_tell_the_last_reason(tmp_path: Path) -> None:
    trials, _ = made(tmp_path, [{"accuracy": 0.5}, {"accuracy": 0.1, "status": "diverged"}, {"accuracy": 0.6}])
    assert findings.endings(trials) == [("ok", 2, "ok after 2 epochs"), ("diverged", 1, "diverged after 2 epochs")]


def at_once(path: Path, concurrency: int, count: int) -> Path:
    """As NNI runs so many trials at once: each takes as long, and the next starts when one has ended."""
    experiment = fake.make(path / "made", [{"accuracy": 0.5}] * count)
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        for number in range(count):
            began = 1000 * (number // concurrency) + number % concurrency
            for table, condition in (("TrialJobEvent", "event = 'RUNNING'"), ("TrialJobEvent", "event != 'RUNNING'")):
                moment = began if "= 'RUNNING'" in condition and "!" not in condition else began + 900
                connection.execute(
                    f"update {table} set timestamp = ? where trialJobId = ? and {condition}", (moment, f"trial{number}")
                )
            query = "update MetricData set timestamp = ? where trialJobId = ? and type = 'FINAL'"
            connection.execute(query, (began + 890, f"trial{number}"))
    return experiment


@pytest.mark.parametrize(("liar", "random"), [("mean", 5), (None, 8)])
def test_a_running_trial_is_known_to_a_tuner_that_lies(tmp_path: Path, liar: str | None, random: int) -> None:
    """With four at once: NNI's tuner counts the running, and proposes by itself from the sixth on."""
    experiment = at_once(tmp_path, 4, 20)
    tuner = {"name": "TPE", "classArgs": {"tpe_args": {"n_startup_jobs": 5, "constant_liar_type": liar}}}
    gain = findings.tuner_gain(store.read_trials(experiment), store.read_result_times(experiment), tuner)
    assert gain is not None
    assert (gain.random, gain.proposed) == (random, 20 - random)


def test_what_nni_itself_draws_at_random_is_what_is_counted_so(tmp_path: Path) -> None:
    """Eight at once, asked of NNI's own tuner: the first ten are random, though only two of them have ended by then."""
    from nni.algorithms.hpo import tpe_tuner

    tuner = tpe_tuner.TpeTuner("maximize", 1, {"n_startup_jobs": 10, "constant_liar_type": "mean"})
    tuner.update_search_space({"lr": {"_type": "uniform", "_value": [0, 1]}})
    random = 0
    for number in range(24):
        if number >= 8:  # one has ended for each that begins
            tuner.receive_trial_result(number - 8, {}, 0.5)
        history = len(tuner._history[("lr",)]) + len(tuner._running_params)
        random += history < tuner.args.n_startup_jobs
        tuner.generate_parameters(number)
    assert random == 10


@pytest.mark.parametrize(("drawn", "proposed"), [(10, 10), (10, 50)])
def test_the_gain_in_equal_seconds_has_no_bias(drawn: int, proposed: int) -> None:
    """Both of the same kind, and seconds that say nothing of accuracy: the truth is no gain."""
    generator, found = np.random.default_rng(0), list[float]()
    for _ in range(60):
        values = generator.normal(0.5, 0.1, drawn), generator.normal(0.5, 0.1, proposed)
        seconds = generator.uniform(1, 3, drawn), generator.uniform(1, 3, proposed)
        found.append(gain_in_equal_seconds(*values, seconds).value)
    assert abs(float(np.mean(found))) < 0.03


def test_slow_proposals_gain_less_in_equal_seconds() -> None:
    """A point better each, and each as long as ten random ones: in the time of one, random search has ten."""
    drawn, proposed = np.linspace(0.4, 0.6, 10), np.linspace(0.41, 0.61, 10)
    same = gain_in_equal_seconds(drawn, proposed, (np.ones(10), np.ones(10)))
    slower = gain_in_equal_seconds(drawn, proposed, (np.ones(10), np.full(10, 10.0)))
    assert same.value == pytest.approx(0.01)
    assert slower.value == pytest.approx(0.51 - 0.6, abs=0.01)
    assert slower.high < same.value


def test_what_is_said_of_stopped_trials_is_tried_on_finished_ones(tmp_path: Path) -> None:
    """The best rises late by 30 points. At epoch 1 another had as much as it: of that one it would be said wrongly."""
    trials, curves = made(
        tmp_path,
        [
            {"accuracy": 0.6, "epochs": 2},
            {"accuracy": 0.58, "epochs": 2},
            {"accuracy": 0.2, "epochs": 2},
            {"accuracy": 0.32, "epochs": 1, "status": "stopped_early"},
        ],
    )
    found = findings.stopping(trials, curves)
    assert [trial.number for trial in found.could_have_won or []] == [3]
    assert (found.false_alarms, found.replayed) == (0, 2)  # 0.29 + 0.3 is not above 0.6, 0.1 + 0.3 neither
    curves = {**curves, "trial1": [{"default": 0.35}, {"default": 0.58}]}
    assert findings.stopping(trials, curves).false_alarms == 1
