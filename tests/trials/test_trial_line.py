from __future__ import annotations

import shlex
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cifar.console import Parser
from cifar.training import augmentation, defaults
from cifar.training.hparams import WIDTHS, Hparams, add_arguments, given_arguments
from cifar.trials.store import Trial
from cifar.trials.trial_line import line_of, trial_line

PARAMS = st.fixed_dictionaries(
    {"model": st.sampled_from([*WIDTHS])},
    optional={
        "width": st.integers(1, 64),
        "lr": st.floats(1e-9, 10),
        "momentum": st.floats(0, 0.99),
        "batch_size": st.integers(1, 4096),
        "epochs": st.integers(1, 100),
        "images_per_epoch": st.integers(0, 50_000),
        "flip": st.booleans(),
        "nesterov": st.booleans(),
        "tta_flip": st.booleans(),
        "translate": st.integers(0, 4),
        "color_jitter": st.floats(0, 0.9),
        "schedule": st.sampled_from(["constant", "triangular"]),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "seed": st.integers(0, 9),
        "metric": st.sampled_from(["accuracy", "balanced_accuracy"]),
        "size": st.sampled_from([32, 64]),
    },
)


def read(line: str) -> tuple[dict[str, object], list[str]]:
    """The hyperparameters that a line names, and its other words."""
    parser = Parser()
    add_arguments(parser)
    options, others = parser.parse_known_args(shlex.split(line))
    return given_arguments(options), others


@given(PARAMS, st.integers(10, 60_000), st.sampled_from(["cifar10", "digits", "my photos"]))
def test_the_line_trains_the_very_same_configuration_on_any_number_of_images(
    params: dict[str, Any], images: int, data: str
) -> None:
    hparams = augmentation.fitting(defaults.for_data(params, images), data)
    given_again, others = read(trial_line(hparams, data))
    assert augmentation.fitting(defaults.for_data(given_again, images), data) == hparams
    assert others == ["python", "trial.py", *([] if data == "cifar10" else ["--data", data])]


def test_what_is_as_usual_is_left_out() -> None:
    line = trial_line(Hparams(width=8), "cifar10")
    assert line == "python trial.py --width 8 --lr 0.001 --momentum 0.9 --batch-size 4 --epochs 2"


def test_a_trial_of_another_version_or_without_a_result_has_no_line() -> None:
    assert line_of(Trial("a", 0, "RUNNING", {}, None)) is None
    result = {"hparams": {"colour": "blue"}, "data": {"name": "digits"}}
    assert line_of(Trial("a", 0, "SUCCEEDED", {}, result)) is None
    known = {**result, "hparams": {"width": 8}}
    assert line_of(Trial("a", 0, "SUCCEEDED", {}, known), "photos") == trial_line(Hparams(width=8), "photos")
