"""The shipped experiment, held against the rules that keep NNI 3.0 honest."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yml").read_text())


def test_nni_never_schedules_gpus() -> None:
    assert "trialGpuNumber" not in CONFIG
    assert CONFIG["trainingService"] == {"platform": "local"}


def test_tpe_leaves_its_random_phase_well_before_the_end() -> None:
    arguments = CONFIG["tuner"]["classArgs"]
    assert (CONFIG["tuner"]["name"], arguments["optimize_mode"]) == ("TPE", "maximize")
    assert isinstance(arguments["seed"], int)
    assert arguments["tpe_args"]["n_startup_jobs"] <= CONFIG["maxTrialNumber"] / 3


def test_the_assessor_lets_trials_get_going() -> None:
    epochs = int(shlex.split(CONFIG["trialCommand"])[-1])
    assert CONFIG["assessor"]["name"] == "Medianstop"
    assert epochs / 2 <= CONFIG["assessor"]["classArgs"]["start_step"] < epochs


def test_the_trial_is_one_simple_command_so_that_signals_reach_it() -> None:
    assert shlex.split(CONFIG["trialCommand"])[:2] == ["python", "trial.py"]
    assert not set(CONFIG["trialCommand"]) & set(";&|$`<>")


def test_the_space_is_finite_in_no_dimension_that_could_run_out() -> None:
    """NNI hangs for ever once a finite space is used up."""
    space = json.loads((ROOT / CONFIG["searchSpaceFile"]).read_text())
    assert any(sampler["_type"] in ("uniform", "loguniform") for sampler in space.values())
