from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.analysis import last_training
from cifar.analysis.configurations import DEFAULTS, RESIZED, Configuration
from cifar.analysis.last_training import planned
from cifar.analysis.retrain import Failed
from cifar.data import datasets
from cifar.training import defaults
from cifar.training.hparams import Hparams
from cifar.trials import layout

DIGITS = datasets.load("digits")
IMAGES, VAL_IMAGES = (len(some) for some in (datasets.split(DIGITS).train, datasets.split(DIGITS).val))
TUNER = {
    "className": "cifar.search.guided_tpe.GuidedTpe",
    "classArgs": {"defaults": {"lr": 0.001, "width": 6.0}},
}
TIME_OF_WIDTH = 1.75  # a power


def in_time(experiment: Path, seconds: float) -> list[Configuration]:
    return planned(experiment, DIGITS, 0, seconds, lambda width, _: width**TIME_OF_WIDTH)


def shown(alone: Configuration) -> int:
    """Images, in all epochs; where nothing is compared the validation images are among them."""
    return alone.hparams.epochs * alone.hparams.epoch_images(IMAGES + VAL_IMAGES)


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
    assert last_training.makespan([10.0, 3.0], at_once) == seconds


@given(st.floats(1, 1e9), st.integers(1, 10**6))
def test_a_budget_shows_about_as_many_images_as_there_is_time_for(shown: float, images: int) -> None:
    epochs, per_epoch = last_training.budget_of(shown, images)
    assert epochs >= 4
    assert 1 <= per_epoch <= images
    assert epochs * per_epoch <= max(shown, epochs)
    assert epochs * (per_epoch + 1) > shown * 0.999999


def test_with_little_time_a_quick_network_wins_over_a_slow_one_that_is_a_little_better(tmp_path: Path) -> None:
    trials = [(0.5, 0.001, 6, 5.0), (0.79, 0.02, 8, 10.0), (0.8, 0.02, 32, 100.0)]
    experiment = made(tmp_path / "made", *trials, searchSpace=OWN_SPACE)
    (short, beside), (long, _) = (in_time(experiment, seconds) for seconds in (150.0, 1e6))
    assert (short.id, long.id) == ("trial1", "trial2")
    shown = short.hparams.epochs * short.hparams.epoch_images(IMAGES)
    assert shown * (10 + 5) / (2 * IMAGES) == pytest.approx(150.0, rel=0.01)
    assert beside.hparams.images_per_epoch == short.hparams.images_per_epoch
    assert long.hparams.epochs == 48  # and no more: there is enough time


def test_with_time_to_spare_the_network_becomes_wider_unless_the_range_of_widths_is_ones_own(tmp_path: Path) -> None:
    trials = [(0.5, 0.001, 6, 5.0), (0.8, 0.02, 12, 10.0)]
    shipped, own = made(tmp_path / "shipped", *trials), made(tmp_path / "own", *trials, searchSpace=OWN_SPACE)
    (wider, plain), (as_wide, _) = (in_time(some, 1e6) for some in (shipped, own))
    assert (wider.id, wider.name) == ("trial1", "trial 1 at width 96")
    assert wider.hparams.width == wider.params["width"] == 96
    assert (plain.id, plain.hparams.width, plain.hparams.epochs) == (DEFAULTS, 6, wider.hparams.epochs)
    assert (as_wide.name, as_wide.hparams.width) == ("trial 1", 12)
    assert wider.hparams.lr < 0.02  # smaller steps for a longer training


def test_the_defaults_take_no_longer_than_the_other_one(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 40.0), (0.8, 0.02, 4, 10.0), searchSpace=OWN_SPACE)
    quick, slow = in_time(experiment, 60.0)
    shown = [some.hparams.epochs * some.hparams.epoch_images(IMAGES) / IMAGES for some in (quick, slow)]
    assert shown[0] * 5 == pytest.approx(30.0, rel=0.01)
    assert shown[1] * 20 == pytest.approx(30.0, rel=0.01)


@pytest.mark.parametrize("tta", [False, True])
def test_the_validation_images_weigh_less_where_an_epoch_shows_more_images(tta: bool) -> None:
    splits = datasets.split(DIGITS)
    look = (1.0 if tta else 0.5) * len(splits.val)
    for per_epoch in (100, 1_000, IMAGES):
        hparams = Hparams(epochs=4, images_per_epoch=per_epoch, tta_flip=tta)
        seconds = 4 * (per_epoch + look) * 0.01
        found = last_training.image_seconds(seconds, 4, hparams, splits)
        assert found == pytest.approx(0.01 * (IMAGES + look) / IMAGES)


def test_the_time_for_the_test_images_is_kept(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.8, 0.02, 12, 5.0), searchSpace=OWN_SPACE)
    for tests, left in ((0, 100.0), (10 * IMAGES, 100.0 - 10 * 2.5 / 2)):
        best, _ = planned(experiment, DIGITS, tests, 100.0, lambda width, _: width)
        shown = best.hparams.epochs * best.hparams.epoch_images(IMAGES) / IMAGES
        assert 2 * 2.5 * shown == pytest.approx(left, rel=0.01)


def test_what_the_other_one_leaves_of_the_time_is_for_the_defaults(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 40.0), (0.8, 0.02, 4, 1.0), searchSpace=OWN_SPACE)
    quick, slow = in_time(experiment, 424.0)
    assert quick.hparams.epochs == 48  # enough, after 24 of 424 seconds
    assert slow.hparams.epochs * slow.hparams.epoch_images(IMAGES) / IMAGES * 20 == pytest.approx(400.0, rel=0.01)


def test_a_trial_that_may_be_lucky_gives_way_to_the_defaults_at_a_width_that_the_time_allows(tmp_path: Path) -> None:
    lucky = made(tmp_path / "lucky", (0.70, 0.001, 6, 5.0), (0.701, 0.002, 6, 5.0), (0.69, 0.003, 6, 5.0))
    (wider,) = in_time(lucky, 1e6)
    assert (wider.id, wider.name, wider.params["width"]) == (RESIZED, "the defaults at width 48", 48)


@pytest.mark.parametrize(
    ("accuracy", "seconds", "expected"),
    [
        (0.73, 0.0, [DEFAULTS]),  # likely to be better, and not likely enough
        (0.78, 0.0, ["trial1", DEFAULTS]),
        (0.78, 1e6, [DEFAULTS]),  # what is better in two epochs need not be in 48
        (0.95, 1e6, ["trial1", DEFAULTS]),
    ],
)
def test_another_one_takes_the_place_of_the_defaults_if_it_is_likely_to_be_better_in_so_long_a_training(
    tmp_path: Path, accuracy: float, seconds: float, expected: list[str]
) -> None:
    experiment = made(tmp_path / "made", (0.70, 0.001, 6, 5.0), (accuracy, 0.02, 6, 5.0), searchSpace=OWN_SPACE)
    assert [some.id for some in in_time(experiment, seconds)] == expected


def test_fast_trains_at_most_twice_as_long_as_its_recipe_has_it_for_so_many_images(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --model fast --batch-size 64 --epochs 2"}
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.9, 0.02, 8, 5.0), **command, searchSpace=OWN_SPACE)
    for number in (0, 1):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"hparams": result["hparams"] | {"model": "fast"}}))
    last = in_time(experiment, 1e6)
    assert {some.hparams.epochs for some in last} == {2 * defaults.for_data({"model": "fast"}, IMAGES).epochs}


def test_time_beyond_enough_epochs_of_fast_is_for_more_of_them_and_for_width(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --model fast --batch-size 64 --epochs 2"}
    close = [(0.70, 0.001, 6, 5.0), (0.701, 0.002, 6, 5.0), (0.69, 0.003, 6, 5.0)]
    experiment, enough = made(tmp_path / "made", *close, **command), 59 * 2.5
    last = [some for times in (1.0, 1.5, 2.6) for some in in_time(experiment, times * enough)]
    assert [some.hparams.width for some in last] == [6, 6, 8]
    assert [shown(some) / IMAGES for some in last] == pytest.approx([59, 59 * 1.5, 93], rel=0.02)


def test_where_nothing_is_likely_to_be_better_the_defaults_have_all_the_time(tmp_path: Path) -> None:
    experiment = made(tmp_path / "made", (0.8, 0.001, 6, 5.0), (0.7, 0.02, 12, 5.0), searchSpace=OWN_SPACE)
    (alone,) = in_time(experiment, 30.0)
    assert alone.id == DEFAULTS
    assert shown(alone) / IMAGES * 2.5 == pytest.approx(30.0, rel=0.01)


def test_an_image_costs_less_in_the_larger_batches_that_the_defaults_get_in_a_longer_training(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --batch-size 16 --epochs 2", "searchSpace": OWN_SPACE}
    experiment = made(tmp_path / "made", (0.8, 0.001, 6, 5.0), (0.7, 0.02, 12, 5.0), **command)
    path = layout.trial_directory(experiment, "trial0") / layout.RESULT
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"hparams": result["hparams"] | {"batch_size": 4}}))
    (alone,) = planned(experiment, DIGITS, 0, 30.0, lambda _, batch_size: 1 / batch_size)
    assert shown(alone) / IMAGES * 2.5 == pytest.approx(30.0 * 16 / 4, rel=0.01)


def test_the_defaults_train_alone_as_wide_as_the_time_allows(tmp_path: Path) -> None:
    close = [(0.70, 0.001, 6, 5.0), (0.701, 0.002, 6, 5.0), (0.69, 0.003, 6, 5.0)]
    (alone,) = in_time(made(tmp_path / "made", *close), 300.0)
    assert (alone.id, alone.name) == (RESIZED, "the defaults at width 8")
    seconds = shown(alone) / IMAGES * 2.5 * (8 / 6) ** TIME_OF_WIDTH
    assert 120 < seconds <= 300
    (short,) = in_time(made(tmp_path / "short", *close), 60.0)
    assert (short.id, short.hparams.width) == (DEFAULTS, 6)


@pytest.mark.parametrize("seconds", [-5.0, 0.001])
def test_without_time_the_last_networks_see_as_many_images_as_the_trials_did(tmp_path: Path, seconds: float) -> None:
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.7, 0.02, 8, 5.0))
    best, beside = in_time(experiment, seconds)
    assert (best.hparams.width, beside.hparams.width) == (8, 6)
    for some in (best, beside):
        assert some.hparams.epochs * some.hparams.epoch_images(IMAGES) == pytest.approx(2 * IMAGES, abs=4)


def test_a_batch_that_takes_much_memory_keeps_its_width(tmp_path: Path) -> None:
    command = {"trialCommand": "python3 trial.py --batch-size 8192 --epochs 2"}
    experiment = made(tmp_path / "made", (0.5, 0.001, 6, 5.0), (0.7, 0.02, 8, 5.0), **command)
    for number in (0, 1):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"hparams": result["hparams"] | {"batch_size": 8192}}))
    assert in_time(experiment, 1e6)[0].hparams.width == 8


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
    chosen, defaults = in_time(experiment, 1e6)
    assert (chosen.id, chosen.hparams.color_jitter) == ("trial1", jitter)
    assert defaults.hparams.color_jitter == 0.5
