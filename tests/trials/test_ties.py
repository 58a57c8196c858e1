from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cifar.training.hparams import Hparams
from cifar.training.intervals import wilson
from cifar.trials import layout
from cifar.trials.predictions import save_predictions
from cifar.trials.seed_noise import SeedNoise, seed_noise, seed_variance
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import interval, ties

IMAGES = 1000
NONE = SeedNoise(0.0, 1000, 0)


def networks(generator: np.random.Generator, accuracies: list[float], seed_sd: float) -> NDArray[np.bool_]:
    """Networks x images, true where right; some images are hard for all."""
    ease = np.asarray(accuracies)[:, None] + generator.normal(0, 0.2, IMAGES)
    seeds = generator.normal(0, seed_sd, (len(accuracies), 1))
    return generator.random((len(accuracies), IMAGES)) < ease + seeds


def trial(experiment: Path, number: int, right: NDArray[np.bool_], **changes: object) -> Trial:
    labels = np.zeros(len(right), dtype=np.int64)
    directory = layout.trial_directory(experiment, f"trial{number}")
    directory.mkdir(parents=True, exist_ok=True)
    save_predictions(directory, (~right).astype(np.int64), labels)
    metrics = {"default": float(right.mean())}
    result = {
        "status": "ok",
        "reason": "",
        "metrics": metrics,
        "data": {"val_images": len(right), "balanced_images": len(right)},
        "hparams": asdict(Hparams.from_params(changes)),
    }
    return Trial(f"trial{number}", number, "SUCCEEDED", {}, result)


@pytest.mark.parametrize("seed_sd", [0.0, 0.003, 0.01, 0.02])
@pytest.mark.parametrize("count", [5, 20])
def test_equal_configurations_are_seldom_called_worse(tmp_path: Path, seed_sd: float, count: int) -> None:
    """Of all that are equal to the best at most 7 in 100, whatever the recipe is thought to do."""
    generator, apart = np.random.default_rng(0), 0
    for _ in range(30):
        right = networks(generator, [0.6] * count, seed_sd)
        trials = [trial(tmp_path, number, some, lr=0.001 + number) for number, some in enumerate(right)]
        apart += count - max(1, len(ties(trials, tmp_path)))  # the best is none that was told apart
    assert apart / (30 * count) <= 0.07


def test_a_configuration_that_is_far_behind_is_no_tie(tmp_path: Path) -> None:
    right = networks(np.random.default_rng(0), [0.8, 0.79, 0.6], 0.0)
    trials = [trial(tmp_path, number, some, lr=1.0 + number) for number, some in enumerate(right)]
    assert ties(trials, tmp_path, SeedNoise(0.01**2, 8, 0)) == {"trial0", "trial1"}


def test_seeds_leave_more_ties_than_images_alone(tmp_path: Path) -> None:
    """Right on the same images but few: without seed noise they would be told apart."""
    right = np.arange(IMAGES)[None, :] < np.array([[800], [770]])
    trials = [trial(tmp_path, number, some, lr=1.0 + number) for number, some in enumerate(right)]
    assert ties(trials, tmp_path, NONE) == set()
    assert ties(trials, tmp_path, SeedNoise(0.015**2, 8, 0)) == {"trial0", "trial1"}


def test_without_predictions_images_are_taken_for_different_ones(tmp_path: Path) -> None:
    right = np.arange(IMAGES)[None, :] < np.array([[800], [770]])
    trials = [trial(tmp_path, number, some, lr=1.0 + number) for number, some in enumerate(right)]
    (layout.trial_directory(tmp_path, "trial1") / "validation.npz").unlink()
    assert ties(trials, tmp_path, NONE) == {"trial0", "trial1"}


def test_few_files_are_read_of_many_trials(tmp_path: Path) -> None:
    """The two far behind have none that could be read."""
    right = np.arange(IMAGES)[None, :] < np.array([[800], [790], [300], [200]])
    trials = [trial(tmp_path, number, some, lr=1.0 + number) for number, some in enumerate(right)]
    for number in (2, 3):
        (layout.trial_directory(tmp_path, f"trial{number}") / "validation.npz").write_bytes(b"damaged")
    assert ties(trials, tmp_path, NONE) == set()


def test_seed_variance_leaves_out_what_images_add() -> None:
    generator = np.random.default_rng(3)
    with_seeds = [seed_variance(networks(generator, [0.6] * 5, 0.02).astype(float)) for _ in range(300)]
    without = [seed_variance(networks(generator, [0.6] * 5, 0.0).astype(float)) for _ in range(1000)]
    assert np.mean(with_seeds) == pytest.approx(0.02**2, rel=0.15)
    assert np.mean(without) == pytest.approx(0.0, abs=0.004**2)


def test_repeated_trainings_of_the_experiment_count_beside_what_is_known(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    steady = np.arange(IMAGES) < 600
    alone = [trial(tmp_path, 0, steady)]
    known = seed_noise(alone, tmp_path)
    assert known.variance == pytest.approx(0.02**2)
    assert known.repeats == 0
    assert "as of recipes like this one" in str(known)
    repeats = [trial(tmp_path, number, steady, seed=number) for number in range(9)]
    steadier = seed_noise(repeats, tmp_path)
    assert steadier.repeats == 9
    assert steadier.variance == pytest.approx(known.variance / 2)
    assert "from 9 trainings repeated here" in str(steadier)
    right = networks(generator, [0.6] * 4, 0)
    others = [trial(tmp_path, number, some, lr=number + 1.0) for number, some in enumerate(right)]
    assert seed_noise(others, tmp_path).repeats == 0


def test_trainings_of_cifar_best_tell_of_seeds_too(tmp_path: Path) -> None:
    """Those at another budget do not: they are of another configuration."""
    steady, labels = np.arange(IMAGES) < 600, np.zeros(IMAGES, dtype=np.int64)
    twice = [f"{name}-seed{seed}" for name in ("trial0", "trial0-long", "trial0-final") for seed in (1000, 1001)]
    for name in [*twice, "defaults-seed1000"]:
        (tmp_path / "confirmed" / name).mkdir(parents=True)
        save_predictions(tmp_path / "confirmed" / name, (~steady).astype(np.int64), labels)
    assert seed_noise([trial(tmp_path, 0, steady)], tmp_path).repeats == 2


@pytest.mark.parametrize(
    ("changes", "sd"), [({"model": "fast"}, 0.004), ({"schedule": "triangular"}, 0.010), ({}, 0.020)]
)
def test_what_is_known_of_seeds_depends_on_the_recipe(tmp_path: Path, changes: dict[str, object], sd: float) -> None:
    found = seed_noise([trial(tmp_path, 0, np.arange(IMAGES) < 600, **changes)], tmp_path)
    assert found.variance == pytest.approx(sd**2)


def test_a_balanced_accuracy_has_the_interval_of_the_images_that_count(tmp_path: Path) -> None:
    some = trial(tmp_path, 0, np.arange(IMAGES) < 600, metric="balanced_accuracy")
    assert some.result is not None
    some.result["data"]["balanced_images"] = 50.0
    assert some.interval == wilson(0.6, 50)


def test_a_configurations_interval_is_wider_than_its_networks(tmp_path: Path) -> None:
    some = trial(tmp_path, 0, np.arange(IMAGES) < 600)
    own, whole = some.interval, interval(some, SeedNoise(0.02**2, 8, 0))
    assert own is not None
    assert whole is not None
    assert whole.margin == pytest.approx(np.hypot(own.margin, 2.306 * 0.02), rel=0.001)
    assert interval(Trial("x", 0, "RUNNING", {}, None), NONE) is None
    assert json.dumps([whole.low, whole.high])


def test_few_images_say_little_of_seeds(tmp_path: Path) -> None:
    """Repeats that are judged by two dozen images leave what is known of such recipes nearly as it was."""
    generator, found = np.random.default_rng(5), list[float]()
    for number in range(40):
        right = networks(generator, [0.6] * 8, 0.02)[:, :24]
        repeats = [trial(tmp_path / str(number), seed, some, seed=seed) for seed, some in enumerate(right)]
        noise = seed_noise(repeats, tmp_path / str(number))
        found.append(noise.variance**0.5)
        assert noise.freedom == 8
    assert 0.012 < min(found) < max(found) < 0.035


def test_networks_that_answer_one_class_tell_nothing_of_seeds(tmp_path: Path) -> None:
    constant = np.zeros(IMAGES, dtype=np.bool_)
    repeats = [trial(tmp_path, seed, constant, seed=seed) for seed in range(4)]
    assert seed_noise(repeats, tmp_path).repeats == 0


def test_the_same_seed_again_is_no_repeat(tmp_path: Path) -> None:
    steady = np.arange(IMAGES) < 600
    trials = [trial(tmp_path, number, steady) for number in range(4)]
    assert seed_noise(trials, tmp_path).repeats == 0
    assert len(best_first(trials)) == 4


def test_a_repeated_configuration_counts_once_and_with_its_mean(tmp_path: Path) -> None:
    """Its lucky first training alone would leave the others behind."""
    right = np.arange(IMAGES)[None, :] < np.array([[840], [780], [790], [600]])
    lucky, again = trial(tmp_path, 0, right[0], lr=1.0), trial(tmp_path, 1, right[1], lr=1.0, seed=5001)
    others = [trial(tmp_path, number, right[number], lr=1.0 + number) for number in (2, 3)]
    first, *_ = best_first([lucky, again, *others])
    assert (first.number, [one.number for one in first.repeats]) == (0, [1])
    assert first.accuracy == pytest.approx(0.81)
    noise = SeedNoise(0.01**2, 1000, 2)
    assert ties([lucky, again, *others], tmp_path, noise) == {"trial0", "trial2"}
    behind = [trial(tmp_path, 2, np.arange(IMAGES) < 783, lr=3.0), others[1]]
    assert ties([lucky, again, *behind], tmp_path, noise) == set()  # two trainings are surer than one
    alone, repeated = interval(lucky, noise), interval(first, noise)
    assert alone is not None
    assert repeated is not None
    assert repeated.margin < alone.margin
