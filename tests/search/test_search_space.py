"""What NNI's samplers give, held against NNI's own grid search."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner
from nni.common.hpo_utils import deformat_parameters, format_search_space

from cifar.errors import RequestError
from cifar.search import search_space

Sampler = dict[str, Any]


class Endless(Exception):
    pass


def gridded(sampler: Sampler) -> tuple[int, bool]:
    """How many values NNI's grid search finds, and whether it ends."""
    tuner, found = GridSearchTuner(), set[float]()
    tuner.update_search_space({"x": sampler})
    divide, divisions = tuner._next_grid, iter(range(100))

    def divide_so_often() -> None:
        if next(divisions, None) is None:
            raise Endless
        divide()

    tuner._next_grid = divide_so_often
    try:
        while (params := tuner._suggest()) is not None:
            found.add(deformat_parameters(params, tuner.space)["x"])
    except Endless:
        return len(found), False
    return len(found), True


def samplers(count: int) -> list[Sampler]:
    chance, made = random.Random(0), list[Sampler]()
    for _ in range(count):
        step = chance.choice([1, 2, 3, 4, 0.1, 0.2, 0.25, 0.5, 7, 32])
        low = step * chance.choice([0.5, 1, 1.5, 2.3, chance.uniform(0.1, 5)])
        high = low + step * chance.choice([0.5 * chance.randint(2, 20), chance.uniform(1, 9)])
        made.append({"_type": chance.choice(["quniform", "qloguniform"]), "_value": [low, high, step]})
    return made


@pytest.mark.parametrize(
    ("values", "points", "ends"),
    [
        ([2, 14, 4], 5, False),
        ([6, 26, 4], 5, True),
        ([10, 100, 20], 6, True),
        ([16, 128, 32], 5, True),
        ([0.3, 1.5, 0.2], 8, False),
    ],
)
def test_quantised_points_are_counted_as_nni_makes_them(values: list[float], points: int, ends: bool) -> None:
    sampler = {"_type": "quniform", "_value": values}
    assert search_space.points(sampler) == points
    assert gridded(sampler) == (points, ends)
    assert search_space.has_lonely_end(sampler) is not ends


def test_any_quantised_range_is_counted_and_judged_as_nnis_grid_search_does() -> None:
    for sampler in samplers(200):
        expected = (int(search_space.points(sampler)), not search_space.has_lonely_end(sampler))
        assert gridded(sampler) == expected, sampler


@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "space.json"
    path.write_bytes(content)
    try:
        search_space.read(path)
    except RequestError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 300 + len(str(path))


TYPED = '{\n\t"lr": {"_type": "loguniform", "_value": [1e-4, 1E-1]}\n}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_read_as_json(tmp_path: Path, encoding: str) -> None:
    """As people type it: 1e-4, which YAML takes for a text, and tabs, which it refuses."""
    path = tmp_path / "space.json"
    path.write_bytes(TYPED.encode(encoding))
    assert search_space.read(path) == {"lr": {"_type": "loguniform", "_value": [0.0001, 0.1]}}


def test_what_nni_reads_as_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "space.yml"
    path.write_text("lr:\n  _type: choice\n  _value: [0.1, 0.2]  # two\n")
    assert search_space.read(path) == {"lr": {"_type": "choice", "_value": [0.1, 0.2]}}


def test_what_is_no_text_is_named_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_bytes("lr: {}".encode("utf-16"))
    with pytest.raises(RequestError, match=r"space\.json is no text in UTF-8: save it as UTF-8$"):
        search_space.read(path)


SPACE = {
    "width": {"_type": "qloguniform", "_value": [4, 32, 2]},
    "lr": {"_type": "loguniform", "_value": [0.0003, 0.1]},
    "batch_size": {"_type": "choice", "_value": [16, 32, 64]},
    "gradient_accumulation_steps": {"_type": "randint", "_value": [1, 3]},
    "flip": {"_type": "choice", "_value": [True, False]},
}
INSIDE = {"width": 8.0, "lr": 0.1, "batch_size": 16, "gradient_accumulation_steps": 2, "flip": True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"lr": 0.09999999999999995}, True),
        ({"lr": 0.10000000000000002}, True),  # through a logarithm and back
        ({"lr": 0.2}, False),
        ({"lr": "0.1"}, False),
        ({"lr": None}, False),
        ({"batch_size": 9}, False),
        ({"gradient_accumulation_steps": 3}, False),
        ({"gradient_accumulation_steps": 1.5}, False),
        ({"flip": 1}, False),
        ({"seed": 3}, True),  # what the space does not speak of
    ],
)
def test_what_fits_the_space_is_what_it_can_give(changes: dict[str, Any], expected: bool) -> None:
    assert search_space.fits(INSIDE | changes, SPACE) is expected


def test_a_missing_parameter_does_not_fit() -> None:
    assert not search_space.fits({name: value for name, value in INSIDE.items() if name != "lr"}, SPACE)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ({"type": "loguniform"}, False),
        (5, False),
        ({"_type": "uniform", "_value": [1]}, False),
        ({"_type": "uniform", "_value": "x"}, False),
        ({"_type": "normal", "_value": [0, 1]}, True),  # NNI's own, of an experiment that nnictl has run
    ],
)
def test_a_space_that_somebody_has_broken_fits_nothing(sampler: Any, expected: bool) -> None:
    assert search_space.fits({"lr": 7.0}, {"lr": sampler}) is expected


@given(st.randoms(use_true_random=False))
def test_whatever_nni_draws_fits(chance: Any) -> None:
    from nni.algorithms.hpo.random_tuner import RandomTuner

    tuner = RandomTuner(seed=chance.randrange(2**31))
    tuner.update_search_space(SPACE)
    assert search_space.fits(json.loads(json.dumps(tuner.generate_parameters(0))), SPACE)


@given(
    sampler=st.sampled_from([sampler for sampler in SPACE.values() if "uniform" in str(sampler["_type"])]),
    place=st.floats(0, 1),
)
def test_a_value_at_a_place_is_nnis(sampler: Sampler, place: float) -> None:
    space = format_search_space({"x": sampler})
    nni = deformat_parameters({("x",): space[("x",)].low + place * (space[("x",)].high - space[("x",)].low)}, space)
    assert search_space.value_at(place, sampler) == pytest.approx(nni["x"])
