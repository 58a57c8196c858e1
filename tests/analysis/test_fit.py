from __future__ import annotations

import html
import itertools
import json
import math
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_experiments as fake
import numpy as np
import pytest
import yaml
from experiments import Search, nothing_is_left, project_config
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar.analysis import answer as answers
from cifar.analysis import fit, next_steps
from cifar.analysis.configurations import Configuration
from cifar.analysis.fit import Clock
from cifar.data import datasets
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.search import config
from cifar.search.budget import fitted as fitted_budget
from cifar.search.budget import of_trial
from cifar.search.concurrency import Choice
from cifar.search.config import Overrides
from cifar.search.forecast import Throughput
from cifar.training.hparams import Hparams
from cifar.trials import layout, store

IMAGES = len(datasets.split(datasets.load("digits")).train)
DIGITS = {"fingerprint": datasets.load("digits").fingerprint}
OWN_SPACE = {**fake.SPACE, "width": {"_type": "qloguniform", "_value": [2, 64, 2]}}  # in which nothing becomes wider
WITH_DEFAULTS = {
    "className": "cifar.search.guided_tpe.GuidedTpe",
    "classArgs": {"defaults": {"lr": 0.001, "width": 6.0}},
}
QUICK = {"trialCommand": "python3 trial.py --batch-size 64 --epochs 2", "trialConcurrency": 2}


def made(directory: Path, *trials: tuple[float, float, int], **config: Any) -> Path:
    """Trials of the digits with these accuracies, learning rates and widths."""
    described = [
        {"accuracy": accuracy, "params": {"lr": lr, "width": float(width)}, "fingerprints": DIGITS}
        for accuracy, lr, width in trials
    ]
    return fake.make(directory, described, QUICK | config)


def with_seconds(experiment: Path, *seconds: float) -> None:
    for number, some in enumerate(seconds):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": some}))


@given(st.floats(1, 1e5), st.integers(1, 64), st.floats(1e-6, 1.0), st.floats(0.0, 30.0), st.integers(10, 10**6))
def test_trials_fit_into_the_time_of_a_search(
    seconds: float, at_once: int, image_seconds: float, beside: float, images: int
) -> None:
    measured = Throughput(at_once, beside + 2 * images * image_seconds, 0.1, 10**9, beside)
    trial, trials = of_trial(seconds, measured, 2 * images, images)
    per_epoch = trial.images_per_epoch or images
    assert 4 <= trial.epochs <= 16
    assert min(500, images) <= per_epoch <= images
    each = beside + 1.5 * trial.epochs * per_epoch * image_seconds
    assert trials * each <= seconds * at_once * 1.000001
    if trial.epochs * per_epoch > 4 * min(500, images):
        assert trials >= 29


def test_too_little_time_is_refused_with_the_time_that_would_do() -> None:
    """Trials of two epochs of 2,000 images take 40 s and 1 s beside them: of 500 images in four epochs half as long."""
    ready = SimpleNamespace(trial_command="python3 trial.py --epochs 2")
    choice = Choice(2, {}, Throughput(2, 41.0, 90.0, 10**9, 1.0))
    message = (
        "10 s of search are too few: there would be 0 trials of 4 epochs of 500 images, "
        "and fewer than 8 teach nothing; 6 min in all would do"
    )
    with pytest.raises(RequestError, match=f"^{message}$"):
        fitted_budget(ready, choice, 45.0, 20.0, 2_000)  # of the 25 s that are left


@pytest.mark.parametrize(("limit", "searches"), [(1000.0, 100), (110.0, 22), (70.0, None)])
def test_the_search_of_fast_is_short_and_longer_where_it_would_be_too_few_trials(
    limit: float, searches: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a trial of 500 images in each of four epochs, which takes 4 s, a search becomes 2 s longer."""
    monkeypatch.setattr("cifar.search.config.changed", lambda ready, **_: ready)
    ready = SimpleNamespace(trial_command="python3 trial.py --model fast --epochs 2")
    choice = Choice(2, {}, Throughput(2, 2 * 2_000 * 0.001 + 1.0, 90.0, 10**9, 1.0))
    if searches is None:
        with pytest.raises(RequestError, match="teach nothing"):
            fitted_budget(ready, choice, limit, 0.0, 2_000)
    else:
        assert fitted_budget(ready, choice, limit, 0.0, 2_000).max_experiment_duration == f"{searches}s"


def test_a_search_without_a_finished_trial_ends_with_a_sentence(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.1, "status": "diverged", "fingerprints": DIGITS}], QUICK)
    Clock(60.0, searched=True).write(experiment)
    assert fit.go_on(experiment, "digits") == 1


def test_the_best_is_confirmed_beside_the_defaults_and_trains_for_the_rest_of_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar.analysis.fit.seconds_here", lambda: 1.0)  # this process has run for long
    experiment = made(tmp_path / "made", (0.5, 0.001, 6), (0.8, 0.003, 16), tuner=WITH_DEFAULTS, searchSpace=OWN_SPACE)
    with_seconds(experiment, 0.3, 0.4)
    Clock(30.0, used=21.0, searched=True).write(experiment)
    assert fit.go_on(experiment, "digits") == 0
    said = capsys.readouterr()
    assert "confirming trial 1 and the defaults (2 epochs of all images), each with 2 new seeds" in said.err
    last = r"training trial 1( at width \d+)? \(\d+ epochs of [\d,]+ images\) with 2 new seeds, on all images"
    assert re.search(last, said.err)
    assert "\nat the search's budget:\n" in "\n" + said.out
    assert "winner: trial 1" in said.out
    tested = r"^test accuracy on digits: .*, trained on the validation images too, \d+ epochs of [\d,]+ images$"
    assert re.search(tested, said.out, re.MULTILINE)
    gain = r"^gain over the defaults: \+\d.* points .*2 new seeds, validation images, after 2 epochs of all images\)"
    assert re.search(gain, said.out, re.MULTILINE)
    clock, answer = Clock.read(experiment), json.loads(layout.answer(experiment).read_text())
    assert clock.used == 22.0
    assert clock.rivals is not None and [some.id for some in clock.rivals] == ["trial1", "defaults"]
    assert clock.last is not None and clock.last.id == "trial1"
    assert clock.last.hparams.lr < 0.003  # smaller steps for a longer training
    model = model_file.load(layout.best_model(experiment))
    assert model.hparams.epochs == answer["final_epochs"] > 2
    assert model.hparams == replace(clock.last.hparams, seed=1000)
    page = " ".join((experiment / "report.html").read_text().split())
    assert f"Trained {model.hparams.epochs} epochs on the validation images too, then tested once." in page
    assert "network net, 2 trials in " in page
    assert "its tuner begins with the defaults and near them" in page
    assert "took 22 s of 30 s" in said.out
    assert len(answer["tests"]) == 1
    with pytest.raises(RequestError, match="experiment made already has an answer"):  # nor are test images read again
        fit.go_on(experiment, "digits")


def test_where_the_confirmation_says_otherwise_the_defaults_have_the_rest_of_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this rate and so small batches a network hardly learns, whatever its trial was told to have reached."""
    monkeypatch.setattr("cifar.analysis.fit.seconds_here", lambda: 1.0)
    experiment = made(tmp_path / "made", (0.5, 0.001, 6), (0.9, 0.03, 12), tuner=WITH_DEFAULTS, searchSpace=OWN_SPACE)
    with_seconds(experiment, 0.3, 0.3)
    Clock(30.0, used=25.0, searched=True).write(experiment)
    assert fit.go_on(experiment, "digits") == 0
    said = capsys.readouterr()
    assert "confirming trial 1 and the defaults" in said.err
    assert "winner: the defaults" in said.out
    assert re.search(r"^gain over the defaults: -\d.*: use the defaults$", said.out, re.MULTILINE)
    clock = Clock.read(experiment)
    assert clock.last is not None and clock.last.id == "defaults"


def test_the_defaults_train_alone_where_an_earlier_run_has_decided_so_and_no_gain_is_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar.analysis.fit.seconds_here", lambda: 1.0)
    wider = Configuration("defaults", "the defaults at width 8", Hparams(width=8, epochs=2), {"lr": 0.001, "width": 8})
    monkeypatch.setattr("cifar.analysis.fit.Plans", lambda *_: pytest.fail("an earlier run has decided"))
    monkeypatch.setattr("cifar.analysis.fit.measured_speed", lambda *_: pytest.fail("there is nothing to measure for"))
    experiment = made(tmp_path / "made", (0.70, 0.001, 6), (0.701, 0.002, 6), tuner=WITH_DEFAULTS)
    Clock(30.0, used=25.0, searched=True, rivals=[], last=wider).write(experiment)
    assert fit.go_on(experiment, "digits") == 0
    said = capsys.readouterr()
    assert (
        said.err.count("training the defaults at width 8 (2 epochs of all images) with 2 new seeds, on all images") == 1
    )
    assert "confirming" not in said.err
    assert "winner: the defaults at width 8 (lr 0.001, width 8), since no other is likely to be better\n" in said.out
    assert "trained on the validation images too, 2 epochs of all images\n" in said.out
    assert (
        "gain over the defaults: none, as no other configuration is likely to be better: use the defaults" in said.out
    )
    assert " validation images" not in said.out.split("winner: ")[0]
    page = " ".join((experiment / "report.html").read_text().split())
    assert "the recipe's defaults</p>" in html.unescape(page)
    assert "trials no other is likely to be better.<" in page
    assert "Trained 2 epochs on the validation images too, then tested once." in page
    answer = answers.read(experiment)
    assert answer is not None and answer["candidates"] == {} and answer["useless"] == ""
    assert answer["seconds_of_best"] > 0
    kept = model_file.load(layout.best_model(experiment))
    assert kept.hparams == replace(wider.hparams, seed=1000)
    assert "configuration_validation_accuracy" not in kept.accuracy


def test_a_search_that_is_interrupted_when_its_time_is_used_is_over(tmp_path: Path) -> None:
    used = {True: "60s", False: "61s"}  # the made experiment has run for a minute
    for over, most in used.items():
        experiment = made(tmp_path / f"made{most}", (0.5, 0.001, 6), maxExperimentDuration=most)
        assert fit._search_is_over(experiment) == over


def test_pictures_that_have_changed_since_the_search_are_refused(tmp_path: Path) -> None:
    described = {"accuracy": 0.5, "params": {"lr": 0.001, "width": 6.0}, "fingerprints": {"fingerprint": "other"}}
    experiment = fake.make(tmp_path / "made", [described], QUICK)
    Clock(60.0, searched=True).write(experiment)
    with pytest.raises(RequestError, match="the data have changed since trial 0"):
        fit.go_on(experiment, "digits")


def test_an_interrupt_of_the_report_leaves_the_answer_and_says_how_the_report_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cifar.analysis.fit._finish", lambda *_: 0)
    monkeypatch.setattr("cifar.analysis.fit._report", interrupted)
    experiment = made(tmp_path / "made", (0.5, 0.001, 6))
    Clock(60.0, searched=True).write(experiment)
    with pytest.raises(KeyboardInterrupt):
        fit.go_on(experiment, "digits")
    assert capsys.readouterr().err == "the answer is kept; the report comes by: cifar report made\n"


def test_what_nni_says_when_it_cannot_start_is_not_replaced(home: Path) -> None:
    command = Search(
        home,
        ("fit", "--config", str(home / "config.yml"), "--time-limit", "3m"),
        {"CIFAR_DATA": "digits", "NODE_OPTIONS": "--nope"},
    )
    assert command.wait() == 2
    assert command.err.splitlines()[-1].startswith("error: NNI could not start the experiment: ")


def test_what_was_begun_without_a_time_limit_is_not_resumed_by_fit(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="experiment made was not begun by cifar fit: use cifar best"):
        Clock.read(made(tmp_path / "made", (0.5, 0.01, 6)))


def test_a_clock_is_read_as_it_was_written_and_another_version_is_told(tmp_path: Path) -> None:
    trial = Configuration("abc", "trial 3", Hparams(width=12, lr=0.03), {"width": 12.0, "lr": 0.03}, 0.5)
    defaults = Configuration("defaults", "the defaults", Hparams(), {"width": 6, "lr": 0.001})
    for rivals, last in ((None, None), ([], defaults), ([trial, defaults], None), ([trial, defaults], trial)):
        clock = Clock(1800.0, 12.5, True, rivals, last)
        clock.write(tmp_path)
        assert Clock.read(tmp_path) == clock
    layout.fit(tmp_path).write_text('{"limit": 60, "used": 1, "searched": true, "final": null}')
    with pytest.raises(RequestError, match="is of another version: KeyError"):
        Clock.read(tmp_path)


def fitted(home: Path, *arguments: str) -> Search:
    return Search(home, ("fit", "--config", str(home / "config.yml"), *arguments), {"CIFAR_DATA": "digits"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    config = project_config(tmp_path, "python3 trial.py --schedule triangular")
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["--time-limit", "soon"],
            "error: --time-limit must be a number above 0 with a unit, as 90s, 30m, 2h or 1d, got",
        ),
        (["--time-limit", ""], "error: --time-limit must be a number above 0 with a unit"),
        (["--time-limit", "29s"], "error: --time-limit must be at least 30s, got 29s: to measure takes nearly that"),
        (["--resume", "abc", "--time-limit", "1m"], "error: --time-limit cannot change when a fit is resumed"),
        (["--start-from", "width=900"], "error: --start-from width=900: width must be from 4 to 32 to be searched"),
        (["--metric", "f1"], "error: --metric must be one of accuracy, balanced_accuracy, got 'f1'"),
    ],
)
def test_a_mistake_is_one_sentence_and_starts_nothing(home: Path, arguments: list[str], problem: str) -> None:
    command = fitted(home, *arguments)
    assert command.wait() == 2
    assert command.err.splitlines()[-1].startswith(problem)
    assert not list(home.glob("experiments/*/db"))


@pytest.mark.slow
def test_a_folder_whose_test_pictures_would_say_nothing_is_refused_before_the_search(home: Path) -> None:
    chance = np.random.default_rng(0)
    for name, number in itertools.product(("train/cat", "train/dog", "test/cat"), range(40)):
        path = home / "pictures" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != "test/cat" or number == 0:
            Image.fromarray(chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    command = fitted(home, "--data", str(home / "pictures"), "--time-limit", "2m")
    assert command.wait() == 2
    assert "has 1 test images; an interval needs at least 2" in command.err.splitlines()[-1]
    assert not list(home.glob("experiments/*"))


@pytest.mark.slow
def test_it_ends_in_time_also_where_it_is_interrupted_and_resumed(home: Path) -> None:
    command = fitted(home, "--time-limit", "60s", "--seed", "1")
    command.wait_until_ended(5)
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 130
    experiment = command.directory
    assert f"resume with: cifar fit --resume {experiment.name}" in command.err
    resumed = fitted(home, "--resume", experiment.name)
    resumed.wait_for("with 2 new seeds")
    resumed.process.send_signal(signal.SIGINT)
    assert resumed.wait() == 130
    assert "what is trained is kept" in resumed.err
    again = fitted(home, "--resume", experiment.name)
    assert again.wait() == 0, again.err
    assert "\ngain over the defaults: " in again.out
    assert layout.best_model(experiment).exists()
    assert math.isclose(Clock.read(experiment).used, 60.0, abs_tol=20.0)
    assert nothing_is_left(home)


def test_the_time_of_a_run_that_was_killed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "seconds_here", lambda: 4.0)
    Clock(100.0, used=10.0, since=1000.0).write(tmp_path)
    os.utime(layout.fit(tmp_path), (1030.0, 1030.0))
    with fit._counted(tmp_path):
        assert Clock.read(tmp_path).used == 40.0
    ended = Clock.read(tmp_path)
    assert (ended.used, ended.since) == (44.0, None)
    with fit._counted(tmp_path):
        assert Clock.read(tmp_path).used == 44.0


def test_a_run_shows_until_when_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_TOUCH_SECONDS", 0.01)
    Clock(100.0).write(tmp_path)
    with fit._counted(tmp_path):
        os.utime(layout.fit(tmp_path), (1.0, 1.0))
        ends = time.monotonic() + 60
        while layout.fit(tmp_path).stat().st_mtime == 1.0 and time.monotonic() < ends:
            time.sleep(0.01)
        assert layout.fit(tmp_path).stat().st_mtime > 1.0


def test_a_grid_search_is_not_advised_to_go_on(tmp_path: Path) -> None:
    for tuner, goes_on in (("TPE", True), ("GridSearch", False)):
        experiment = made(tmp_path / tuner, (0.5, 0.01, 8), (0.6, 0.02, 8), tuner={"name": tuner})
        steps = next_steps.after_search(experiment, store.read_trials(experiment), None)
        assert any("--resume" in command for command, _ in steps) == goes_on
        assert steps[0][0].startswith("cifar best")


def test_a_fit_leaves_out_the_limits_of_a_config(tmp_path: Path) -> None:
    """Two points are fewer than its 40 trials, which are not to be."""
    described = project_config(tmp_path, "python3 trial.py --epochs 1")
    del described["searchSpaceFile"]
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(described | {"searchSpace": {"width": {"_type": "choice", "_value": [6, 8]}}}))
    with pytest.raises(RequestError, match="fewer than the"):
        config.load(path, Overrides())
    loaded = config.load(path, Overrides(), has_limits=False)
    assert (loaded.max_trial_number, loaded.max_experiment_duration) == (None, None)
