"""Hyperparameters at and beyond their limits: a finite result with a reason, or a refusal before anything starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conftest import Record
from experiments import Start, change_config, nothing_is_left

EXTREMES: dict[str, list[float]] = {
    "lr": [1e-30, 0.01, 1e30],
    "momentum": [0, 0.999999],
    "batch_size": [1, 1_000_000],  # the digits are 1,293
    "width": [1],
}


def write_config(config_path: Path, space: dict[str, Any], command: str, trials: int) -> None:
    grid = {"tuner": {"name": "GridSearch"}, "searchSpaceFile": None}
    change_config(config_path, searchSpace=space, trialCommand=command, maxTrialNumber=trials, **grid)


@pytest.mark.slow
def test_every_extreme_ends_in_a_finite_result_with_a_reason(
    search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    space = {name: {"_type": "choice", "_value": values} for name, values in EXTREMES.items()}
    trials = math.prod(map(len, EXTREMES.values()))
    write_config(config_path, space, "python trial.py --epochs 1", trials)
    one = search("--data", "digits")
    assert one.wait(240) == 0, one.err
    ended = one.trials()
    assert len(ended) == trials
    for trial in ended:
        assert trial.result is not None and trial.accuracy is not None
        assert trial.nni_status == "SUCCEEDED"
        assert all(math.isfinite(value) for value in trial.result["metrics"].values())
        assert trial.status == ("diverged" if trial.params["lr"] == 1e30 else "ok"), trial
        assert trial.reason
    assert nothing_is_left(tmp_path)
    record(trials)


REFUSED = [
    ("lr", [0.0, 0.1], "search space: lr must be a number above 0, got 0.0"),
    ("lr", [-0.1, 0.1], "lr must be a number above 0, got -0.1"),
    ("lr", [math.nan, 0.1], "nan"),
    ("lr", [math.inf, 0.1], "inf"),
    ("momentum", [0.5, 1], "momentum must be a number from 0 to below 1, got 1"),
    ("momentum", [math.nan, 0.5], "nan"),
    ("batch_size", [0, 4], "batch_size must be an integer from 1 to 1048576, got 0"),
    ("batch_size", [4, math.inf], "inf"),
    ("width", [0, 6], "width must be an integer from 1 to 1024, got 0"),
    ("width", [6, 100_000], "width must be an integer from 1 to 1024, got 100000"),
]


@pytest.mark.slow
def test_what_no_trial_could_train_with_is_refused_before_anything_starts(
    search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    for name, values, message in REFUSED:
        write_config(config_path, {name: {"_type": "choice", "_value": values}}, "python trial.py --epochs 1", 2)
        one = search("--data", "digits")
        assert one.wait() == 2, (name, values)
        assert message in one.err.lower(), one.err
        assert "Traceback" not in one.err
        assert not one.experiments.exists()
    record(len(REFUSED))


@pytest.mark.slow
def test_a_trial_without_memory_ends_with_chance_and_says_so(
    search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    """The kernel's limit on a process stands for a machine or a GPU that is too small."""
    space = {"width": {"_type": "choice", "_value": [4, 200]}}
    (tmp_path / "limited.py").write_text(
        "import resource, runpy, sys, torch\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)\n"
        "sys.path.insert(0, '.')\n"
        "runpy.run_path('trial.py', run_name='__main__')\n"
    )
    write_config(config_path, space, f"python {tmp_path / 'limited.py'} --epochs 1", 2)
    one = search("--data", "digits")
    assert one.wait(240) == 0, one.err
    assert {trial.params["width"]: trial.status for trial in one.trials()} == {4: "ok", 200: "out_of_memory"}
    assert nothing_is_left(tmp_path)
    record(1)
