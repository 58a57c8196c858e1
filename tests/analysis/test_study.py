from __future__ import annotations

from pathlib import Path

import fake_experiments as fake
import numpy as np
from optuna.trial import TrialState

from cifar.analysis import study
from cifar.trials import store


def test_trials_keep_their_numbers_and_the_failed_are_left_out(tmp_path: Path) -> None:
    experiment = fake.make(
        tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.1, "status": "diverged"}, {"accuracy": 0.6}]
    )
    rebuilt = study.rebuild(store.read_trials(experiment), fake.SPACE)
    complete = rebuilt.get_trials(states=[TrialState.COMPLETE])
    assert [(trial.number, trial.value) for trial in complete] == [(0, 0.5), (2, 0.6)]
    assert complete[1].params == {"width": 8.0, "lr": 0.003}


def test_the_parameter_that_decides_is_the_important_one(tmp_path: Path) -> None:
    trials = [
        {"accuracy": 0.3 + 0.01 * width, "params": {"width": float(width), "lr": lr}}
        for width in range(4, 32, 4)
        for lr in (0.001, 0.003, 0.01)
    ]
    experiment = fake.make(tmp_path / "made", trials)
    found = study.importances(study.rebuild(store.read_trials(experiment), fake.SPACE))
    assert list(found.shares) == ["width", "lr"]
    assert found.shares["width"].low > 0.8
    assert found.shares["lr"].value <= found.of_chance < 0.2
    assert found.explained > 0.8


def test_where_nothing_matters_a_random_number_matters_as_much(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    trials = [
        {
            "accuracy": float(generator.random()),
            "params": {"width": 4.0 + 2 * n, "lr": float(10 ** generator.uniform(-3, -1))},
        }
        for n in [*range(14)] * 3
    ]
    experiment = fake.make(tmp_path / "noise", trials)
    found = study.importances(study.rebuild(store.read_trials(experiment), fake.SPACE))
    assert found.explained < 0.15
    assert found.of_chance > 0.2
    assert min(share.value for share in found.shares.values()) <= found.of_chance
