from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cifar.training.intervals import dunnett


@pytest.mark.parametrize(("comparisons", "freedom"), [(2, 5.0), (4, 20.0), (9, 60.0), (3, 2.5)])
def test_one_sided_all_stay_below_it_with_a_chance_of_95_percent(comparisons: int, freedom: float) -> None:
    """The differences from a common mean have correlations of a half."""
    correlations = np.full((comparisons, comparisons), 0.5) + 0.5 * np.eye(comparisons)
    joint = stats.multivariate_t(shape=correlations, df=freedom, seed=0)
    assert joint.cdf(np.full(comparisons, dunnett(comparisons, freedom, "one"))) == pytest.approx(0.95, abs=0.001)


@pytest.mark.parametrize(("comparisons", "freedom", "published"), [(2, 5, 3.03), (4, 20, 2.65), (4, 60, 2.51)])
def test_two_sided_it_is_what_dunnett_published(comparisons: int, freedom: int, published: float) -> None:
    assert dunnett(comparisons, freedom) == pytest.approx(published, abs=0.006)


def test_one_comparison_is_students() -> None:
    assert dunnett(1, 7) == pytest.approx(stats.t.ppf(0.975, 7))
    assert dunnett(1, 7, "one") == pytest.approx(stats.t.ppf(0.95, 7))


def test_scipy_gives_the_quantile_a_chance_of_five_percent() -> None:
    """Four groups of six whose third differs from the first by just so many standard errors."""
    noise = np.array([-1.5, -0.9, -0.3, 0.3, 0.9, 1.5])
    error = np.sqrt(noise.var(ddof=1) * 2 / 6)
    away = noise + dunnett(3, 20) * error
    found = stats.dunnett(noise, away, noise, control=noise, random_state=0)
    assert found.pvalue[1] == pytest.approx(0.05, abs=0.002)


def test_few_degrees_of_freedom_leave_more_open() -> None:
    assert dunnett(3, 2) > dunnett(3, 10) > dunnett(3, 1000) > dunnett(1, 1000)
