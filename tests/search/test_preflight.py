from __future__ import annotations

import copy
import os
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cifar.search.algorithms import beginning_text, custom_problem
from cifar.search.config import Overrides, load
from cifar.search.preflight import problems

SHIPPED: Any = load(ROOT / "config.yml", Overrides())
SPACE: dict[str, Any] = SHIPPED.search_space


def changed(path: str, value: Any) -> Any:
    """The shipped experiment with one value changed: changed("tuner/name", "GP")."""
    config = deepcopy(SHIPPED)
    *parents, last = (re.sub("(?<=[a-z])[A-Z]", r"_\g<0>", name).lower() for name in path.split("/"))
    place = config
    for name in parents:
        place = place[name] if isinstance(place, dict) else getattr(place, name)
    if isinstance(place, dict):
        place[last] = value
    else:
        setattr(place, last, value)
    return config


def test_the_shipped_experiment_has_no_problems() -> None:
    assert problems(SHIPPED) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("searchSpace/metric", {"_type": "choice", "_value": ["accuracy"]}, "metric must be the same for all trials"),
        ("searchSpace/widht", {"_type": "choice", "_value": [6]}, "unknown hyperparameter 'widht'; known are model"),
        (
            "searchSpace/width",
            {"_type": "uniform", "_value": [4, 8]},
            "width must be an integer from 1 to 1024, got 5.27",
        ),
        ("searchSpace/width", {"_type": "quniform", "_value": [0, 8, 2]}, "width must be an integer from 1 to 1024"),
        ("searchSpace/width", {"_type": "quniform", "_value": [4, 8, 0.5]}, "width must be an integer .*, got 4.5"),
        ("searchSpace/width", {"_type": "randint", "_value": [1, 1026]}, "from 1 to 1024, got 1025"),
        ("searchSpace/momentum", {"_type": "uniform", "_value": [0, 1]}, "momentum must be .* below 1, got 1.0"),
        ("searchSpace/model", {"_type": "choice", "_value": ["net", "vgg"]}, "model must be one of .*, got 'vgg'"),
        ("searchSpace/lr", {"_type": "normal", "_value": [0, 1]}, "lr must have one of the types choice, .*'normal'"),
        ("searchSpace/lr", {"_type": "loguniform", "_value": [0, 1]}, "lr must lie above 0 for loguniform"),
        ("searchSpace/lr", {"_type": "uniform", "_value": [0.1]}, "lr must have a list of 2 values for uniform"),
        ("searchSpace/lr", {"_type": "uniform", "_value": [0.2, 0.1]}, "lr must have its low end below its high end"),
        ("searchSpace/lr", {"_type": "quniform", "_value": [1, 10**400, 1]}, "lr must have numbers up to 1e.12"),
        ("searchSpace/lr", [0.1, 0.2], "lr must have one of the types"),
        (
            "searchSpace/lr",
            {"_type": "uniform", "_value": ["1e-4", 0.1]},
            "YAML takes 1e-4 for a text: write 0.0001",
        ),
        ("searchSpace", {}, "the search space must be an object that names at least one hyperparameter"),
        ("searchSpace", {"width": {"_type": "choice", "_value": [4, 6]}}, "only 2 points, fewer than the 40 trials"),
        ("tuner/name", "GP", "tuner 'GP' does not work here: it fails with today's scipy"),
        ("tuner/name", "Mine", "tuner 'Mine' does not work here; choose one of TPE, Random"),
        ("tuner/classArgs/optimize_mode", "minimize", "optimize_mode must be maximize"),
        ("tuner/classArgs/tpe_args", {"startup": 5}, "tuner TPE, tpe_args: unknown argument 'startup'; known are "),
        ("tuner/classArgs/tpe_args", {"n_startup_jobs": 40}, "40 trials are too few for TPE, which learns after 40"),
        ("tuner/classArgs/seed", "abc", "tuner TPE: seed must be an integer of at least 0, got 'abc'"),
        ("tuner/classArgs/seedd", 1, "tuner TPE: unknown argument 'seedd'; known are optimize_mode, seed, tpe_args"),
        ("tuner/classArgs/tpe_args", [1], "tpe_args must hold names and values, got"),
        ("tuner/classArgs/tpe_args", {"gamma": "x"}, "tpe_args: gamma must be a number above 0, got 'x'"),
        ("assessor/classArgs/start_step", "four", "assessor EarlyDiscard: start_step must be an integer of at least 1"),
        ("assessor/classArgs/optimize_mode", "minimize", "assessor EarlyDiscard: optimize_mode must be maximize"),
        ("assessor/classArgs/keep", 0, "assessor EarlyDiscard: keep must be a number above 0 and at most 1, got 0"),
        ("assessor/classArgs/slack", -1, "assessor EarlyDiscard: slack must be a number of at least 0, got -1"),
        ("tuner/classArgs/defaults", [6], "tuner TPE: defaults must hold names and values, got"),
        ("tuner/classArgs/start_from", {"width": 6}, "tuner TPE: start_from must be a list of names and values, got"),
        ("tuner/classArgs/start_from", [{"widht": 6}], "tuner: start_from has {'widht': 6}, and the search space no"),
        ("tuner/classArgs/start_from", [{"width": 64}], "tuner: start_from has {'width': 64}, which lies outside the"),
        ("maxTrialNumber", True, "maxTrialNumber must be an integer of at least 1, got True"),
        ("trialConcurrency", 0, "trialConcurrency must be an integer of at least 1, got 0"),
        ("maxExperimentDuration", "5x", "maxExperimentDuration must be a number above 0 with a unit"),
        ("logLevel", "loud", "logLevel must be one of fatal, error"),
        ("trialCodeDirectory", "/nowhere", "trialCodeDirectory must be a directory, got '/nowhere'"),
        ("trialCommand", "pyhton trial.py", "trialCommand: there is no program pyhton, got 'pyhton trial.py'"),
        ("trialCommand", "A=b exec ./trial.sh", "trialCommand: there is no program ./trial.sh"),
        ("trialCommand", "python trial.py  # mine", "must hold no comment, behind which options would be lost"),
        ("trialCommand", "A=b", "trialCommand runs no program, got 'A=b'"),
        ("trialCommand", f"{Path.home()} trial.py", "trialCommand: there is no program /"),
        ("tuner", None, "tuner must be there; choose one of TPE"),
        ("trialCommand", "python nope.py", "trialCommand: there is no file nope.py in "),
        ("trialCommand", "python trial.py --foo 3", "trialCommand: in a search trial.py takes no --foo"),
        ("trialCommand", "python trial.py --save x", "trialCommand: in a search trial.py takes no --save"),
        ("trialCommand", "python trial.py --data digits", "trialCommand must not name --data"),
        ("trialCommand", "python trial.py --epochs x", "trialCommand: argument --epochs: invalid int value: 'x'"),
        ("maxTrialNumber", 6, "6 trials are too few for TPE, which learns after 6"),
        ("assessor/name", "Mine", "assessor must be one of Medianstop, Curvefitting or none, got 'Mine'"),
        ("trialCodeDirectory", "x" * 5000, "trialCodeDirectory must be a directory, got 'xxx"),
        ("trialCommand", "python trial.py; echo done", "must be one simple command"),
        ("trialCommand", "python 'trial.py", "trialCommand cannot be read"),
        ("trialGpuNumber", 0, "trialGpuNumber must not be set"),
        ("trainingService/trialGpuNumber", 1, "trialGpuNumber must not be set"),
    ],
)
def test_each_problem_is_one_sentence(path: str, value: Any, problem: str) -> None:
    found = problems(changed(path, value))
    assert len(found) == 1
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(found[0])


@pytest.mark.parametrize(
    "command",
    [
        "python $PWD/trial.py",
        "python ${PWD}/trial.py",
        f"python {os.path.relpath(ROOT, Path.home())}/trial.py".replace("python ", "python ~/"),
        "OMP_NUM_THREADS=1 python trial.py",
        "env A=b python trial.py",
        "exec python trial.py",
        f"{sys.executable} trial.py",
        "$NOBODY_KNOWS trial.py",  # only the shell can tell
    ],
)
def test_a_command_that_the_shell_understands_is_no_problem(command: str) -> None:
    assert problems(changed("trialCommand", command)) == []


def test_a_finite_space_on_which_nni_never_ends_is_refused() -> None:
    """And one that is continuous is not: there NNI never draws a point twice."""
    lonely = {"_type": "quniform", "_value": [2, 14, 4]}
    assert problems(changed("searchSpace/batchSize".replace("batchSize", "width"), lonely)) == []
    config = changed("searchSpace", {"width": lonely})
    config.max_trial_number = None
    assert problems(config) == [
        "search space: width must end at a multiple of its step, as 12 or 16, got [2, 14, 4]: "
        "NNI would search 14 for ever"
    ]


def with_nnis_tpe(arguments: dict[str, Any]) -> Any:
    config = changed("tuner/classArgs", {"optimize_mode": "maximize", "tpe_args": arguments})
    config.tuner.name, config.tuner.class_name, config.tuner.code_directory = "TPE", None, None
    return config


def test_a_tpe_that_would_call_all_trials_good_is_refused_on_choices() -> None:
    config = with_nnis_tpe({"n_startup_jobs": 1, "gamma": 0.5})
    assert problems(config) == []
    config.search_space["batch_size"] = {"_type": "choice", "_value": [16, 32]}
    assert problems(config) == [
        "tuner: after 1 trials TPE with gamma 0.5 calls all of them good, and then fails on batch_size, which has "
        "choices: raise tpe_args n_startup_jobs"
    ]


@pytest.mark.parametrize(("jobs", "gamma"), [(1, 0.5), (2, 0.5), (2, 1.5), (4, 2.0), (4, 1.9), (20, 0.25), (9, 3.5)])
def test_nnis_tpe_fails_on_choices_where_this_says_so(jobs: int, gamma: float) -> None:
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    space = {
        "batch_size": {"_type": "choice", "_value": [16, 32, 48, 64]},
        "lr": {"_type": "uniform", "_value": [0.1, 1]},
    }
    arguments = {"n_startup_jobs": jobs, "gamma": gamma, "constant_liar_type": None}
    config = with_nnis_tpe(arguments)
    config.search_space = space
    tuner = TpeTuner("maximize", 1, arguments)
    tuner.update_search_space(space)
    try:
        for number in range(jobs + 1):
            tuner.generate_parameters(number)
            tuner.receive_trial_result(number, {}, 0.1 * number)
        failed = False
    except TypeError:
        failed = True
    assert bool(problems(config)) is failed


TUNERS = """
import nni.tuner
class Good(nni.tuner.Tuner):
    def __init__(self, share=0.5): ...
class Other: ...
"""


@pytest.mark.parametrize(
    ("class_name", "arguments", "problem"),
    [
        ("mine.Good", {}, None),
        ("mine.Good", {"share": 0.1}, None),
        ("mine.Good", {"part": 1}, "cannot be used: TypeError: got an unexpected keyword argument 'part'"),
        ("mine.Absent", {}, "cannot be used: AttributeError: module 'mine' has no attribute 'Absent'"),
        ("other.Good", {}, "cannot be used: ModuleNotFoundError: No module named 'other'"),
        ("mine.Other", {}, "cannot be used: it is no nni.tuner.Tuner"),
        ("broken.Good", {}, "cannot be used: ZeroDivisionError: division by zero"),
        ("Good", {}, "tuner: className must be MODULE.CLASS, got 'Good'"),
    ],
)
def test_a_tuner_of_the_users_own_is_tried(
    tmp_path: Path, class_name: str, arguments: dict[str, Any], problem: str | None
) -> None:
    (tmp_path / "mine.py").write_text(TUNERS)
    (tmp_path / "broken.py").write_text("1 / 0")
    found = custom_problem("tuner", tmp_path, class_name, arguments)
    assert found is None if problem is None else problem in str(found)


def test_machines_need_a_key_and_a_python(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    content = yaml.safe_load((ROOT / "config.yml").read_text())
    machine = {"user": "me", "sshKeyFile": str(tmp_path / "key"), "pythonPath": "/home/me/.venv/bin"}
    machines = [{"host": f"gpu{number}.example.org", "port": 22, **machine} for number in (1, 2)]
    content["trainingService"] = {"platform": "remote", "machineList": machines}
    for name in ("search_space.json", "trial.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(content))
    config = load(path, Overrides())
    assert problems(config) == []
    first, second = config.training_service.machine_list
    first.password, second.python_path = "secret", None
    assert problems(config) == [
        "machineList: gpu1.example.org must have an sshKeyFile without a passphrase: NNI's page would show it",
        "machineList: gpu2.example.org must have a pythonPath, the directory of the Python for its trials",
    ]
    second.python_path, second.host, first.password, first.user = "/opt/bin", first.host, None, "-oProxyCommand=owned"
    assert problems(config) == ["host 'gpu1.example.org': user must be a text, got '-oProxyCommand=owned'"]
    first.user = "me"
    assert problems(config) == ["hosts must differ, got gpu1.example.org:22 more than once"]


def test_all_problems_are_listed_at_once() -> None:
    config = changed("tuner/name", "GP")
    config.trial_gpu_number, config.trial_command, config.trial_concurrency = 1, "", 0
    assert len(problems(config)) == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SAMPLERS = st.fixed_dictionaries(
    {},
    optional={
        "_type": st.sampled_from(["choice", "randint", "uniform", "quniform", "loguniform", "qloguniform"]) | JSON,
        "_value": st.lists(st.floats() | st.integers() | JSON, max_size=4) | JSON,
    },
)


@given(st.dictionaries(st.sampled_from([*SPACE, "model", "gradient_accumulation_steps", "x"]), SAMPLERS | JSON))
def test_no_search_space_breaks_the_reader(space: dict[str, Any]) -> None:
    assert all(isinstance(problem, str) and problem for problem in problems(changed("searchSpace", space)))


@given(
    st.sampled_from(
        [
            "searchSpace",
            "trialCommand",
            "trialCodeDirectory",
            "tuner/classArgs/tpe_args",
            "tuner/classArgs/defaults",
            "tuner/classArgs/start_from",
            "assessor/classArgs",
            "maxTrialNumber",
        ]
    ),
    JSON,
)
def test_no_value_breaks_the_reader(path: str, value: Any) -> None:
    assert all(isinstance(problem, str) for problem in problems(changed(path, value)))


def test_a_space_may_use_the_names_of_version_0_1() -> None:
    config = copy.deepcopy(SHIPPED)
    config.search_space = {"shift": {"_type": "randint", "_value": [0, 9]}}
    config.max_trial_number, config.tuner.name, config.tuner.class_args = 5, "Random", {"optimize_mode": "maximize"}
    assert problems(config) == []
    config.search_space = {"shift": {"_type": "randint", "_value": [0, 99]}}
    assert problems(config) == ["search space: translate must be an integer from 0 to 31, got 98"]


@pytest.mark.parametrize(
    ("tuner", "trials", "text"),
    [
        ({"name": "Random"}, 10, ""),
        ({"name": "TPE"}, 100, "TPE begins with random points, until it knows 20 trials"),
        (
            {"name": "TPE", "classArgs": {"tpe_args": {"n_startup_jobs": 2}}},
            8,
            "TPE begins with random points, until it knows 2 trials instead of 20, since there are 8 in all",
        ),
        (
            {"className": "cifar.search.guided_tpe.GuidedTpe"},
            40,
            "TPE begins with the defaults, points near them and random ones, until it knows 6 trials",
        ),
        (
            {"className": "cifar.search.guided_tpe.GuidedTpe", "classArgs": {"start_from": [{"width": 8}]}},
            40,
            "TPE begins with the defaults, the points to start from, points near them and random ones, "
            "until it knows 6 trials",
        ),
    ],
)
def test_a_search_says_how_its_tuner_begins(tuner: dict[str, Any], trials: int, text: str) -> None:
    assert beginning_text(tuner, trials) == text
