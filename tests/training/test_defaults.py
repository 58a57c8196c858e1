from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.training.defaults import for_budget, for_data
from cifar.training.hparams import RECIPES, Hparams


@pytest.mark.parametrize("model", RECIPES)
def test_on_cifar10_at_its_own_budget_a_recipe_is_as_it_is(model: str) -> None:
    assert for_budget({"model": model}, 45_000) == Hparams(model=model)


def test_a_rate_that_falls_is_twice_as_high_and_of_fewer_images_each_moves_the_network_further() -> None:
    assert for_budget({"schedule": "triangular", "epochs": 8}, 45_000).lr == 0.002
    assert for_budget({"epochs": 2, "images_per_epoch": 11_250}, 45_000).lr == 0.002
    assert for_budget({"epochs": 2}, 450).lr == pytest.approx(0.01)


def test_where_batches_are_few_they_become_smaller_and_an_image_moves_the_network_as_far() -> None:
    whole, few = (for_budget({"model": "fast", "epochs": 10}, images) for images in (45_000, 2_250))
    assert (whole.batch_size, few.batch_size) == (1024, 32)
    assert few.lr / few.batch_size == pytest.approx(whole.lr / whole.batch_size * 20**0.5, rel=0.05)


def test_what_is_given_stays_and_the_rate_fits_it() -> None:
    given = {"lr": 0.5, "batch_size": 96, "momentum": 0.5}
    hparams = for_budget(given, 300)
    assert {name: getattr(hparams, name) for name in given} == given
    assert for_budget({"batch_size": 64}, 45_000).lr == pytest.approx(0.016)
    assert for_budget({"momentum": 0.8}, 45_000).lr == pytest.approx(0.002)
    assert for_budget({"optimizer": "adam"}, 300).lr == 0.001


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-6, 10),
            "momentum": st.floats(0, 0.99),
            "batch_size": st.integers(1, 5000),
            "epochs": st.integers(1, 500),
            "weight_decay": st.floats(0, 1),
            "seed": st.integers(0, 9),
        },
    ),
    st.sampled_from([*RECIPES]),
    st.integers(1, 10**6),
)
def test_to_its_last_digit_what_is_given_stays(given: dict[str, float], model: str, images: int) -> None:
    for hparams in (for_data({**given, "model": model}, images), for_budget({**given, "model": model}, images)):
        assert {name: getattr(hparams, name) for name in given} == given


@given(st.sampled_from([*RECIPES]), st.integers(1, 10**6), st.integers(1, 100), st.integers(0, 10**5))
def test_they_are_hyperparameters_for_any_budget(model: str, images: int, epochs: int, per_epoch: int) -> None:
    hparams = for_budget({"model": model, "epochs": epochs, "images_per_epoch": per_epoch}, images)
    assert 4 <= hparams.batch_size <= Hparams(model=model).batch_size
    assert hparams.lr > 0


@pytest.mark.parametrize(("model", "epochs"), [("net", round(2 * 22.5**0.5)), ("fast", round(10 * 22.5**0.5))])
def test_of_fewer_images_there_are_more_epochs(model: str, epochs: int) -> None:
    given = {"model": model}
    assert for_data(given, 45_000) == for_data(given, 90_000) == Hparams(model=model)
    assert for_data(given, 2_000).epochs == epochs
    assert for_data({**given, "epochs": 3}, 2_000).epochs == 3
    assert for_data({**given, "schedule": "triangular"}, 45_000).lr == Hparams(model=model).lr


@pytest.mark.parametrize(
    ("given", "images", "jitter"),
    [
        ({}, 2_000, 0.5),
        ({"epochs": 16}, 2_000, 0.5),
        ({"epochs": 15}, 2_000, 0.0),
        ({"epochs": 40, "images_per_epoch": 700}, 2_000, 0.0),
        ({"epochs": 47, "images_per_epoch": 700}, 2_000, 0.5),
        ({"epochs": 40}, 10_001, 0.0),
        ({"color_jitter": 0.0}, 2_000, 0.0),
        ({"model": "net"}, 2_000, 0.0),
    ],
)
def test_few_images_of_fast_change_their_colours_where_they_are_shown_often(
    given: dict[str, object], images: int, jitter: float
) -> None:
    assert for_budget({"model": "fast", **given}, images).color_jitter == jitter


def test_very_few_images_do_not_move_fast_without_an_end() -> None:
    recipe = for_budget({"model": "fast"}, 45_000)
    few = for_budget({"model": "fast", "epochs": 1}, 20)
    assert few.lr / few.batch_size == pytest.approx(10 * recipe.lr / recipe.batch_size, rel=0.05)
    assert for_budget({"epochs": 1}, 20).lr == pytest.approx(0.001 * 4500**0.5, rel=0.05)
