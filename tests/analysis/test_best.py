from __future__ import annotations

import json
import multiprocessing
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest
from conftest import MakeFolder
from filelock import FileLock

from cifar.analysis import retrain
from cifar.analysis.best import Budget, best
from cifar.analysis.retrain import Trainer
from cifar.data import datasets, test_log
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.training.hparams import Hparams
from cifar.trials import layout
from cifar.trials.result import Result
from cifar.trials.run import run_trial

SEEDS = 2
BUDGET = Budget(SEEDS)


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
            {"accuracy": 0.5, "params": params, "fingerprints": digits},
        ],
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


def test_the_leaders_are_trained_again_and_the_winner_is_tested_once(
    experiment: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert best(experiment, "digits", BUDGET, None, force=False) == 0
    digits = datasets.load("digits")
    two_ties, finals = [len(datasets.split(digits).train)] * 4, [len(digits.labels)] * 2
    assert trainings == two_ties + finals
    record = json.loads((experiment / "best.json").read_text())
    assert set(record["candidates"]) == {"trial0", "trial1"}
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
        "validation": record["candidates"][record["winner"]]["mean"],
        "test": reading["accuracies"][0],
    }
    assert "test images read in this experiment: of digits once" in capsys.readouterr().out


def test_what_is_trained_is_not_trained_again_and_each_reading_counts(experiment: Path, trainings: list[int]) -> None:
    best(experiment, "digits", BUDGET, None, force=False)
    first = json.loads((experiment / "best.json").read_text())
    trainings.clear()
    with pytest.raises(RequestError, match="--force replaces it, and reads the test images once more"):
        best(experiment, "digits", BUDGET, None, force=False)
    best(experiment, "digits", BUDGET, None, force=True)
    assert trainings == []
    assert json.loads((experiment / "best.json").read_text()) == first
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
    assert len(trainings) == 6


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
    assert len(record["candidates"]) == 2
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
    assert json.loads((experiment / "best.json").read_text())["winner"] == "trial1"


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
    assert "error: no leading trial trains again" in capsys.readouterr().err


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
    trial = {"accuracy": 0.8, "params": {"width": 4.0, "lr": 0.01}, "epochs": 1, "fingerprints": digits}
    experiment = fake.make(tmp_path / "made", [trial])
    assert best(experiment, "digits", Budget(2, final_epochs=3), None, force=False) == 0
    saved = model_file.load(experiment / "best.safetensors")
    assert (saved.hparams.epochs, saved.hparams.images_per_epoch) == (3, 0)
    assert list(saved.accuracy) == ["test"]  # the validation accuracy is of other trainings
    assert "trained on the validation images too, for 3 epochs of all images" in capsys.readouterr().out
    assert json.loads((experiment / "best.json").read_text())["final_epochs"] == 3


def test_two_at_once_do_not_disturb_each_other(experiment: Path) -> None:
    (experiment / "confirmed").mkdir()
    with FileLock(experiment / "confirmed" / ".lock"), pytest.raises(RequestError, match="another cifar best"):
        best(experiment, "digits", BUDGET, None, force=False)
