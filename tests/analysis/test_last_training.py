from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar.analysis import training_time
from cifar.analysis.configurations import DEFAULTS, Configuration
from cifar.analysis.growth import growth_of
from cifar.analysis.last_training import Plans
from cifar.analysis.retrain import Failed, Trainer
from cifar.analysis.training_time import ImageSeconds
from cifar.data import datasets
from cifar.training.defaults import for_data
from cifar.training.hparams import Hparams
from cifar.trials import layout

DIGITS = datasets.load("digits")
IMAGES, VAL_IMAGES = (len(some) for some in (datasets.split(DIGITS).train, datasets.split(DIGITS).val))
ALL_IMAGES = IMAGES + VAL_IMAGES
TRAINS = IMAGES / (IMAGES + 0.5 * VAL_IMAGES)  # the share of a trial's seconds that is not validation
TUNER = {
    "className": "cifar.search.guided_tpe.GuidedTpe",
    "classArgs": {"defaults": {"lr": 0.001, "width": 6.0}},
}
TIME_OF_WIDTH = 1.75  # a power


def grown(width: float, _: float) -> float:
    return float(1e-9 * width**TIME_OF_WIDTH)  # less than its trial took


def in_time(experiment: Path, seconds: float, tests: int = 0, speed: ImageSeconds = grown) -> Configuration:
    """The last training, where what promises most is confirmed at once."""
    plans = Plans(experiment, DIGITS, tests, speed)
    return plans.last(plans.rival(seconds) or plans.defaults(seconds), seconds)


def shown(some: Configuration) -> int:
    """Images, in all epochs; the validation images are among them."""
    return some.hparams.epochs * some.hparams.epoch_images(ALL_IMAGES)


OWN_SPACE = {**fake.SPACE, "width": {"_type": "qloguniform", "_value": [2, 64, 2]}}


def made(directory: Path, *trials: tuple[float, float, int, float], **config: Any) -> Path:
    """Trials of the digits with these accuracies, learning rates, widths and seconds of two epochs."""
    described = [
        {"accuracy": accuracy, "params": {"lr": lr, "width": float(width)}} for accuracy, lr, width, _ in trials
    ]
    command = {"trialCommand": "python3 trial.py --batch-size 64 --epochs 2", "trialConcurrency": 2}
    experiment = fake.make(directory, described, {**command, "tuner": TUNER, **config})
    for number, (*_, seconds) in enumerate(trials):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    return experiment


@pytest.mark.parametrize(("at_once", "seconds"), [(1, 26.0), (2, 13.0), (3, 10.0), (4, 10.0)])
def test_trainings_side_by_side_take_so_long(at_once: int, seconds: float) -> None:
    assert training_time.makespan([10.0, 3.0], 2, at_once) == seconds


@given(st.floats(1, 1e9), st.integers(1, 10**6))
def test_a_budget_shows_about_as_many_images_as_there_is_time_for(shown: float, images: int) -> None:
    epochs, per_epoch = training_time.budget_of(shown, images)
    assert epochs >= 4
    assert 1 <= per_epoch <= images
    assert epochs * per_epoch <= max(shown, epochs)
    assert epochs * (per_epoch + 1) > shown * 0.999999


def test_with_little_time_a_quick_network_wins_over_a_slow_one_that_is_a_little_better(tmp_path: Path) -> None:
    trials = [(0.5, 0.001, 6, 5.0), (0.79, 0.02, 8, 10.0), (0.8, 0.02, 32, 100.0)]
    experiment = made(tmp_path / "made", *trials, searchSpace=OWN_SPACE)
    short, long = (in_time(experiment, seconds) for seconds in (150.0, 1e6))
    assert (short.id, long.id) == ("trial1", "trial2")
    assert shown(short) / IMAGES * (10 / 2) * TRAINS == pytest.approx(150.0, rel=0.01)
    enough = growth_of("net").enough(ALL_IMAGES)
    assert shown(long) == pytest.approx(enough, rel=0.02)  # and no more: there is enough time


def test_where_steps_take_longer_than_in_the_trial_there_are_fewer_of_them(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.8, 0.001, 6, 5.0), searchSpace=OWN_SPACE)
    for seconds in (1e-9, 2.5 / IMAGES, 4 / IMAGES):
        found = shown(in_time(experiment, 40.0, speed=lambda *_, seconds=seconds: seconds))
        expected = max(seconds, 2.5 * TRAINS / IMAGES)
        assert found * expected == pytest.approx(40.0, rel=0.01)


def test_with_time_to_spare_the_network_becomes_wider_unless_the_range_of_widths_is_ones_own(tmp_path: Path) -> None:
    trials = [(0.5, 0.001, 6, 5.0), (0.8, 0.02, 32, 10.0)]
    shipped, own = made(tmp_path / "shipped", *trials), made(tmp_path / "own", *trials, searchSpace=OWN_SPACE)
    wider, as_wide = (in_time(some, 1e6) for some in (shipped, own))
    assert (wider.id, wider.name) == ("trial1", "trial 1 at width 128")
    assert wider.hparams.width == wider.params["width"] == 128
    assert (as_wide.name, as_wide.hparams.width) == ("trial 1", 32)
    assert wider.hparams.lr < 0.02  # smaller steps for a longer training


def test_both_are_confirmed_as_wide_as_they_would_train_to_the_end(tmp_path: Path) -> None:
    """A narrow network that is to become wide is behind others in a short training."""
    plans = Plans(made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.9, 0.02, 32, 10.0)), DIGITS, 0, grown)
    for seconds, widths in ((1e6, (128, 48)), (0.0, (32, 6))):
        rival, beside = plans.rival(seconds), plans.defaults(seconds)
        assert rival is not None
        assert (rival.hparams.width, beside.hparams.width) == widths
        assert (rival.params["width"], beside.params["width"]) == widths
        assert (rival.hparams.epochs, beside.hparams.epochs) == (2, 2)
        assert [plans.last(some, seconds).hparams.width for some in (rival, beside)] == [*widths]
        found = None if seconds else 0.9  # which is of the trial's width
        assert (rival.name, rival.found) == (f"trial 1{' at width 128' if seconds else ''}", found)


def test_a_width_in_the_space_is_judged_by_the_trials_that_have_it(tmp_path: Path) -> None:
    """The rule promises the narrow one more; wide ones with its steps have shown less."""
    wide = [(0.55, lr, width, 5.0) for lr in (0.018, 0.02, 0.022) for width in (24, 28, 32)]
    narrow, tuner = [(0.7, 0.02, width, 5.0) for width in (8, 10)], {"name": "Random"}
    widths = []
    for trials in (narrow + wide, narrow):
        experiment = made(tmp_path / str(len(trials)), *trials, tuner=tuner)
        rival = Plans(experiment, DIGITS, 0, lambda *_: 1e-9).rival(1e6)
        assert rival is not None
        widths.append(rival.hparams.width)
    assert widths[0] <= 20 < widths[1]


def test_the_seconds_of_confirming_are_not_there_for_the_last_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 s the slow one, which is a little better, has 15 s to spend on that."""
    trials = [(0.5, 0.001, 6, 5.0), (0.79, 0.02, 8, 5.0), (0.8, 0.08, 8, 10.0)]
    plans = Plans(made(tmp_path / "made", *trials, searchSpace=OWN_SPACE), DIGITS, 0, lambda *_: 1e-9)
    quick, slow = plans.rival(60.0), plans.rival(90.0)
    assert quick is not None and quick.id == "trial1"
    assert slow is not None and slow.id == "trial2"
    monkeypatch.setattr(Plans, "_confirmation", lambda *_: 0.0)
    assert plans.rival(60.0) == slow


@pytest.mark.parametrize("tta", [False, True])
def test_the_validation_images_are_no_part_of_what_an_image_to_train_on_takes(tta: bool) -> None:
    splits = datasets.split(DIGITS)
    look = (1.0 if tta else 0.5) * len(splits.val)
    for per_epoch in (100, 1_000, IMAGES):
        hparams = Hparams(epochs=4, images_per_epoch=per_epoch, tta_flip=tta)
        seconds = 4 * (per_epoch + look) * 0.01
        found = training_time.image_seconds(seconds, 4, hparams, splits)
        assert found == pytest.approx(0.01)


def test_test_images_take_longer_where_training_is_in_bfloat16() -> None:
    rounded, exact = (Hparams(precision=precision) for precision in ("bfloat16", "float32"))
    looks = [training_time.looks_at_tests(some, torch.device("cpu")) for some in (rounded, exact)]
    assert looks == [2.5 * training_time.looks(rounded), training_time.looks(exact)]


def test_a_training_is_measured_beside_the_others_and_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(made(tmp_path / "made", (0.5, 0.001, 6, 1.0)) / "best", DIGITS, 3, 0)
    hparams = Hparams(model="fast", width=4, batch_size=50, epochs=2, images_per_epoch=20)
    here, measured = training_time._step_seconds, list[int]()

    def measure(*asked: Any) -> float:
        measured.append(len(multiprocessing.active_children()))
        return here(*asked)

    monkeypatch.setattr("cifar.analysis.training_time._step_seconds", measure)
    each = training_time.beside_each_other(trainer, hparams, trainings=2, seconds=0.5)
    assert measured == [1]
    assert 0 < each < here(trainer, hparams, 0.0)  # of an image, not of a step
    assert not multiprocessing.active_children()


def test_a_training_is_measured_though_the_other_one_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(made(tmp_path / "made", (0.5, 0.001, 6, 1.0)) / "best", DIGITS, 3, 0)
    trainer.dataset = replace(DIGITS, name=str(tmp_path / "gone"))
    hparams = Hparams(width=4, batch_size=50, epochs=2)
    assert training_time.beside_each_other(trainer, hparams, trainings=3, seconds=0.0) > 0
    assert not capfd.readouterr().err


def test_the_last_training_is_as_long_as_its_measured_speed_allows(tmp_path: Path) -> None:
    plans = Plans(made(tmp_path / "made", (0.9, 0.01, 6, 2.0), trialConcurrency=1), DIGITS, 0, grown)
    chosen = plans.rival(60.0) or plans.defaults(60.0)
    for each in (1e-3, 2e-3):
        assert shown(plans.last(chosen, 60.0, each)) == pytest.approx(60 / 2 / each, rel=0.001)


def test_the_time_for_the_test_images_is_kept(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.8, 0.02, 12, 5.0), searchSpace=OWN_SPACE)
    for tests, left in ((0, 100.0), (10 * IMAGES, 100.0 - 10 * TRAINS * 2.5 / 2)):
        assert 2.5 * TRAINS * shown(in_time(experiment, 100.0, tests)) / IMAGES == pytest.approx(left, rel=0.01)


def test_a_trial_that_may_be_lucky_gives_way_to_the_defaults_at_a_width_that_the_time_allows(tmp_path: Path) -> None:
    lucky = made(tmp_path / "lucky", (0.70, 0.001, 6, 5.0), (0.701, 0.002, 6, 5.0), (0.69, 0.003, 6, 5.0))
    wider, short = in_time(lucky, 1e6), in_time(lucky, 60.0)
    assert (wider.id, wider.name, wider.params["width"]) == (DEFAULTS, "the defaults at width 48", 48)
    assert (short.id, short.name, short.params["width"]) == (DEFAULTS, "the defaults", 6)


def test_the_defaults_are_confirmed_as_the_search_has_tried_them(tmp_path: Path) -> None:
    """The space may not reach the recipe's width."""
    trials = [(0.5, 0.001, 4, 5.0), (0.9, 0.02, 4, 5.0)]
    tuner = {**TUNER, "classArgs": {"defaults": {"lr": 0.001, "width": 4.0}}}
    tried = Plans(made(tmp_path / "made", *trials, tuner=tuner), DIGITS, 0, grown).defaults(0.0)
    assert (tried.id, tried.name, tried.hparams.width) == (DEFAULTS, "the defaults at width 4", 4)
    other = Plans(made(tmp_path / "other", *trials, tuner={"name": "Random"}), DIGITS, 0, grown)
    assert (other.defaults(0.0).id, other.defaults(0.0).hparams.width) == (DEFAULTS, 6)
    assert other.last(other.defaults(0.0), 0.0).hparams.width == 6
    rival = other.rival(0.0)
    assert rival is not None and rival.id == "trial1"


@pytest.mark.parametrize(
    ("accuracy", "seconds", "expected"),
    [
        (0.73, 0.0, DEFAULTS),  # likely to be better, and not likely enough
        (0.78, 0.0, "trial1"),
        (0.78, 1e6, DEFAULTS),  # what is better in two epochs need not be in 72
        (0.95, 1e6, "trial1"),
    ],
)
def test_another_one_takes_the_place_of_the_defaults_if_it_is_likely_to_be_better_in_so_long_a_training(
    tmp_path: Path, accuracy: float, seconds: float, expected: str
) -> None:
    experiment = made(tmp_path / "made", (0.70, 0.001, 6, 5.0), (accuracy, 0.02, 6, 5.0), searchSpace=OWN_SPACE)
    assert in_time(experiment, seconds).id == expected


def test_fast_trains_no_longer_than_its_images_can_teach(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --model fast --batch-size 64 --epochs 2"}
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.9, 0.02, 8, 5.0), **command, searchSpace=OWN_SPACE)
    for number in (0, 1):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"hparams": result["hparams"] | {"model": "fast"}}))
    assert shown(in_time(experiment, 1e6)) == pytest.approx(growth_of("fast").enough(ALL_IMAGES), rel=0.01)


def test_few_images_are_shown_as_often_as_by_the_defaults_or_more(tmp_path: Path) -> None:
    """The ones to validate on are trained on too."""
    few = replace(DIGITS, images=DIGITS.images[:200], labels=DIGITS.labels[:200])
    command = {"trialCommand": "python3 trial.py --model fast --batch-size 16 --epochs 2"}
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), **command, searchSpace=OWN_SPACE)
    plans = Plans(experiment, few, 0, grown)
    hparams = plans.last(plans.defaults(1e6), 1e6).hparams
    usual = for_data({"model": "fast"}, 200).epochs
    assert growth_of("fast").enough(200) < usual * 200
    assert (hparams.epochs, hparams.images_per_epoch) == (usual, 0)


def test_more_time_is_for_more_epochs_and_for_width(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --model fast --batch-size 64 --epochs 2"}
    close = [(0.70, 0.001, 6, 5.0), (0.701, 0.002, 6, 5.0), (0.69, 0.003, 6, 5.0)]
    experiment = made(tmp_path / "made", *close, **command)
    last = [in_time(experiment, seconds) for seconds in (30.0, 150.0, 1500.0)]
    widths, epochs = ([getattr(some.hparams, name) for some in last] for name in ("width", "epochs"))
    assert widths == sorted(widths) and widths[0] < widths[2]
    assert epochs == sorted(epochs) and epochs[0] < epochs[2]


def test_of_two_that_promise_as_much_the_one_that_has_less_to_grow_is_chosen(tmp_path: Path) -> None:
    """A narrow network promises by the rule alone what a wide one has shown a part of; few images make both alike."""
    net, shown_images = growth_of("net"), 2 * IMAGES
    narrow, wide = (1 - net.error(width, shown_images, IMAGES) / 2 for width in (16, 32))
    space = {**fake.SPACE, "width": {"_type": "qloguniform", "_value": [4, 32, 2]}}
    trials = [(narrow - 0.03, 0.02, 16, 5.0), (wide, 0.02, 32, 5.0)]
    experiment = made(tmp_path / "made", *trials, searchSpace=space, tuner={"name": "Random"})
    rival = Plans(experiment, DIGITS, 0, lambda *_: 1e-9).rival(1e6)
    assert rival is not None and rival.id == "trial1"


def test_where_nothing_is_likely_to_be_better_the_defaults_have_all_the_time(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.8, 0.001, 6, 5.0), (0.7, 0.02, 12, 5.0), searchSpace=OWN_SPACE)
    alone = in_time(experiment, 30.0)
    assert alone.id == DEFAULTS
    assert shown(alone) / IMAGES * 2.5 * TRAINS == pytest.approx(30.0, rel=0.01)


def test_an_image_costs_less_in_the_larger_batches_that_the_defaults_get_in_a_longer_training(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --batch-size 16 --epochs 2", "searchSpace": OWN_SPACE}
    experiment = made(tmp_path / "made", (0.8, 0.001, 6, 5.0), (0.7, 0.02, 12, 5.0), **command)
    path = layout.trial_directory(experiment, "trial0") / layout.RESULT
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"hparams": result["hparams"] | {"batch_size": 4}}))
    alone = in_time(experiment, 30.0, speed=lambda _, batch_size: 1e-9 / batch_size)
    assert shown(alone) / IMAGES * 2.5 * TRAINS == pytest.approx(30.0 * 16 / 4, rel=0.01)


@pytest.mark.parametrize("seconds", [-5.0, 0.001])
def test_without_time_the_last_networks_see_as_many_images_as_the_trials_did(tmp_path: Path, seconds: float) -> None:
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.7, 0.02, 8, 5.0))
    plans = Plans(experiment, DIGITS, 0, grown)
    rival = plans.rival(seconds)
    assert rival is not None
    best, beside = (plans.last(some, seconds) for some in (rival, plans.defaults(seconds)))
    assert (best.hparams.width, beside.hparams.width) == (8, 6)
    for some in (best, beside):
        assert shown(some) == pytest.approx(2 * IMAGES, abs=4)


def test_a_batch_that_takes_much_memory_keeps_its_width(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --batch-size 8192 --epochs 2"}
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.7, 0.02, 8, 5.0), **command)
    for number in (0, 1):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"hparams": result["hparams"] | {"batch_size": 8192}}))
    assert in_time(experiment, 1e6).hparams.width == 8


def test_without_a_finished_trial_there_is_nothing_to_train(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.1, "status": "diverged"}])
    with pytest.raises(Failed, match="no trial of the search has finished"):
        in_time(experiment, 60.0)


@pytest.mark.parametrize(
    ("space", "searched", "jitter"),
    [({}, 0.0, 0.5), ({"color_jitter": {"_type": "uniform", "_value": [0, 0.9]}}, 0.1, 0.1)],
)
def test_colours_change_in_a_long_training_though_not_in_its_short_trial(
    tmp_path: Path, space: dict[str, Any], searched: float, jitter: float
) -> None:
    trials = [(0.5, 0.001, 8, 5.0), (0.9, 0.02, 16, 10.0)]
    experiment = made(
        tmp_path / "made", *trials,
        trialCommand="python3 trial.py --model fast --batch-size 64 --epochs 2", searchSpace={**OWN_SPACE, **space},
    )  # fmt: skip
    for number, (_, lr, width, _) in enumerate(trials):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        hparams = Hparams(model="fast", lr=lr, width=width, epochs=2, batch_size=64, color_jitter=searched)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hparams": vars(hparams)}))
        params = path.with_name("params.json")
        known = json.loads(params.read_text())["parameters"]
        params.write_text(json.dumps({"parameters": known | dict.fromkeys(space, searched)}))
    chosen = in_time(experiment, 1e6)
    assert (chosen.id, chosen.hparams.color_jitter) == ("trial1", jitter)
