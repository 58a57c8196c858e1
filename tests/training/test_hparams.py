from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import pytest
from experiments import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cifar.errors import RequestError
from cifar.training.hparams import (
    RECIPES,
    WIDTHS,
    Hparams,
    add_arguments,
    command_hparams,
    given_arguments,
    present_name,
)

NAMES = [*asdict(Hparams())]
FORMER_NAMES = ["accumulate", "average", "mirrored", "shift"]
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


def test_defaults_are_the_tutorials_recipe() -> None:
    hparams = Hparams()
    assert (hparams.model, hparams.width, hparams.optimizer) == ("net", 6, "sgd")
    assert (hparams.lr, hparams.momentum, hparams.batch_size, hparams.epochs) == (0.001, 0.9, 4, 2)


@pytest.mark.parametrize(("model", "width"), WIDTHS.items())
def test_width_defaults_to_the_networks_own(model: str, width: int) -> None:
    assert Hparams(model=model).width == width
    assert Hparams(model=model, width=5).width == 5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width must be an integer from 1 to 1024, got 0"),
        ({"width": 16.5}, "width must be an integer from 1 to 1024, got 16.5"),
        ({"width": True}, "width must be an integer from 1 to 1024, got True"),
        ({"lr": 0}, "lr must be a number above 0, got 0"),
        ({"lr": float("nan")}, "lr must be a number above 0, got nan"),
        ({"lr": "0.1"}, "lr must be a number above 0, got '0.1'"),
        ({"lr": 10**400}, "lr must be a number above 0, got 1"),
        ({"momentum": 1.0}, "momentum must be a number from 0 to below 1, got 1.0"),
        ({"batch_size": -4}, "batch_size must be an integer from 1 to 1048576, got -4"),
        ({"model": "resnet"}, "model must be one of net, wide, lenet, fast, got 'resnet'"),
        ({"model": [1]}, "model must be one of"),
        ({"optimizer": "adamw"}, "optimizer must be one of sgd, adam, got 'adamw'"),
        ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0, got -0.1"),
        ({"lr": None}, "lr must have a value, got None"),
        ({"nesterov": 1}, "nesterov must be true or false, got 1"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a number from 0 to below 1, got 1.0"),
        ({"translate": 32}, "translate must be an integer from 0 to 31, got 32"),
        ({"schedule": "cosine"}, "schedule must be one of constant, triangular, got 'cosine'"),
        ({"gradient_accumulation_steps": 8}, r"gradient_accumulation_steps must be at most batch_size \(4\), got 8"),
        ({"shift": None}, "translate must have a value, got None"),
        ({"shift": 99}, "translate must be an integer from 0 to 31, got 99"),
        ({"shift": 1, "translate": 2}, "shift is the former name of translate: give one of them, got both"),
        ({"widht": 6}, "unknown hyperparameter 'widht'; known are model, width, size"),
    ],
)
def test_a_broken_rule_names_the_value_and_the_rule(params: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=f"^{message}"):
        Hparams.from_params(params)


@given(st.integers(1, 1024), st.integers(1, 2**20))
def test_whole_floats_from_quantised_samplers_are_integers(width: int, batch_size: int) -> None:
    hparams = Hparams.from_params({"width": float(width), "batch_size": float(batch_size)})
    assert (hparams.width, hparams.batch_size) == (width, batch_size)
    assert type(hparams.width) is int


@given(st.dictionaries(st.sampled_from([*NAMES, *FORMER_NAMES]) | st.text(max_size=5), ANYTHING, max_size=4))
def test_any_params_give_hparams_or_a_request_error(params: dict[str, Any]) -> None:
    try:
        hparams = Hparams.from_params(params)
    except RequestError as error:
        assert any(word in str(error) for name in params for word in (present_name(name), repr(name)))
    else:
        assert Hparams(**asdict(hparams)) == hparams
        json.dumps(asdict(hparams), allow_nan=False)


def test_the_command_line_knows_every_hyperparameter_and_keeps_only_those_given() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert given_arguments(parser.parse_args([])) == {}
    assert given_arguments(parser.parse_args(["--batch-size", "8", "--lr", "1"])) == {"batch_size": 8, "lr": 1.0}
    help_text = " ".join(parser.format_help().split())
    for name, default in asdict(Hparams()).items():
        assert f"--{name.replace('_', '-')}" in help_text
        shown = {True: "yes", False: "no"}[default] if isinstance(default, bool) else default
        assert name == "width" or f"(default: {shown}" in help_text
    assert "(default: net: 6; wide: 64; lenet: 16; fast: 64)" in help_text
    assert "(default: 0.001; fast: 1.5)" in help_text


def test_flags_are_switched_off_by_their_names() -> None:
    given, rest = command_hparams("python trial.py --model fast --no-flip --nesterov --no-tta-flip")
    assert given == {"model": "fast", "flip": False, "nesterov": True, "tta_flip": False}
    assert rest == ["python", "trial.py"]


def test_fast_has_a_recipe_of_its_own_and_each_value_can_be_replaced() -> None:
    fast = Hparams(model="fast")
    for name, value in RECIPES["fast"].items():
        assert getattr(fast, name) == value != getattr(Hparams(), name)
        assert getattr(Hparams(**{"model": "fast", name: getattr(Hparams(), name)}), name) == getattr(Hparams(), name)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("search_space.json", []),
        ("searches/fast/search_space.json", ["weight_decay", "label_smoothing"]),
        ("searches/fast-gpu/search_space.json", ["weight_decay", "label_smoothing"]),
    ],
)
def test_every_end_of_the_search_space_is_accepted(path: str, more: list[str]) -> None:
    space = json.loads((ROOT / path).read_text())
    assert [*space] == ["width", "lr", "momentum", "batch_size", *more]
    for name, sampler in space.items():
        for end in sampler["_value"][:2]:
            assert Hparams.from_params({name: float(end)})


def test_the_names_of_version_0_1_are_still_read(capsys: pytest.CaptureFixture[str]) -> None:
    former = {"accumulate": 2, "average": 0.5, "mirrored": True, "shift": 3}
    hparams = Hparams.from_params({"batch_size": 8, **former})
    present = (hparams.gradient_accumulation_steps, hparams.lookahead_decay, hparams.tta_flip, hparams.translate)
    assert present == tuple(former.values())
    given, rest = command_hparams("python trial.py --accumulate 2 --average=0.5 --no-mirrored --shift 3")
    assert given == {"gradient_accumulation_steps": 2, "lookahead_decay": 0.5, "tta_flip": False, "translate": 3}
    assert rest == ["python", "trial.py"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.print_help()
    shown = capsys.readouterr().out
    assert "--tta-flip" in shown
    assert not [name for name in former if f"--{name}" in shown]
