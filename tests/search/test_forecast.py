from __future__ import annotations

import contextlib
import json
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from experiments import ROOT
from torch import Tensor

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.search import forecast
from cifar.search.concurrency import Choice, choose_concurrency, forecast_line
from cifar.search.forecast import DoesNotFit, Throughput
from cifar.system import mps, places
from cifar.system.gpus import Gpu
from cifar.training.hparams import Hparams
from cifar.training.steps import new_step

SPACE: dict[str, Any] = json.loads((ROOT / "search_space.json").read_text())


def throughput(concurrency: int, per_hour: float) -> Throughput:
    return Throughput(concurrency, 3600 * concurrency / per_hour, 0.1, 10**9)


def test_the_largest_configuration_is_the_widest_with_the_biggest_batch() -> None:
    hparams = forecast.largest(SPACE, "python trial.py --epochs 8")
    assert (hparams.model, hparams.width, hparams.batch_size, hparams.epochs) == ("net", 32, 128, 8)


def test_of_several_networks_the_one_with_the_most_weights_is_the_largest() -> None:
    space = {"model": {"_type": "choice", "_value": ["lenet", "wide", "net"]}, "width": SPACE["width"]}
    assert forecast.largest(space, "python trial.py").model == "net"  # 32 channels are 5 times its own 6
    del space["width"]
    assert forecast.largest(space, "python trial.py").model == "wide"


def test_a_space_smaller_than_the_sample_gives_all_its_points() -> None:
    space = {"lr": {"_type": "choice", "_value": [0.1, 0.2, 0.3]}}
    assert {params["lr"] for params in forecast.samples(space, "python trial.py")} == {0.1, 0.2, 0.3}


def test_no_space_keeps_the_samples_from_ending() -> None:
    """NNI's own sampler would look for a fifth point of this one for ever."""
    space = {"width": {"_type": "quniform", "_value": [2, 14, 4]}}
    assert {params["width"] for params in forecast.samples(space, "python trial.py")} <= {2, 4, 8, 12, 14}


def test_samples_lie_in_the_space_and_keep_the_commands_hyperparameters() -> None:
    samples = forecast.samples(SPACE, "python trial.py --epochs 8")
    assert samples == forecast.samples(SPACE, "python trial.py --epochs 8")
    drawn = [Hparams.from_params(params) for params in samples]
    assert all(4 <= h.width <= 32 and 4 <= h.batch_size <= 128 and h.epochs == 8 for h in drawn)


def test_steps_are_measured_as_a_training_takes_them(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the smallest numbers as zero."""
    seen = list[float]()

    def stepping(*asked: Any) -> Callable[[Tensor, Tensor], Tensor]:
        step = new_step(*asked)
        return lambda *batch: seen.append(sys.float_info.min / 2) or step(*batch)  # type: ignore[func-returns-value]

    monkeypatch.setattr("cifar.search.forecast.new_step", stepping)
    assert forecast.step_seconds(Hparams(width=4), tiny, datasets.split(tiny), 0.0) > 0
    assert seen == [0.0, 0.0]
    assert sys.float_info.min / 2 > 0


def test_more_trials_at_once_must_pay() -> None:
    assert forecast.best([throughput(1, 100), throughput(2, 104)]).concurrency == 1
    assert forecast.best([throughput(1, 100), throughput(2, 190), throughput(4, 180)]).concurrency == 2


def test_no_more_is_measured_than_pays_or_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {1: throughput(1, 100), 2: throughput(2, 190), 4: throughput(4, 150), 8: throughput(8, 400)}
    monkeypatch.setattr(forecast, "measure", lambda _space, _command, _data, number, _variables: measured[number])
    assert [r.concurrency for r in forecast.throughputs({}, "", "", [1, 2, 4, 8])] == [1, 2, 4]


def test_what_does_not_fit_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_space: object, _command: str, _data: str, number: int, _variables: object) -> Throughput:
        if number > fits:
            raise DoesNotFit("the largest configuration does not fit")
        return throughput(number, 100 * number)

    monkeypatch.setattr(forecast, "measure", measure)
    fits = 2
    assert [r.concurrency for r in forecast.throughputs({}, "", "", [1, 2, 4])] == [1, 2]
    fits = 0
    with pytest.raises(RequestError, match="does not fit"):
        list(forecast.throughputs({}, "", "", [1, 2, 4]))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Processes started meanwhile may allocate 3 GB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.usefixtures("little_memory")
def test_a_configuration_that_needs_more_memory_than_there_is_does_not_fit() -> None:
    space = {"width": {"_type": "choice", "_value": [8, 1024]}}
    with pytest.raises(DoesNotFit, match=r"\(model wide, width 1024, batch_size 4\) does not fit: .*memory"):
        forecast.measure(space, "python trial.py --model wide", "digits", 1)


def test_what_ends_an_imitated_trial_before_it_begins_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has nothing to do with memory: here two processes that are to share a lock's folder open to all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places.claims().chmod(0o777)
    with pytest.raises(
        RequestError, match=r"a trial cannot begin: .* must be a folder of yours that nobody else may open"
    ):
        forecast.measure(SPACE, "python trial.py", "digits", 1)


@dataclass
class Config:
    """What choosing how many trials run at once reads of a config."""

    trial_concurrency: int
    search_space: dict[str, Any] = field(default_factory=dict)
    trial_command: str = "python trial.py"
    max_experiment_duration: str | None = None
    max_trial_duration: str | None = None


MPS = {"CUDA_MPS_PIPE_DIRECTORY": "/of/its/own"}


@pytest.mark.parametrize(
    ("concurrency", "auto", "per_hour_with", "choice"),
    [
        (4, False, 100, Choice(4, MPS)),
        (4, False, 26, Choice(4, {})),  # too little a gain
        (4, False, None, Choice(4, {})),  # it fails
        (1, False, 1000, Choice(1, {})),  # nobody to share with
        (1, True, 100, Choice(4, MPS)),
        (1, True, 20, Choice(2, {})),
    ],
)
def test_trials_share_a_gpu_by_mps_where_measuring_says_that_it_pays(
    monkeypatch: pytest.MonkeyPatch, concurrency: int, auto: bool, per_hour_with: float | None, choice: Choice
) -> None:
    started = list[int]()

    @contextlib.contextmanager
    def start(gpus: Sequence[Gpu]) -> Iterator[dict[str, str]]:
        started.append(len(gpus))
        yield MPS if gpus else {}
        started.pop()

    def measure(_space: object, _command: str, _data: str, number: int, variables: Mapping[str, str]) -> Throughput:
        if not variables:
            return throughput(number, {1: 60, 2: 100, 4: 100}[number])
        assert variables == MPS
        if per_hour_with is None:
            raise DoesNotFit("no memory")
        return throughput(number, per_hour_with * number)

    monkeypatch.setattr(forecast, "measure", measure)
    monkeypatch.setattr(forecast, "concurrencies", lambda: [1, 2, 4])
    monkeypatch.setattr(mps, "started", start)
    monkeypatch.setattr("cifar.search.concurrency.list_gpus", lambda: [Gpu("GPU-1", "", 0)])
    with contextlib.ExitStack() as held:
        assert choose_concurrency(Config(concurrency), "digits", [], auto, held) == choice
        assert started == ([1] if choice.mps else [])  # where it does not pay it has ended already
    assert not started


def test_where_each_trial_has_a_gpu_no_mps_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "measure", lambda *arguments: throughput(arguments[3], 100))
    monkeypatch.setattr(mps, "why_not", lambda gpus: pytest.fail("it was") if gpus else "no GPU")
    monkeypatch.setattr("cifar.search.concurrency.list_gpus", lambda: [Gpu(f"GPU-{n}", "", 0) for n in range(4)])
    with contextlib.ExitStack() as held:
        assert choose_concurrency(Config(4), "digits", [], False, held) == Choice(4, {})


def test_an_imitated_trial_gets_the_variables_that_trials_will_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as there:
        there.setenv("XDG_CACHE_HOME", str(tmp_path))
        places.claims().chmod(0o777)
    with pytest.raises(RequestError, match="nobody else may open"):
        forecast.measure(SPACE, "python trial.py", "digits", 1, {"XDG_CACHE_HOME": str(tmp_path)})


def test_the_kept_models_need_disk_too() -> None:
    hparams = forecast.largest(SPACE, "python trial.py --model wide")
    one, two = (forecast.disk_bytes(hparams, trials=1, concurrency=number) for number in (1, 2))
    network = 4 * forecast.parameter_count(hparams)
    assert two - one == 5 * network  # two checkpoints of weights and averages, and a model
    assert one > (5 + 5) * network  # and the five that are kept


def test_a_trial_takes_no_longer_than_it_may() -> None:
    assert throughput(2, 60).cut_off(None) == throughput(2, 60)
    assert throughput(2, 60).cut_off(9).trial_seconds == 9.5  # and half a second until the next one
    assert throughput(2, 60).cut_off(900) == throughput(2, 60)


def test_the_forecast_counts_what_bounds_the_search_first() -> None:
    start, end = "40 trials, 2 at once, 2 min each: about", "min if none is stopped early"
    assert forecast_line(throughput(2, 60), 40, None) == f"{start} 40 {end}"
    assert forecast_line(throughput(2, 60), 40, 600) == f"{start} 12 {end}"
    assert forecast_line(throughput(1, 60), None, None) == "trials, 1 at once, 60 s each: without an end"
