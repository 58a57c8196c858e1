from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest
from experiments import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from cifar.errors import RequestError
from cifar.search import search_space, start
from cifar.search.algorithms import shortened
from cifar.search.search_space import fits, nearest_value
from cifar.training import defaults

SPACE: dict[str, dict[str, Any]] = {
    "width": {"_type": "qloguniform", "_value": [4, 32, 2]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.3]},
    "optimizer": {"_type": "choice", "_value": ["sgd", "adam"]},
    "translate": {"_type": "randint", "_value": [0, 5]},
    "flip": {"_type": "choice", "_value": [True, False]},
}
COMMAND = "python trial.py"
KNOWN = {"width": 6.0, "lr": 0.002, "optimizer": "sgd", "translate": 2, "flip": True}


def test_a_point_is_read_and_completed_with_the_defaults(tmp_path: Path) -> None:
    points = start.points(["width=26, lr=2e-2", "optimizer=adam,translate=4,flip=false"], SPACE, COMMAND, tmp_path)
    assert points == [{"width": 26.0, "lr": 0.02}, {"optimizer": "adam", "translate": 4, "flip": False}]
    completed = start.completed([*points, {"width": 6.0}], KNOWN)
    assert completed[0] == KNOWN
    assert completed[1] == KNOWN | {"width": 26.0, "lr": 0.02}
    assert len(completed) == 3  # the last one is the defaults once more


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("width=64", "width must be from 4 to 32 to be searched, got 64"),
        ("width=nan", "width must be from 4 to 32 to be searched, got nan"),
        ("width=5", "width is searched in steps of 2: 4 is the nearest to 5"),
        ("translate=1.5", "translate must be from 0 to 4 to be searched, got 1.5"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("lr=", "lr must be a number, got ''"),
        ("momentum=0.9", "'momentum' is not searched; known are width, lr, optimizer, translate, flip"),
        ("optimizer=rmsprop", "optimizer must be one of sgd, adam, got 'rmsprop'"),
        ("translate=5", "translate must be from 0 to 4 to be searched, got 5"),
        ("width=6,width=8", "width is given twice"),
        ("=", "'' is not searched"),
        ("width", "width needs a value, width=VALUE"),
    ],
)
def test_a_point_outside_the_space_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(RequestError, match=f"^--start-from {text}: {problem}"):
        start.points([text], SPACE, COMMAND, tmp_path)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz=,.0123456789 _-", max_size=40).map(lambda text: f"width={text}"))
@example("width=6,")
@example("width=4.1")
def test_any_text_is_a_point_of_the_space_or_refused(text: str) -> None:
    try:
        (point,) = start.points([text], SPACE, COMMAND, Path("/nowhere"))
    except RequestError as error:
        assert str(error).startswith("--start-from width=")
    else:
        assert fits(KNOWN | point, SPACE)


def test_an_earlier_experiment_gives_its_best_three_as_far_as_they_are_searched_here(tmp_path: Path) -> None:
    trials = [
        {"accuracy": 0.1 * number, "params": {"width": 4.0 * number, "lr": 0.01 * number}} for number in range(1, 10)
    ]
    fake.make(tmp_path / "earlier", trials)
    points = start.points(["earlier"], SPACE, COMMAND, tmp_path)
    assert points == [{"width": 4.0 * number, "lr": 0.01 * number} for number in (8, 7, 6)]  # 36 is too wide
    with pytest.raises(RequestError, match="no trial of it has parameters that this search space has"):
        start.points(["earlier"], {"momentum": {"_type": "uniform", "_value": [0, 0.9]}}, COMMAND, tmp_path)
    with pytest.raises(RequestError, match="absent"):
        start.points(["absent"], SPACE, COMMAND, tmp_path)


def test_the_defaults_are_the_nearest_point_of_the_space() -> None:
    defaults = start.defaults_of(SPACE, "python trial.py --epochs 8 --schedule triangular", 45_000, "cifar10")
    assert defaults == {"width": 6.0, "lr": 0.002, "optimizer": "sgd", "translate": 0, "flip": False}
    wide = SPACE | {"width": {"_type": "quniform", "_value": [16, 32, 4]}}
    assert start.defaults_of(wide, "python trial.py", 45_000, "digits")["width"] == 16.0


@pytest.mark.parametrize(
    ("value", "sampler", "nearest"),
    [
        (7, {"_type": "choice", "_value": [1, 2, 3]}, 3),
        (4, {"_type": "choice", "_value": [8, 16, 32, 64, 128]}, 8),
        (0.013, {"_type": "choice", "_value": [0.0001, 0.001, 0.01, 0.1]}, 0.01),
        (0.05, {"_type": "choice", "_value": [0.01, 0.1]}, 0.1),
        (0, {"_type": "choice", "_value": [1, 2]}, 1),
        ("x", {"_type": "choice", "_value": ["a", "b", "c"]}, "b"),
        (True, {"_type": "choice", "_value": [0, 1, 2]}, 1),
        (5.2, {"_type": "quniform", "_value": [4, 32, 2]}, 6.0),
        (100, {"_type": "qloguniform", "_value": [4, 25, 4]}, 25.0),
        (9, {"_type": "randint", "_value": [0, 5]}, 4),
        (0.5, {"_type": "uniform", "_value": [1, 2]}, 1.0),
        (1.5, {"_type": "uniform", "_value": [1, 2]}, 1.5),
    ],
)
def test_the_nearest_value_is_one_that_the_sampler_gives(value: Any, sampler: dict[str, Any], nearest: Any) -> None:
    found = nearest_value(value, sampler)
    assert found == nearest
    assert type(found) is type(nearest)


def test_a_short_search_has_a_short_random_phase() -> None:
    ours = {"className": "cifar.search.guided_tpe.GuidedTpe", "classArgs": {"seed": 1}}
    assert shortened(ours, 8) == {"seed": 1, "tpe_args": {"n_startup_jobs": 2}}
    assert shortened(ours, 24) == {"seed": 1}
    nnis = {"name": "TPE", "classArgs": {"tpe_args": {"n_startup_jobs": 12, "gamma": 0.5}}}
    assert shortened(nnis, 20) == {"tpe_args": {"n_startup_jobs": 5, "gamma": 0.5}}
    assert shortened(nnis, 20, at_any_rate=False) == nnis["classArgs"]
    assert shortened({"name": "TPE"}, 20, at_any_rate=False) == {"tpe_args": {"n_startup_jobs": 5}}
    assert shortened({"name": "Random", "classArgs": {"seed": 1}}, 4) == {"seed": 1}
    assert shortened({"name": "TPE", "classArgs": [1]}, 4) == [1]  # the checks say what is wrong


SHIPPED = {
    name: json.loads((ROOT / name / "search_space.json").read_text())
    for name in (".", "searches/fast", "searches/fast-gpu")
}


@pytest.mark.parametrize(
    ("name", "ranges"), [("batch_size", start.SHIPPED_BATCH_SIZES), ("width", start.SHIPPED_WIDTHS)]
)
def test_the_ranges_that_move_with_a_folder_are_those_of_the_shipped_spaces(
    name: str, ranges: Sequence[Sequence[int]]
) -> None:
    assert {tuple(space[name]["_value"]) for space in SHIPPED.values()} == {tuple(values) for values in ranges}


@given(st.sampled_from([*SHIPPED]), st.integers(10, 100_000), st.integers(1, 30))
def test_a_folder_gets_batch_sizes_that_it_can_fill(name: str, images: int, epochs: int) -> None:
    space, model = SHIPPED[name], "net" if name == "." else "fast"
    command = f"python trial.py --model {model} --epochs {epochs}"
    sampler = start.fitting_space(space, command, images)["batch_size"]
    assert search_space.sampler_problem(sampler) is None
    assert search_space.end_problem(sampler) is None
    low, high, _ = sampler["_value"]
    usual_low, usual_high, _ = space["batch_size"]["_value"]
    assert low <= usual_low and high <= usual_high
    by_default = defaults.for_budget({"model": model, "epochs": epochs}, images).batch_size
    assert low <= max(by_default, defaults.smallest_batch(model)) or by_default < usual_low
    assert by_default <= max(high, 2 * low)
    if images >= 45_000 and epochs >= 10:
        assert sampler == space["batch_size"]


@pytest.mark.parametrize(("drawn", "images", "sampler"), [(0, 1279, [16, 128, 8]), (500, 1279, [16, 80, 8])])
def test_a_drawn_subset_moves_the_batch_sizes_as_few_images_do(drawn: int, images: int, sampler: list[int]) -> None:
    command = f"python trial.py --model fast --epochs 4 --images-per-epoch {drawn}"
    space = start.fitting_space(SHIPPED["searches/fast"], command, images)
    assert space["batch_size"]["_value"] == sampler
    recipe = defaults.for_budget({"model": "fast", "epochs": 4, "images_per_epoch": drawn}, images)
    assert start.defaults_of(space, command, images, "folder")["batch_size"] == recipe.batch_size


def test_defaults_whose_batch_the_space_lacks_keep_their_step_per_image() -> None:
    space = {name: SHIPPED["searches/fast"][name] for name in ("lr", "batch_size")}
    command = "python trial.py --model fast --epochs 4 --images-per-epoch 500"
    known, recipe = start.defaults_of(space, command, 2000, "folder"), defaults.for_budget(
        {"model": "fast", "epochs": 4, "images_per_epoch": 500}, 2000
    )  # fmt: skip
    assert known["batch_size"] == 64 > recipe.batch_size
    assert known["lr"] / 64 == pytest.approx(recipe.lr / recipe.batch_size, rel=0.05)


def test_a_point_to_start_from_may_have_a_batch_that_only_few_images_get(tmp_path: Path) -> None:
    space = SHIPPED["searches/fast"]
    assert start.points(["batch_size=32"], space, COMMAND, tmp_path) == [{"batch_size": 32.0}]
    fake.make(tmp_path / "earlier", [{"accuracy": 0.5, "params": {"width": 8.0, "lr": 0.1, "batch_size": 16.0}}])
    assert start.points(["earlier"], space, COMMAND, tmp_path) == [{"width": 8.0, "lr": 0.1, "batch_size": 16.0}]
    with pytest.raises(RequestError, match="batch_size must be from 4 to 1024 to be searched, got 2000"):
        start.points(["batch_size=2000"], space, COMMAND, tmp_path)
    own = {**space, "batch_size": {"_type": "qloguniform", "_value": [64, 512, 64]}}
    with pytest.raises(RequestError, match="batch_size must be from 64 to 512 to be searched, got 32"):
        start.points(["batch_size=32"], own, COMMAND, tmp_path)


def test_a_point_that_few_images_do_not_have_comes_to_the_nearest() -> None:
    space = {"batch_size": {"_type": "qloguniform", "_value": [4, 24, 4]}, "flip": SPACE["flip"]}
    asked = [{"batch_size": 100.0, "flip": True}, {"batch_size": 12.0}]
    assert start.within(asked, space) == [{"batch_size": 24.0, "flip": True}, {"batch_size": 12.0}]


def test_an_experiment_of_another_network_is_no_start(tmp_path: Path) -> None:
    trials = [{"accuracy": 0.5, "params": {"width": 8.0, "lr": 0.1}}]
    fake.make(tmp_path / "earlier", trials, {"trialCommand": "python trial.py --epochs 3"})
    with pytest.raises(RequestError, match="earlier: it trained the network net, this one trains fast"):
        start.points(["earlier"], SPACE, "python trial.py --model fast", tmp_path)


def test_a_range_of_ones_own_stays_as_it_is() -> None:
    command = "python trial.py --model fast --epochs 5"
    for sampler in (
        {"_type": "choice", "_value": [4, 128, 4]},
        {"_type": "qloguniform", "_value": [64, 512, 64]},
        {"_type": "loguniform", "_value": [64, 1024]},
    ):
        assert start.fitting_space({"batch_size": sampler}, command, 100) == {"batch_size": sampler}
    assert start.fitting_space({"lr": SPACE["lr"]}, command, 100) == {"lr": SPACE["lr"]}
