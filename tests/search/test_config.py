"""The shipped experiment, held against the rules that keep NNI 3.0 honest."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import fake_experiments
import fake_experiments as fake
import pytest
import yaml
from experiments import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.studies import tpe
from cifar.errors import RequestError
from cifar.search import search_space, start
from cifar.search.algorithms import EARLY_DISCARD, GUIDED_STARTUP_JOBS, is_guided, name_of
from cifar.search.config import Overrides, _apply_hparams, _stored, experiments_directory, load, load_stored
from cifar.search.guided_tpe import GuidedTpe
from cifar.search.plan import disk_bytes
from cifar.training.hparams import command_hparams

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yml").read_text())


each_config = pytest.mark.parametrize(
    "path", ["config.yml", *(f"searches/{name}/config.yml" for name in ("net", "fast", "fast-gpu"))]
)


def read(path: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return config


@each_config
def test_nni_never_schedules_gpus(path: str) -> None:
    assert "trialGpuNumber" not in read(path)
    assert read(path)["trainingService"] == {"platform": "local"}


@each_config
def test_a_search_begins_with_the_recipes_defaults(path: str) -> None:
    config = read(path)
    tuner = config["tuner"]
    assert (name_of(tuner), is_guided(tuner), tuner["classArgs"]["optimize_mode"]) == ("TPE", True, "maximize")
    assert (ROOT / path).parent.joinpath(tuner["codeDirectory"], "cifar").is_dir()
    assert isinstance(tuner["classArgs"]["seed"], int)
    space = search_space.read((ROOT / path).parent / config["searchSpaceFile"])
    known = tuner["classArgs"]["defaults"]
    assert known == start.defaults_of(space, config["trialCommand"], 45_000, "cifar10")
    assert config["maxTrialNumber"] >= 3 * GUIDED_STARTUP_JOBS


@pytest.mark.parametrize("landscape", tpe.LANDSCAPES)
@pytest.mark.parametrize("at_once", [2, 4])
def test_the_shipped_tuner_finds_more_than_nnis_and_is_not_drawn_to_trials_that_run(
    landscape: tpe.Landscape, at_once: int
) -> None:
    """NNI takes a running trial for as good as the best: of two at once, one is half of what TPE calls good."""
    ours = tpe.searched(landscape, at_once, "ours", lambda seed: GuidedTpe("maximize", seed), seeds=8)
    nnis = tpe.searched(landscape, at_once, "TPE", lambda seed: tpe.new_tpe(seed, "best", 0.25), seeds=8)
    assert fmean(ours.late) > fmean(nnis.late) + 0.03
    assert fmean(ours.best) > fmean(nnis.best)


@each_config
def test_the_assessor_waits_for_what_an_epoch_says(path: str) -> None:
    config = read(path)
    assert name_of(config["assessor"]) == "EarlyDiscard"
    assert config["assessor"]["classArgs"] == {"optimize_mode": "maximize"}


@each_config
def test_the_trial_is_one_simple_command_so_that_signals_reach_it(path: str) -> None:
    command = read(path)["trialCommand"]
    assert shlex.split(command)[:2] == ["python", "trial.py"]
    assert not set(command) & set(";&|$`<>")


@each_config
def test_the_space_is_finite_in_no_dimension_that_could_run_out(path: str) -> None:
    """NNI hangs for ever once a finite space is used up."""
    space = json.loads(((ROOT / path).parent / read(path)["searchSpaceFile"]).read_text())
    assert any(sampler["_type"] in ("uniform", "loguniform") for sampler in space.values())


@each_config
def test_it_runs_this_code_and_keeps_its_experiments_here(path: str) -> None:
    config = load(ROOT / path, Overrides())
    assert Path(config.trial_code_directory) == ROOT
    assert Path(config.experiment_working_directory) == ROOT / "nni-experiments"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


@given(st.dictionaries(st.sampled_from([*CONFIG, "searchSpace", "maxExperimentDuration"]), JSON, max_size=3))
@example({"searchSpaceFile": "\0"})
@example({"experimentWorkingDirectory": "\0"})
@example({"trialCodeDirectory": "\0"})
@example({"trialCommand": "python \0.py"})
def test_no_config_breaks_the_reader(directory: Path, values: dict[str, Any]) -> None:
    config = CONFIG | {"searchSpaceFile": str(ROOT / "search_space.json")} | values
    if "searchSpace" in values:
        del config["searchSpaceFile"]
    path = directory / "config.yml"
    path.write_text(yaml.safe_dump(config))
    with contextlib.suppress(RequestError):
        loaded = load(path, Overrides())
        disk_bytes(loaded)  # what comes next, of a config that passes


@given(st.binary(max_size=200))
def test_no_file_breaks_the_reader(directory: Path, content: bytes) -> None:
    path = directory / "config.yml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="is no NNI experiment: "):
        load(path, Overrides())


@given(
    st.builds(
        Overrides,
        max_trials=st.integers(),
        concurrency=st.integers(),
        duration=st.text(max_size=6),
        hparams=st.dictionaries(
            st.sampled_from(["epochs", "seed", "metric", "size", "flip", "lr", "gradient_accumulation_steps", "x"]),
            st.integers() | st.booleans() | st.text(max_size=6) | st.floats(),
            max_size=3,
        ),
        name=st.text(max_size=6),
        tuner=st.text(max_size=6) | st.sampled_from(["TPE", "Random", "GridSearch", "Evolution", "GP"]),
    )
)
def test_no_option_breaks_the_reader(overrides: Overrides) -> None:
    with contextlib.suppress(RequestError):
        load(ROOT / "config.yml", overrides)


COMMAND = "python trial.py --epochs 8 --schedule triangular --flip --translate 2"


@pytest.mark.parametrize(
    ("overrides", "name", "value"),
    [
        (Overrides(max_trials=60), "max_trial_number", 60),
        (Overrides(duration="90m"), "max_experiment_duration", "90m"),
        (Overrides(concurrency=3), "trial_concurrency", 3),
        (Overrides(name="Mine"), "experiment_name", "Mine"),
        (
            Overrides(hparams={"epochs": 3}),
            "trial_command",
            "python trial.py --schedule triangular --flip --translate 2 --epochs 3",
        ),
        (Overrides(hparams={"size": 64, "flip": True}), "trial_command", f"{COMMAND} --size 64"),
        (Overrides(hparams={"metric": "balanced_accuracy"}), "trial_command", f"{COMMAND} --metric balanced_accuracy"),
        (
            Overrides(hparams={"flip": False, "balanced": True}),
            "trial_command",
            "python trial.py --epochs 8 --schedule triangular --translate 2 --no-flip --balanced",
        ),
    ],
)
def test_an_option_changes_what_it_names_and_nothing_else(overrides: Overrides, name: str, value: object) -> None:
    plain, changed = load(ROOT / "config.yml", Overrides()), load(ROOT / "config.yml", overrides)
    assert getattr(changed, name) == value
    names = ("max_trial_number", "max_experiment_duration", "trial_concurrency", "experiment_name", "trial_command")
    others = [other for other in names if other != name]
    assert [getattr(changed, other) for other in others] == [getattr(plain, other) for other in others]


@pytest.mark.parametrize(
    ("stated", "overrides", "startup"),
    [(None, Overrides(), 2), (7, Overrides(), 7), (7, Overrides(max_trials=12), 3)],
)
def test_a_config_of_few_trials_has_a_short_random_phase_unless_it_states_one(
    tmp_path: Path, stated: int | None, overrides: Overrides, startup: int
) -> None:
    content = yaml.safe_load((ROOT / "config.yml").read_text())
    content |= {
        "maxTrialNumber": 8,
        "trialCodeDirectory": str(ROOT),
        "searchSpaceFile": str(ROOT / "search_space.json"),
    }
    content["tuner"] = {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}
    if stated:
        content["tuner"]["classArgs"]["tpe_args"] = {"n_startup_jobs": stated}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(content))
    loaded = load(tmp_path / "config.yml", overrides)
    assert loaded.tuner.class_args["tpe_args"]["n_startup_jobs"] == startup


def written(directory: Path, text: str) -> Path:
    """The shipped config with lines of it replaced or added, as a user would."""
    kept = [line for line in (ROOT / "config.yml").read_text().splitlines() if line.split(":")[0] not in text]
    path = directory / "config.yml"
    path.write_text("\n".join([*kept, text]))
    for name in ("search_space.json", "trial.py"):
        (directory / name).write_bytes((ROOT / name).read_bytes())
    return path


@pytest.mark.parametrize(
    "command",
    ["trialCommand: >\n  python trial.py\n  --epochs 8\n", "trialCommand: |\n  python trial.py \\\n  --epochs 8\n"],
)
def test_a_command_may_be_a_block_of_yaml(tmp_path: Path, command: str) -> None:
    words = load(written(tmp_path, command), Overrides()).trial_command.split()
    assert words == ["python", "trial.py", "--epochs", "8"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("maxExperimentDuration: 1:30", "YAML reads 1:30 as 90; write a duration as 90s or 30m"),
        ("maxTrialDuration: 10:00:00", "YAML reads 10:00:00 as 36000; write"),
        ("trialConcurrency: 010", "YAML reads 010 as 8; write"),
        ("searchSpace: {lr: {_type: choice, _value: [0.1]}}", None),
        ("experimentWorkingDirectory: $NOBODY_KNOWS/x", "experimentWorkingDirectory names a variable that is not set"),
    ],
)
def test_what_yaml_or_a_shell_would_misread_is_refused(tmp_path: Path, line: str, problem: str | None) -> None:
    path = written(tmp_path, line)
    if problem is None:  # both an inline space and the file, of which NNI would take the file
        path.write_text(f"{path.read_text()}\nsearchSpaceFile: search_space.json\n")
        problem = "searchSpace and searchSpaceFile are both there, and NNI takes the file: keep one of them"
    with pytest.raises(RequestError, match=problem):
        load(path, Overrides())


def test_a_directory_may_be_named_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path / "there"))
    path = written(tmp_path, "experimentWorkingDirectory: $PLACE/experiments")
    assert load(path, Overrides()).experiment_working_directory == str(tmp_path / "there" / "experiments")
    assert experiments_directory(path) == tmp_path / "there" / "experiments"


def test_what_is_wrong_with_the_space_file_is_listed_beside_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, "trialConcurrency: 0")
    (tmp_path / "search_space.json").unlink()
    with pytest.raises(RequestError) as raised:
        load(path, Overrides())
    first, second = str(raised.value).splitlines()
    assert first.startswith(f"searchSpaceFile {tmp_path / 'search_space.json'} cannot be read")
    assert second == "trialConcurrency must be an integer of at least 1, got 0"


def test_what_is_searched_is_no_option() -> None:
    with pytest.raises(
        RequestError,
        match=r"^--lr 0\.1: lr is searched; begin with it by --start-from lr=0\.1, or take lr out",
    ):
        load(ROOT / "config.yml", Overrides(hparams={"lr": 0.1}))


def test_a_seed_is_the_tuners_and_the_trials() -> None:
    config = load(ROOT / "config.yml", Overrides(hparams={"seed": 5}))
    assert config.tuner.class_args["seed"] == 5
    assert config.tuner.class_args["defaults"] == CONFIG["tuner"]["classArgs"]["defaults"]
    assert config.trial_command.endswith(" --seed 5")


def test_trials_of_several_gpus_are_started_by_torchrun() -> None:
    command = load(ROOT / "config.yml", Overrides(gpus_per_trial=2)).trial_command
    assert shlex.split(command)[:5] == ["torchrun", "--standalone", "--nproc-per-node", "2", "trial.py"]


@pytest.mark.parametrize("command", ["bash trial.sh", "python -u trial.py", "python"])
def test_what_torchrun_cannot_start_is_refused(tmp_path: Path, command: str) -> None:
    changed = CONFIG | {"trialCommand": command, "searchSpaceFile": str(ROOT / "search_space.json")}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(changed))
    with pytest.raises(RequestError, match="--gpus-per-trial needs a trialCommand that begins with python SCRIPT, got"):
        load(tmp_path / "config.yml", Overrides(gpus_per_trial=2))


def test_early_stopping_can_be_left_out() -> None:
    assert load(ROOT / "config.yml", Overrides()).assessor.class_name == EARLY_DISCARD
    assert load(ROOT / "config.yml", Overrides(no_early_stopping=True)).assessor is None


@pytest.mark.parametrize("tuner", ["Random", "GridSearch", "Evolution"])
def test_another_tuner_gets_arguments_of_its_own(tuner: str) -> None:
    config = load(ROOT / "config.yml", Overrides(tuner=tuner, hparams={"seed": 5}))
    seed = {"seed": 5} if tuner == "Random" else {}
    assert config.tuner.class_args == {"optimize_mode": "maximize"} | seed


def test_what_lay_beside_a_moved_experiment_is_found_beside_it(tmp_path: Path) -> None:
    """The trial's code and a tuner of the user's own; what lay elsewhere stays where it is."""
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "elsewhere").mkdir()
    config: dict[str, Any] = load(written(project, ""), Overrides()).json()
    config["tuner"] = {"className": "mine.Good", "codeDirectory": str(project / "tuners"), "classArgs": {}}
    config["assessor"] = {"className": "other.Good", "codeDirectory": str(tmp_path / "elsewhere"), "classArgs": {}}
    (project / "tuners").mkdir()
    fake.make(project / "nni-experiments" / "abc", [], config)
    moved = project.rename(tmp_path / "moved")
    stored = _stored(moved / "nni-experiments" / "abc")
    assert stored.trial_code_directory == stored.training_service.trial_code_directory == str(moved)
    assert stored.tuner.code_directory == str(moved / "tuners")
    assert stored.assessor.code_directory == str(tmp_path / "elsewhere")


def test_an_experiment_of_which_nni_kept_no_config_is_refused_in_a_sentence(tmp_path: Path) -> None:
    experiment = fake_experiments.make(tmp_path / "made", [{"accuracy": 0.5}])
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        connection.execute("delete from ExperimentProfile")
    with pytest.raises(RequestError, match="cannot go on: NNI has kept no whole config of it"):
        load_stored(experiment, Overrides())


@given(
    st.sampled_from(
        ["--epochs 8", "--epochs=8", "--no-flip", "--flip", "--batch_size 4", "--batch-size  4", "--lr 1e-3"]
    ),
    st.sampled_from([{"epochs": 3}, {"flip": True}, {"flip": False}, {"batch_size": 16}, {"lr": 0.5}, {"seed": 2}]),
)
def test_an_option_of_the_command_is_replaced_and_no_other_is_touched(written: str, given_now: dict[str, Any]) -> None:
    config = SimpleNamespace(search_space={}, trial_command=f"python trial.py {written} --translate 2")
    before, _ = command_hparams(config.trial_command)
    _apply_hparams(given_now, config)
    after, others = command_hparams(config.trial_command)
    assert after == {**before, **given_now}
    assert others == ["python", "trial.py"]
    (name,) = given_now
    assert len(re.findall(rf"--(?:no-)?{name.replace('_', '[-_]')}", config.trial_command)) == 1
