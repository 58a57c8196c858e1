"""The commands that read what a search left, as a user types them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import fake_experiments as fake
import pytest
import yaml

from cifar import __version__
from cifar.__main__ import main, search_of
from cifar.analysis import next_steps
from cifar.console import Parser
from cifar.data import datasets
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.options import COMMANDS
from cifar.search.plan import Request
from cifar.system.gpus import Gpu
from cifar.training.hparams import Hparams
from cifar.training.train import new_model

Cifar = Callable[..., tuple[int, str, str]]
TRIALS = [{"accuracy": 0.8}, {"accuracy": 0.5}]


@pytest.fixture
def cifar(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cifar:
    """Run a command in tmp_path: exit code, stdout, stderr. Experiments lie in tmp_path / "experiments"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cifar", command, *arguments, "--config", str(config_path)])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """Two, abc1 and abd2, and abd2 is the later one."""
    for name in ("abc1", "abd2"):
        fake.make(tmp_path / "experiments" / name, TRIALS)
    return tmp_path / "experiments"


def test_the_latest_experiment_is_meant_where_none_is_named(cifar: Cifar, experiments: Path) -> None:
    fake.make(experiments / "aaa3", [{"accuracy": 0.3}])
    code, out, _ = cifar("trials", "--format", "json")
    assert code == 0
    assert [trial["accuracy"] for trial in json.loads(out)] == [0.3]


def test_the_first_characters_of_an_id_are_enough(cifar: Cifar, experiments: Path) -> None:
    code, out, _ = cifar("trials", "abc")
    assert code == 0
    assert "80.0% ± 4.6%" in out


def test_a_leaderboard_waits_for_no_package_that_it_does_not_need(experiments: Path, config_path: Path) -> None:
    """Each of these takes longer to import than thousands of trials to list; scipy.special does not."""
    command = (
        f"import sys; from cifar.__main__ import main; sys.argv = ['cifar', 'trials', '--config', '{config_path}']"
    )
    heavy = "assert not {'torch', 'nni', 'scipy.stats', 'sklearn', 'pandas'} & {*sys.modules}, sys.modules"
    subprocess.run([sys.executable, "-c", f"{command}; main(); {heavy}"], check=True)


@pytest.mark.parametrize("command", ["trials", "best", "report"])
@pytest.mark.parametrize(
    ("name", "sentence"), [("ab", "fits several experiments"), ("zz", "no experiment 'zz'"), ("../x", "no experiment")]
)
def test_an_unknown_or_ambiguous_id_lists_those_that_there_are(
    cifar: Cifar, experiments: Path, command: str, name: str, sentence: str
) -> None:
    code, out, err = cifar(command, name)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "abc1, abd2" in err


@pytest.mark.parametrize("command", ["best", "report"])
def test_nothing_has_finished(cifar: Cifar, experiments: Path, command: str) -> None:
    fake.make(experiments / "new", [{"accuracy": 0.0, "status": "running"}])
    code, _, err = cifar(command, "new")
    assert code == 2
    assert err.startswith("error: no trial of experiment new has finished")


@pytest.mark.parametrize("command", ["trials", "best", "report"])
def test_a_damaged_database_is_named(cifar: Cifar, experiments: Path, command: str, tmp_path: Path) -> None:
    database = experiments / "abc1" / "db" / "nni.sqlite"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\0" * (len(content) - 4096))
    code, out, err = cifar(command, "abc1")
    assert (code, out) == (2, "")
    assert f"{database} is damaged" in err
    assert list(tmp_path.glob("report-*")) == []


def test_a_trial_whose_files_are_damaged_or_foreign_is_named_and_the_rest_counts(
    cifar: Cifar, experiments: Path
) -> None:
    trials = experiments / "abc1" / "environments" / "local-env" / "trials"
    (trials / "trial0" / "result.json").write_text('{"status": "ok", "rea')
    code, out, _ = cifar("trials", "abc1", "--format", "json")
    best, damaged = json.loads(out)
    assert (code, best["number"], damaged["number"]) == (0, 1, 0)
    assert "damaged or of another version" in damaged["reason"]
    whole = json.loads((trials / "trial1" / "result.json").read_text())
    for foreign in ({"outcome": "fine"}, whole | {"seconds": None}, whole | {"data": {}}):
        (trials / "trial0" / "result.json").write_text(json.dumps(foreign))
        _, out, _ = cifar("trials", "abc1")
        assert "damaged or of another version" in out


def test_hyperparameters_of_another_version_cannot_be_repeated(cifar: Cifar, experiments: Path) -> None:
    path = experiments / "abc1" / "environments" / "local-env" / "trials" / "trial0" / "result.json"
    result = json.loads(path.read_text())
    result["hparams"]["colour"] = "blue"
    path.write_text(json.dumps(result))
    code, _, err = cifar("best", "abc1")
    assert code == 2
    assert "trial 0 was run by another version" in err


def test_a_report_is_replaced_on_request_alone(cifar: Cifar, experiments: Path, tmp_path: Path) -> None:
    assert cifar("report", "abc1")[0] == 0
    report = tmp_path / "report-abc1.html"
    report.write_text("mine")
    code, _, err = cifar("report", "abc1")
    assert (code, report.read_text()) == (2, "mine")
    assert "report-abc1.html exists; --force replaces it" in err
    assert cifar("report", "abc1", "--force")[0] == 0
    assert report.read_text() != "mine"


@pytest.mark.parametrize(
    "damage",
    [
        "update TrialJobEvent set data = '{\"param' where data is not null",
        "alter table TrialJobEvent rename column sequenceId to number",
        "update ExperimentProfile set params = '{'",
    ],
)
def test_damage_within_the_database_is_named(cifar: Cifar, experiments: Path, damage: str) -> None:
    with closing(sqlite3.connect(experiments / "abc1" / "db" / "nni.sqlite")) as connection, connection:
        connection.execute(damage)
    code, _, err = cifar("report", "abc1")
    assert code == 2
    assert "nni.sqlite is damaged" in err


def test_a_damaged_ledger_is_named_before_anything_is_trained(cifar: Cifar, experiments: Path) -> None:
    (experiments / "abc1" / "test-readings.jsonl").write_text('{"when"')
    code, _, err = cifar("best", "abc1")
    assert code == 2
    assert "test-readings.jsonl is damaged" in err


def test_a_config_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cifar", "trials", "--config", "nowhere.yml"])
    assert main() == 2
    assert capsys.readouterr().err == "error: nowhere.yml: no such file\n"


@pytest.mark.parametrize(("gpus", "fast"), [([], "searches/fast"), ([Gpu("GPU-1", "", 0)], "searches/fast-gpu")])
def test_a_fit_begins_the_search_of_its_network(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], fast: str) -> None:
    monkeypatch.setattr("cifar.system.gpus.list_gpus", lambda: gpus)
    for model, directory in (("net", "."), ("lenet", "."), ("fast", fast)):
        found = search_of(Namespace(config=None, model=model))
        assert found == Path(directory, "config.yml")
        config = yaml.safe_load((Path(__file__).parents[1] / found).read_text())
        assert ("--model fast" in config["trialCommand"]) == (model == "fast")
    assert search_of(Namespace(config=Path("my.yml"), model="fast")) == Path("my.yml")
    assert search_of(Namespace(config=None)) == Path("config.yml")


def run_cifar(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code, of argparse's way out too."""
    monkeypatch.setattr(sys, "argv", ["cifar", *arguments])
    try:
        return main()
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_alone_it_shows_all_commands_in_groups_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cifar(monkeypatch) == 0
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert all(len(line) <= 80 for line in lines)
    shown = [line.split()[1] for line in lines if line.startswith("  cifar ")]
    assert shown == [command.name for group in COMMANDS.values() for command in group]
    assert [line for line in lines if line in COMMANDS] == [*COMMANDS]
    assert run_cifar(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"cifar-nni {__version__}\n"


@pytest.mark.parametrize("name", [command.name for group in COMMANDS.values() for command in group])
def test_each_command_has_help_with_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cifar(monkeypatch, name, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cifar {name} ")
    assert f"Example: cifar {name}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("serach",), "got 'serach'; did you mean search?"),
        (("search", "--max-trails", "3"), "there is no option --max-trails; did you mean --max-trials?"),
        (
            ("best", "--prefer", "acuracy"),
            "--prefer must be one of accuracy, speed, got 'acuracy'; did you mean accuracy?",
        ),
        (("trials", "abc", "extra"), "not understood: extra; --help shows what is"),
        (("--verson",), "there is no option --verson; did you mean --version?"),
    ],
)
def test_a_mistyped_word_is_answered_by_the_one_that_was_meant(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cifar(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith(f"{sentence}\n")
    assert error.count("\n") == 1


def test_the_list_has_all_experiments_the_latest_first_and_names_a_damaged_one(cifar: Cifar, experiments: Path) -> None:
    (experiments / "abc1" / "best.json").write_text("{}")
    for number, name in enumerate(("abc1", "abd2")):
        os.utime(experiments / name / "db" / "nni.sqlite", (1000 + number, 1000 + number))
    fake.make(experiments / "new3", [{"accuracy": 0.0, "status": "running"}])
    code, out, _ = cifar("list")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == ["experiment", "new3", "abd2", "abc1:"]
    assert lines[2].split()[1:7] == ["digits", "net", "2", "80.0%", "±", "4.6%"]
    assert "best.json is of another version" in lines[3]


def test_an_old_experiment_shows_its_year(cifar: Cifar, experiments: Path) -> None:
    with closing(sqlite3.connect(experiments / "abc1" / "db" / "nni.sqlite")) as connection, connection:
        connection.execute("update TrialJobEvent set timestamp = 1577880000000")
    lines = cifar("list")[1].splitlines()
    assert lines[-1].split()[-3:] == ["Jan", "01", "2020"]
    assert re.fullmatch(r"[A-Z][a-z]{2} \d\d \d\d:\d\d", " ".join(lines[1].split()[-3:]))


def test_what_is_said_of_the_time_of_best_is_about_its_own_seeds() -> None:
    command = Parser()
    next(some for some in COMMANDS["answer"] if some.name == "best").add_options(command)
    assert command.parse_args([]).seeds == next_steps._SEEDS


def test_a_list_without_experiments_says_how_to_begin_one(cifar: Cifar) -> None:
    assert cifar("list")[1].endswith("experiments; cifar search begins one\n")


def test_two_experiments_stand_side_by_side(cifar: Cifar, experiments: Path) -> None:
    fake.make(experiments / "low3", [{"accuracy": 0.5}, {"accuracy": 0.4}])
    code, out, _ = cifar("compare", "abc1", "low3")
    assert code == 0
    assert out.split()[:2] == ["abc1", "low3"]
    assert "leads the search trial 0 trial 0" in " ".join(out.split())
    assert out.splitlines()[-1].startswith("the best of abc1 is better, by 30.0 points ± ")
    same = cifar("compare", "abc1", "abd2")[1].splitlines()[-1]
    assert same.startswith("neither is shown to be better: they are 0.0 points ± ")


def test_experiments_of_other_data_are_not_compared(cifar: Cifar, experiments: Path) -> None:
    fake.make(experiments / "new3", [{"accuracy": 0.5, "fingerprints": {"fingerprint": "other"}}])
    assert "their accuracies do not compare" in cifar("compare", "abc1", "new3")[1]
    fake.make(experiments / "run4", [{"accuracy": 0.0, "status": "running"}])
    assert "nothing to compare" in cifar("compare", "abc1", "run4")[1]


def test_one_experiment_is_not_compared_with_itself(cifar: Cifar, experiments: Path) -> None:
    code, out, err = cifar("compare", "abc1", "abc")
    assert (code, out, err) == (2, "", "error: compare needs two experiments, got abc1 twice\n")


def test_to_look_at_an_experiment_does_not_make_it_the_latest(cifar: Cifar, experiments: Path) -> None:
    time.sleep(0.01)
    fake.make(experiments / "new3", [{"accuracy": 0.3}, {"accuracy": 0.2}])
    later = time.time() + 10_000
    for name in ("new3", "abc1"):  # whose database NNI's page has changed
        os.utime(experiments / name / "db" / "nni.sqlite", (later, later))
    assert cifar("trials")[2] == "experiment new3\n"
    assert cifar("list")[1].splitlines()[1].startswith("new3")


def test_a_model_file_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digits, hparams = datasets.load("digits"), Hparams(width=4, epochs=3)
    model_file.save(tmp_path / "my.pt", new_model(hparams, digits), hparams, digits, {"validation": 0.5})
    assert run_cifar(monkeypatch, "data", str(tmp_path / "my.pt")) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "a model: network net of width 4, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert out[1] == "trained on digits, 3 epochs; 32 x 32 pixels"
    assert out[2].startswith("pictures become pixels: upright as EXIF says; ")
    assert out[3:] == ["validation 50.0%"]


def test_an_archive_is_to_be_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos.ZIP").touch()
    for command in (["data", str(tmp_path / "photos.ZIP")], ["doctor", "--data", str(tmp_path / "photos.ZIP")]):
        assert run_cifar(monkeypatch, *command) == 2
        assert "photos.ZIP is an archive: unpack it, and name the folder" in capsys.readouterr().err


def test_a_difference_that_may_be_chance_is_called_that(cifar: Cifar, experiments: Path) -> None:
    fake.make(experiments / "less3", [{"accuracy": 0.79}, {"accuracy": 0.4}])
    assert (
        cifar("compare", "abc1", "less3")[1]
        .splitlines()[-1]
        .startswith("neither is shown to be better: they are 1.0 points ± ")
    )


@pytest.mark.parametrize(
    ("arguments", "config", "hparams"),
    [
        ((), "searches/fast/config.yml", {"model": "fast"}),
        (("--model", "net"), "config.yml", {"model": "net"}),
        (("--config", "my.yml"), "my.yml", {}),
    ],
)
def test_a_fit_searches_the_better_network_unless_told_otherwise(
    arguments: tuple[str, ...], config: str, hparams: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[Request]()

    def begin(request: Request, *_: object) -> None:
        begun.append(request)
        raise RequestError("no more is needed here")

    monkeypatch.setattr("cifar.analysis.fit.begin", begin)
    monkeypatch.setattr("cifar.system.gpus.list_gpus", list)
    assert run_cifar(monkeypatch, "fit", "--data", "digits", *arguments) == 2
    assert [(request.config_path, request.overrides.hparams) for request in begun] == [(Path(config), hparams)]
