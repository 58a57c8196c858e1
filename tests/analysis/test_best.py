from __future__ import annotations

import json
import multiprocessing
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_experiments as fake
import numpy as np
import pytest
from conftest import MakeFolder
from filelock import FileLock
from PIL import Image

from cifar import console
from cifar.analysis import answer, retrain
from cifar.analysis.best import Budget, best
from cifar.analysis.final_test import FinalTest
from cifar.analysis.retrain import Trainer
from cifar.data import datasets, test_log
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.training.defaults import for_budget
from cifar.training.hparams import Hparams
from cifar.trials import layout
from cifar.trials.predictions import Predictions
from cifar.trials.result import Result
from cifar.trials.run import run_trial

SEEDS = 2
BUDGET = Budget(SEEDS)
FITTED_LR = for_budget(
    {"epochs": 2}, len(datasets.split(datasets.load("digits")).train)
).lr  # of the defaults, on the digits
TWO_EPOCHS = {"trialCommand": "python3 trial.py --epochs 2"}
QUICK_DEFAULTS = {"trialCommand": "python3 trial.py --batch-size 64 --epochs 1"}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two trials that tie, and a worse one, on the digits."""
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    params = {"width": 4.0, "lr": 0.01}
    return fake.make(
        tmp_path / "made",
        [
            {"accuracy": 0.8, "params": params, "epochs": 1, "fingerprints": digits},
            {"accuracy": 0.799, "params": params | {"width": 6.0}, "epochs": 1, "fingerprints": digits},
            {"accuracy": 0.5, "params": params | {"width": 8.0}, "fingerprints": digits},
        ],
        QUICK_DEFAULTS,
    )


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each training had."""
    images, really = list[int](), run_trial

    def counted(hparams: Any, dataset: Any, splits: Any, *others: Any) -> Any:
        assert hparams.seed in (1000, 1001)  # 0 was the search's own, in which the leaders were lucky
        images.append(len(splits.train))
        return really(hparams, dataset, splits, *others)

    monkeypatch.setattr(retrain, "run_trial", counted)
    return images


def test_the_leaders_and_the_defaults_are_trained_again_and_the_winner_is_tested_once(
    experiment: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    digits = datasets.load("digits")
    ties_and_defaults, finals = [len(datasets.split(digits).train)] * 6, [len(digits.labels)] * 2
    assert trainings == ties_and_defaults + finals
    record = json.loads((experiment / "best.json").read_text())
    assert set(record["candidates"]) == {"trial0", "trial1", "defaults"}
    highest = max(record["candidates"], key=lambda name: record["candidates"][name]["mean"])
    assert record["winner"] == (highest if record["gain"]["mean"] > 0 else "defaults")
    (test,) = record["tests"]
    assert test["images"] == len(datasets.load_test("digits").labels)
    assert sum(map(sum, test["confusion"])) == SEEDS * test["images"]
    right = sum(test["confusion"][label][label] for label in range(10))
    assert test["mean"] == pytest.approx(right / (SEEDS * test["images"]))
    (reading,) = test_log.read(layout.test_log(experiment))
    assert reading["trial"] == record["winner"]
    assert sum(reading["accuracies"]) / SEEDS == pytest.approx(test["mean"])
    saved = model_file.load(experiment / "best.safetensors")
    assert saved.accuracy == {
        "configuration_validation_accuracy": record["candidates"][record["winner"]]["mean"],
        "configuration_test_accuracy": test["mean"],
        "test_accuracy": reading["accuracies"][0],
    }
    assert "test images read in this experiment: digits once" in capsys.readouterr().out


def test_what_is_trained_is_not_trained_again_and_each_reading_counts(experiment: Path, trainings: list[int]) -> None:
    best(experiment, "digits", BUDGET, None, force=False)
    first = json.loads((experiment / "best.json").read_text())
    trainings.clear()
    with pytest.raises(RequestError, match="--force replaces it, and reads the test images once more"):
        best(experiment, "digits", BUDGET, None, force=False)
    best(experiment, "digits", BUDGET, None, force=True)
    assert trainings == []
    again = json.loads((experiment / "best.json").read_text())
    for record in (first, again):
        record.pop("seconds_of_best"), record.pop("checksum")
    assert again == first
    assert len(test_log.read(layout.test_log(experiment))) == 2


def test_after_an_interruption_it_goes_on(
    experiment: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Callable[..., Any] = vars(retrain)["run_trial"]

    def interrupted(*arguments: Any) -> Any:
        return counted(*arguments) if len(trainings) < 2 else (Result("interrupted", "by Ctrl-C"), None)

    monkeypatch.setattr(retrain, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        best(experiment, "digits", BUDGET, None, force=False)
    assert test_log.read(layout.test_log(experiment)) == []
    monkeypatch.setattr(retrain, "run_trial", counted)
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert len(trainings) == 8


def ran_two_at_once(experiment: Path) -> None:
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as connection, connection:
        connection.execute("update ExperimentProfile set params = json_set(params, '$.trialConcurrency', 2)")


@pytest.mark.slow
def test_as_many_train_at_once_as_in_the_search(
    experiment: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran_two_at_once(experiment)
    monkeypatch.setattr(Trainer, "train_missing", lambda *_: None)  # by this process: its helper does all
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert trainings == []
    record = json.loads((experiment / "best.json").read_text())
    assert len(record["candidates"]) == 3
    assert record["tests"][0]["mean"] > 0.3


@pytest.mark.slow
def test_an_interruption_ends_those_who_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.8, "params": {"width": 4.0, "lr": 0.01}, "epochs": 1000, "fingerprints": digits}
    experiment = fake.make(tmp_path / "long", [trial])
    ran_two_at_once(experiment)

    def interrupted(*_: Any) -> None:
        while not list(experiment.glob("confirmed/*/checkpoint.pt")):  # the helper is in the middle
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train_missing", interrupted)
    with pytest.raises(KeyboardInterrupt):
        best(experiment, "digits", BUDGET, None, force=False)
    assert multiprocessing.active_children() == []
    assert list(experiment.glob("confirmed/*/result.json")) == []


def test_another_folder_is_tested_beside_the_first(experiment: Path, make_folder: MakeFolder) -> None:
    best(experiment, "digits", BUDGET, str(make_folder({"7": 3, "1": 2})), force=False)
    first, second = json.loads((experiment / "best.json").read_text())["tests"]
    assert (first["data"], second["data"]) == ("digits", "pictures")
    assert second["images"] == 5
    of_each_class = [sum(row) // SEEDS for row in second["confusion"]]
    assert of_each_class == [0, 2, 0, 0, 0, 0, 0, 3, 0, 0]  # numbered as in the model
    assert len(test_log.read(layout.test_log(experiment))) == 2


def test_a_leader_that_diverges_with_another_seed_is_no_winner(
    experiment: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: Callable[..., Any] = vars(retrain)["run_trial"]
    diverged = list[int]()

    def narrow_diverges(hparams: Any, *others: Any) -> Any:
        if hparams.width == 4:
            diverged.append(hparams.seed)
            return Result("diverged", "training loss is nan"), None
        return counted(hparams, *others)

    monkeypatch.setattr(retrain, "run_trial", narrow_diverges)
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert "trial 0 is out: training again with seed 1000 ended diverged" in capsys.readouterr().err
    assert diverged == [1000, 1001]  # and not again when their trial's turn comes
    assert set(json.loads((experiment / "best.json").read_text())["candidates"]) == {"trial1", "defaults"}


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["trial0-seed1000/training.json", "trial0-seed1000/validation.npz"])
def test_what_was_left_damaged_is_trained_again(experiment: Path, trainings: list[int], damaged: str) -> None:
    best(experiment, "digits", BUDGET, None, force=False)
    first = json.loads((experiment / "best.json").read_text())
    trainings.clear()
    for name in (damaged, f"{first['winner']}-final-seed1000/model.safetensors"):
        path = experiment / "confirmed" / name
        path.write_bytes(path.read_bytes()[:20])
    best(experiment, "digits", BUDGET, None, force=True)
    assert len(trainings) == 2
    assert json.loads((experiment / "best.json").read_text())["candidates"] == first["candidates"]


def test_pictures_that_the_networks_know_are_no_test(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = str(make_folder({"cat": 20, "dog": 20}))
    known = {"fingerprint": datasets.load(folder).fingerprint}
    experiment = fake.make(tmp_path / "known", [{"accuracy": 0.8, "fingerprints": known}])
    with pytest.raises(RequestError, match=r"32 of the 40 pictures in .* are among those that the networks"):
        best(experiment, folder, BUDGET, folder, force=False)


def test_a_training_that_fails_ends_it_with_its_reason(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retrain, "run_trial", lambda *_: (Result("diverged", "training loss is nan"), None))
    assert best(experiment, "digits", BUDGET, None, force=False) == 1
    assert "error: no leading trial could be trained again" in capsys.readouterr().err


def test_what_cannot_be_confirmed_is_refused_before_training(
    experiment: Path, trainings: list[int], make_folder: MakeFolder, tmp_path: Path
) -> None:
    strange, other_data = str(make_folder({"7": 3, "whale": 2})), str(make_folder({"a": 20, "b": 20}, name="other"))
    for expected, arguments in {
        "classes that the experiment's data lack: whale": (experiment, "digits", BUDGET, strange),
        "no such folder": (experiment, "digits", BUDGET, "nowhere"),
        "the data have changed since trial 0": (experiment, other_data, BUDGET, None),
        "has finished": (fake.make(tmp_path / "empty", []), "digits", BUDGET, None),
    }.items():
        with pytest.raises(RequestError, match=expected):
            best(*arguments, force=False)
    assert trainings == []


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ((1,), "--seeds must be at least 2, got 1"),
        ((2, 0), "--final-epochs must be an integer from 1 to 100000, got 0"),
    ],
)
def test_a_budget_too_small_is_refused(budget: tuple[int, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Budget(*budget)


def test_final_networks_see_all_images_where_the_search_drew_fewer() -> None:
    searched = Hparams(epochs=5, images_per_epoch=20)
    longer = Budget(2, final_epochs=3).of_finals(searched)
    assert (longer.epochs, longer.images_per_epoch) == (3, 0)
    assert Budget(2).of_finals(searched) == searched


def test_the_final_networks_may_train_longer_than_the_searchs(
    tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.8, "params": {"width": 4.0, "lr": 0.001}, "epochs": 1, "fingerprints": digits}
    experiment = fake.make(tmp_path / "made", [trial], QUICK_DEFAULTS)
    assert best(experiment, "digits", Budget(2, final_epochs=9), None, force=False) == 0
    saved = model_file.load(experiment / "best.safetensors")
    assert (saved.hparams.epochs, saved.hparams.images_per_epoch) == (9, 0)
    record = json.loads((experiment / "best.json").read_text())
    assert record["final_epochs"] == 9
    # Two configurations at the search's budget, both again at the final one, and the winner on all images.
    assert len(trainings) == 2 * 2 + 2 * 2 + 2
    assert set(record["before"]) == set(record["candidates"]) == {"trial0", "defaults"}
    assert record["before"]["trial0"]["mean"] < record["candidates"]["trial0"]["mean"]
    assert saved.accuracy["configuration_validation_accuracy"] == record["candidates"][record["winner"]]["mean"]
    printed = capsys.readouterr().out
    assert "\ngain over the defaults: " in printed
    assert "\nthe defaults, here: width 6, lr " in printed or record["winner"] == "defaults"
    assert "at the search's budget:" in printed
    assert "at the final budget, 9 epochs of all images:" in printed


def test_at_the_final_budget_the_two_best_meet_the_defaults(
    experiment: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, long = vars(retrain)["run_trial"], set[int]()

    def noted(hparams: Any, *others: Any) -> Any:
        long.update([hparams.width] if hparams.epochs == 3 else [])
        return counted(hparams, *others)

    monkeypatch.setattr(retrain, "run_trial", noted)
    monkeypatch.setattr("cifar.analysis.best._FINAL_LEADERS", 1)
    assert best(experiment, "digits", Budget(2, final_epochs=3), None, force=False) == 0
    before = json.loads((experiment / "best.json").read_text())["before"]
    leader = max(("trial0", "trial1"), key=lambda name: before[name]["mean"])
    assert long == {{"trial0": 4, "trial1": 6}[leader], 6}  # the defaults are 6 channels wide


def test_where_the_defaults_are_best_they_are_the_answer(
    tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The only trial was lucky: its learning rate hardly moves."""
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.9, "params": {"width": 4.0, "lr": 1e-6}, "epochs": 1, "fingerprints": digits}
    command = {"trialCommand": "python3 trial.py --lr 0.01 --epochs 3"}
    experiment = fake.make(tmp_path / "lucky", [trial], command)
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^gain over the defaults: -.*: use the defaults$", printed, re.MULTILINE)
    assert "\nwinner: the defaults (width 6, lr 0.01), the highest mean" in printed
    saved = model_file.load(experiment / "best.safetensors").hparams
    assert (saved.lr, saved.epochs, saved.width) == (0.01, 3, 6)


def test_a_leader_that_is_the_defaults_is_not_trained_twice(
    tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.8, "params": {"width": 6.0, "lr": FITTED_LR}, "epochs": 1, "fingerprints": digits}
    experiment = fake.make(tmp_path / "default", [trial], TWO_EPOCHS)
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert len(trainings) == 4
    record = json.loads((experiment / "best.json").read_text())
    assert (record["winner"], record["gain"]) == ("defaults", None)
    assert "\ngain over the defaults: none, as no other configuration leads" in capsys.readouterr().out


def test_the_gain_of_others_is_told_where_one_of_the_leaders_is_the_defaults(
    tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    params = {"width": 6.0, "lr": FITTED_LR}
    trials = [
        {"accuracy": 0.8, "params": params, "epochs": 1, "fingerprints": digits},
        {"accuracy": 0.79, "params": params | {"width": 8.0}, "epochs": 1, "fingerprints": digits},
    ]
    experiment = fake.make(tmp_path / "two", trials, TWO_EPOCHS)
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    record = json.loads((experiment / "best.json").read_text())
    assert set(record["candidates"]) == {"defaults", "trial1"}
    assert record["gain"] is not None
    assert re.search(r"^the defaults +80\.0%", capsys.readouterr().out, re.MULTILINE)


def test_a_leader_that_the_search_repeated_is_one_configuration(tmp_path: Path, trainings: list[int]) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.8, "params": {"width": 4.0, "lr": 0.01}, "epochs": 1, "fingerprints": digits}
    again = trial | {"accuracy": 0.79}
    experiment = fake.make(tmp_path / "repeated", [trial, again], QUICK_DEFAULTS)
    path = layout.trial_directory(experiment, "trial1") / "result.json"
    result = json.loads(path.read_text())
    result["hparams"]["seed"] = 500_001
    path.write_text(json.dumps(result))
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert set(json.loads((experiment / "best.json").read_text())["candidates"]) == {"trial0", "defaults"}


def test_what_the_search_started_from_is_in_the_final_race(
    tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trials = [
        {"accuracy": accuracy, "params": {"width": width, "lr": 0.01}, "epochs": 1, "fingerprints": digits}
        for accuracy, width in ((0.95, 8.0), (0.3, 6.0), (0.4, 10.0))
    ]
    arguments = {"defaults": {"width": 4, "lr": 0.01}, "start_from": [{"width": 6}, {"width": 12, "lr": 1.0}]}
    tuner = {"className": "GuidedTpe", "classArgs": arguments}
    experiment = fake.make(tmp_path / "started", trials, {**QUICK_DEFAULTS, "tuner": tuner})
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert set(json.loads((experiment / "best.json").read_text())["candidates"]) == {"trial0", "trial1", "defaults"}
    said = "one trial leads: training it and trial 1, from which it started, and the defaults with"
    assert said in capsys.readouterr().err


def test_the_clock_of_an_interrupted_run_goes_on(experiment: Path) -> None:
    (experiment / "confirmed").mkdir()
    (experiment / "confirmed" / "seconds.json").write_text('{"seconds": 1000.0}')
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    record = json.loads((experiment / "best.json").read_text())
    assert record["seconds_of_search"] == 60  # as NNI's database has it
    assert 1000 < record["seconds_of_best"] < 1100


def test_near_duplicates_among_the_test_pictures_are_told(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder({"train/cat": 20, "train/dog": 20, "test/cat": 5, "test/dog": 5})
    with Image.open(folder / "train/cat/000.png") as picture:
        picture.point(lambda value: value // 2).save(folder / "test/cat/000.png")
    known = {"fingerprint": datasets.load(str(folder)).fingerprint}
    trial = {"accuracy": 0.8, "epochs": 1, "fingerprints": known}
    assert best(fake.make(tmp_path / "near", [trial], QUICK_DEFAULTS), str(folder), BUDGET, None, force=False) == 0
    assert "1 of the 10 test pictures nearly equal training pictures" in capsys.readouterr().err


def test_uneven_classes_have_a_balanced_accuracy_beside_it(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(make_folder({"train/cat": 60, "train/dog": 10, "test/cat": 12, "test/dog": 2}))
    known = {"fingerprint": datasets.load(folder).fingerprint}
    experiment = fake.make(tmp_path / "uneven", [{"accuracy": 0.8, "fingerprints": known}], QUICK_DEFAULTS)
    assert best(experiment, folder, BUDGET, None, force=False) == 0
    (test,) = json.loads((experiment / "best.json").read_text())["tests"]
    shares = [row[label] / sum(row) for label, row in enumerate(test["confusion"])]
    assert test["balanced_accuracy"]["mean"] == pytest.approx(sum(shares) / 2)
    assert "guessing the largest class would get an accuracy of 85.7%" in capsys.readouterr().out


def test_two_at_once_do_not_disturb_each_other(experiment: Path) -> None:
    (experiment / "confirmed").mkdir()
    with FileLock(experiment / "confirmed" / ".lock"), pytest.raises(RequestError, match="another cifar best"):
        best(experiment, "digits", BUDGET, None, force=False)


def test_an_answer_of_an_earlier_version_says_that_it_has_no_gain() -> None:
    earlier = {"winner": "mfT8r", "seeds": 3, "candidates": {}}
    assert answer.gain_text(earlier) == "gain over the defaults: not measured by the version that made this answer"


def test_a_winner_that_learned_nothing_is_called_that(
    experiment: Path,
    trainings: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: Callable[..., Any] = vars(retrain)["run_trial"]

    def constant(*arguments: Any) -> Any:
        result, trained = counted(*arguments)
        return result, replace(trained, predictions=trained.predictions * 0)

    monkeypatch.setattr(retrain, "run_trial", constant)
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    assert "warning: no network was found that beats guessing; give it more time" in capsys.readouterr().out


def test_on_a_narrow_terminal_a_confusion_matrix_is_narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("airplane", "automobile", "bird")
    predictions = [Predictions(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))]
    tested = FinalTest("photos", names, Hparams(), predictions)
    wide, narrow, narrowest = map(str, answer._confusion_tables(tested))
    assert wide.split()[:4] == [*names, "accuracy"]
    assert narrow.split()[:4] == ["airp", "auto", "bird", "accuracy"]
    assert narrowest.split()[:3] == ["accuracy", "airplane", "100.0%"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns, shown in ((80, wide), (45, narrow), (25, narrowest), (5, narrowest)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert console.first_that_fits(wide, narrow, narrowest) == shown
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert console.first_that_fits(wide, narrow, narrowest) == wide
