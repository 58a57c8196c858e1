from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar.analysis.growth import GROWTHS, growth_of

MODELS = st.sampled_from([*GROWTHS])
WIDTHS, IMAGES = st.integers(4, 192), st.integers(100, 100_000)


@given(MODELS, WIDTHS, st.floats(0.1, 100), IMAGES)
def test_wider_longer_and_of_more_images_is_never_worse(model: str, width: int, epochs: float, images: int) -> None:
    growth, shown = GROWTHS[model], epochs * images
    error = growth.error(width, shown, images)
    assert growth.error(width + 4, shown, images) < error
    assert growth.error(width, 1.5 * shown, images) <= error
    assert growth.error(width, shown, 2 * images) <= error


@given(MODELS, WIDTHS, IMAGES)
def test_more_than_enough_epochs_gain_nothing(model: str, width: int, images: int) -> None:
    growth, enough = GROWTHS[model], GROWTHS[model].enough(images)
    assert growth.error(width, 10 * enough, images) == pytest.approx(growth.error(width, enough, images), rel=2e-3)
    assert growth.error(width, enough, images) < 0.9 * growth.error(width, enough / 50, images)


def test_an_image_shown_for_the_first_time_teaches_most() -> None:
    """As if each were another, as long as they are few beside those that there are."""
    for growth in GROWTHS.values():
        assert growth.error(32, 40_000, 10**9) == pytest.approx(growth.narrow * 32**-growth.width_power + growth.unseen)
        gained = [growth.error(32, 1_000 * epochs, 1_000) for epochs in (1, 2, 20, 21)]
        assert gained[0] - gained[1] > 20 * (gained[2] - gained[3])


def test_the_tutorials_other_networks_grow_as_its_first() -> None:
    assert growth_of("wide") == growth_of("lenet") == growth_of("net")
