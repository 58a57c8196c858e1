"""`cifar fit`: the best network for these images that so much time gives: search, final training, model, report.

A part of the time is searched with small trials. In the rest the configuration that promises most for so long a
training and the defaults train with new seeds; nothing of it is trained twice.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from cifar.analysis import best
from cifar.analysis.configurations import Configuration, new_seeds, of_defaults, of_trial, size_of
from cifar.analysis.confirm import MOST_ACCURATE
from cifar.analysis.retrain import Failed
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.search.plan import Request
from cifar.search.prepare import Prepared, claim_stopped, prepare_new, prepare_resumed
from cifar.search.run import search
from cifar.system.files import read_json, short, write_json
from cifar.training.hparams import command_size
from cifar.trials import layout, store
from cifar.trials.store import Trial, best_first

SEARCH_SHARE = 0.4  # of the time
_SEEDS = 2
SPARE = 0.04  # of the time, for what is foreseen badly, the test images and the report
MOST_EPOCHS = 100
_FEWEST_PARTS = 4  # epochs of a training that has no time to see all images so often
_LEADERS = 20  # of the search, among which the finalist is chosen
# The error falls with this power of the images shown, as a wide network's does that has 39 % wrong after 40,000 of them
# (results/table.md) and 21 % after 360,000 (results/README.md); the learning rate that is best falls about as much.
_ERROR_POWER = _RATE_POWER = 0.25


@dataclass(frozen=True)
class Final:
    """What trains to the end: a trial's configuration, if there is one, and the defaults, on so many images."""

    trial: str | None
    epochs: int
    images_per_epoch: int


@dataclass(frozen=True)
class Clock:
    """The time limit of an experiment, how much of it has been used, over all runs, and what has been decided."""

    limit: float
    used: float = 0.0
    searched: bool = False
    final: Final | None = None

    @staticmethod
    def read(experiment: Path) -> Clock:
        content = read_json(layout.fit(experiment))
        if content is None:
            raise RequestError(f"experiment {experiment.name} was not begun by cifar fit: use cifar best")
        final = content["final"]
        return Clock(content["limit"], content["used"], content["searched"], Final(**final) if final else None)

    def write(self, experiment: Path) -> None:
        write_json(layout.fit(experiment), asdict(self))


def begin(request: Request, limit: float, held: ExitStack) -> Prepared:
    """A new experiment that has so many seconds in all. RequestError where it cannot come to an answer."""
    prepared = prepare_new(replace(request, search_seconds=SEARCH_SHARE * limit), held)
    held.enter_context(prepared)
    best.load_tests(datasets.load(prepared.facts.data, command_size(prepared.config.trial_command)))
    prepared.directory.mkdir(parents=True, exist_ok=True)
    Clock(limit).write(prepared.directory)
    return prepared


def resume(request: Request, experiment_id: str, held: ExitStack) -> tuple[Path, Prepared | None]:
    """An experiment that was interrupted, and its search where that is not over."""
    experiment, claim = claim_stopped(request.config_path, experiment_id)
    claim.release()
    if Clock.read(experiment).searched:
        return experiment, None
    return experiment, held.enter_context(prepare_resumed(request, held, experiment_id))


def go_on(experiment: Path, data_name: str, prepared: Prepared | None = None) -> int:
    """What is left to do; `prepared` is the search, None where that is over. RequestError where nothing is."""
    if layout.answer(experiment).exists():
        raise RequestError(f"experiment {experiment.name} already has an answer, {layout.answer(experiment)}")
    with _counted(experiment):
        if prepared is not None:
            code = search(prepared, keep_open=False, resume_command=f"cifar fit --resume {experiment.name}")
            if code:
                return code
            replace(Clock.read(experiment), searched=True).write(experiment)
        try:
            code = _finish(experiment, datasets.load(data_name, size_of(experiment)))
            _report(experiment, data_name)
            return code
        except Failed as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"what is trained is kept; resume with: cifar fit --resume {experiment.name}", file=sys.stderr)
            raise


@contextlib.contextmanager
def _counted(experiment: Path) -> Iterator[None]:
    """Add up the seconds of this process, its start included, also where it is interrupted."""
    try:
        yield
    finally:
        clock = Clock.read(experiment)
        replace(clock, used=clock.used + _seconds_here()).write(experiment)


def _seconds_here() -> float:
    return time.time() - psutil.Process().create_time()


def _finish(experiment: Path, dataset: Dataset) -> int:
    trials, images = store.read_trials(experiment), len(datasets.split(dataset).train)
    tests = best.load_tests(dataset)
    clock = Clock.read(experiment)
    if clock.final is None:
        left = clock.limit * (1 - SPARE) - clock.used - _seconds_here()
        clock = replace(clock, final=_planned(experiment, trials, images, left))
        clock.write(experiment)
    assert clock.final is not None
    racing = [*_racing(experiment, trials, dataset.name, images, clock.final)]
    _say_what_follows(racing, clock.final)
    seeds = new_seeds(trials, _SEEDS)
    with best.training(experiment, dataset, len(racing) * len(seeds)) as trainer:
        confirmed = best.hold_round(trainer, racing, seeds, "fit", MOST_ACCURATE)
        finals = trainer.fitted_models(confirmed.winner.configuration, seeds)
    return best.conclude(experiment, dataset, [confirmed], MOST_ACCURATE, finals, tests, trained_on_validation=False)


def _report(experiment: Path, data_name: str) -> None:
    """Beside the model, where its packages are installed."""
    try:
        from cifar.analysis.report import report
    except ModuleNotFoundError as error:
        print(f"no report: it needs the package {error.name}: pip install -e '.[report]'", file=sys.stderr)
        return
    out = experiment / "report.html"
    report(experiment, out, data_name, running=False)
    used, limit = Clock.read(experiment).used + _seconds_here(), Clock.read(experiment).limit
    print(f"report: {short(out)}\ntook {used:,.0f} of {limit:,.0f} seconds")


def _planned(experiment: Path, trials: Sequence[Trial], images: int, seconds: float) -> Final:
    """The trial that promises most if it and the defaults train for so many seconds, and for how long they do.

    They see at least as many images as the trials did, if need be beyond the time.
    """
    config = store.read_config(experiment)
    known = ((config.get("tuner") or {}).get("classArgs") or {}).get("defaults")
    ranked = best_first([*trials])
    if not ranked:
        raise Failed("no trial of the search has finished")
    whole = [trial for trial in ranked if trial.status == "ok" and trial.params != known][:_LEADERS]
    defaults = next((trial for trial in ranked if trial.params == known), ranked[0])
    beside, at_once = _image_seconds(defaults, images), int(config.get("trialConcurrency", 1))

    def shown(*image_seconds: float) -> float:
        most = min(seconds / makespan(image_seconds, at_once), float(MOST_EPOCHS * images))
        return max(most, _shown_planned(ranked[0], images))

    if not whole:
        return Final(None, *budget_of(shown(beside), images))
    of_each = {trial.id: shown(_image_seconds(trial, images), beside) for trial in whole}
    best_one = min(whole, key=lambda trial: expected_error(trial, images, of_each[trial.id]))
    return Final(best_one.id, *budget_of(of_each[best_one.id], images))


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """How long trainings of so many seconds take, each with every seed, in this order and so many at once."""
    ends = [0.0] * at_once
    for each in seconds:
        for _ in range(_SEEDS):
            ends[ends.index(min(ends))] += each
    return max(ends)


def expected_error(trial: Trial, images: int, shown: float) -> float:
    """The share of validation images that the trial's configuration would get wrong if it saw so many images."""
    grown = max(1.0, shown / _shown_planned(trial, images))
    wrong: float = (1.0 - (trial.accuracy or 0.0)) * grown**-_ERROR_POWER
    return wrong


def budget_of(shown: float, images: int) -> tuple[int, int]:
    """Epochs and images per epoch that show about so many images."""
    epochs = max(_FEWEST_PARTS, math.ceil(shown / images))
    return epochs, max(1, min(images, int(shown / epochs)))


def _image_seconds(trial: Trial, images: int) -> float:
    result = trial.result or {}
    epochs = int(result.get("epochs", 0))
    shown = epochs * of_trial(trial).hparams.epoch_images(images)
    return float(result["seconds"]) / shown if shown else 0.0


def _shown_planned(trial: Trial, images: int) -> float:
    hparams = of_trial(trial).hparams
    return float(hparams.epochs * hparams.epoch_images(images))


def _racing(
    experiment: Path, trials: Sequence[Trial], data_name: str, images: int, final: Final
) -> Iterator[Configuration]:
    """The trial's configuration and the defaults, fitted to the final training."""
    epochs, per_epoch = final.epochs, final.images_per_epoch
    for trial in (trial for trial in trials if trial.id == final.trial):
        found = of_trial(trial)
        shrunk = (epochs * per_epoch / _shown_planned(trial, images)) ** -_RATE_POWER
        lr = found.hparams.lr * min(1.0, shrunk)
        hparams = replace(found.hparams, epochs=epochs, images_per_epoch=per_epoch, lr=lr)
        params = {name: lr if name == "lr" else value for name, value in found.params.items()}
        yield replace(found, hparams=hparams, params=params)
    yield of_defaults(experiment, data_name, images, epochs=epochs, images_per_epoch=per_epoch)


def _say_what_follows(racing: Sequence[Configuration], final: Final) -> None:
    who = " and ".join(some.name for some in racing)
    shown = f"{final.epochs} epochs of {final.images_per_epoch:,} images"
    print(f"training {who} with {_SEEDS} new seeds each, for {shown}", file=sys.stderr)
