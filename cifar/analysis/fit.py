"""`cifar fit`: the best network for these images that so much time gives: search, final training, model, report.

A part of the time is searched with small trials. The one that promises most is confirmed beside the defaults with new
seeds, where it is likely to be better; the better of the two trains for the rest of the time, on all images.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cifar.analysis import best
from cifar.analysis.configurations import Configuration, new_seeds, size_of
from cifar.analysis.confirm import MOST_ACCURATE, Confirmed
from cifar.analysis.last_training import SEEDS, Plans
from cifar.analysis.retrain import Failed, Trainer
from cifar.analysis.training_time import beside_each_other, measured_speed
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.search.plan import Request
from cifar.search.prepare import Prepared, claim_stopped, prepare_new, prepare_resumed
from cifar.search.run import search
from cifar.system import durations, processes
from cifar.system.files import read_json, short, write_json
from cifar.system.processes import seconds_here
from cifar.training.hparams import Hparams, command_size
from cifar.trials import layout, store

SPARE = 0.04  # of the time, for what is foreseen badly
_MEASURED_SHARE = 0.01  # of the time, to measure how long the last training takes
_REPORT_SECONDS = 3.0
_TOUCH_SECONDS = 2.0
_MINUTES = 600.0  # from where seconds are of no interest


@dataclass(frozen=True)
class Clock:
    """The time limit of an experiment, how much of it has been used, over all runs, and what has been decided."""

    limit: float
    used: float = 0.0
    searched: bool = False
    rivals: list[Configuration] | None = None  # to be confirmed; none where the defaults need not be
    last: Configuration | None = None  # what trains to the end
    since: float | None = None  # when the run that is under way began, or one that was killed

    @property
    def left(self) -> float:
        """Seconds, without those that are held back."""
        return self.limit * (1 - SPARE) - _REPORT_SECONDS - self.used - seconds_here()

    @staticmethod
    def read(experiment: Path) -> Clock:
        content = read_json(layout.fit(experiment))
        if content is None:
            raise RequestError(f"experiment {experiment.name} was not begun by cifar fit: use cifar best")
        try:
            rivals = None if content["rivals"] is None else [_configuration(some) for some in content["rivals"]]
            last = content["last"] and _configuration(content["last"])
            return Clock(content["limit"], content["used"], content["searched"], rivals, last, content.get("since"))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{layout.fit(experiment)} is of another version: {error!r}") from None

    def write(self, experiment: Path) -> None:
        write_json(layout.fit(experiment), asdict(self))


def _configuration(record: Mapping[str, Any]) -> Configuration:
    return Configuration(**{**record, "hparams": Hparams.from_params(record["hparams"])})


def begin(request: Request, limit: float, held: ExitStack) -> Prepared:
    """A new experiment that has so many seconds in all. RequestError where it cannot come to an answer."""
    prepared = prepare_new(replace(request, time_limit=limit), held)
    held.enter_context(prepared)
    best.load_tests(datasets.load(prepared.facts.data, command_size(prepared.config.trial_command)))
    prepared.directory.mkdir(parents=True, exist_ok=True)
    Clock(limit).write(prepared.directory)
    return prepared


def resume(request: Request, experiment_id: str, held: ExitStack) -> tuple[Path, Prepared | None]:
    """An experiment that was interrupted, and its search where that is not over."""
    experiment, claim = claim_stopped(request.config_path, experiment_id)
    claim.release()
    if Clock.read(experiment).searched or _search_is_over(experiment):
        return experiment, None
    return experiment, held.enter_context(prepare_resumed(request, held, experiment_id))


def _search_is_over(experiment: Path) -> bool:
    """Whether it was interrupted when all of its time was used, and its last trials were still ending."""
    most = durations.seconds(store.read_config(experiment).get("maxExperimentDuration"))
    return most is not None and store.read_seconds(experiment) >= most


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
        except Failed as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"what is trained is kept; resume with: cifar fit --resume {experiment.name}", file=sys.stderr)
            raise
        try:
            _report(experiment, data_name)
        except KeyboardInterrupt:
            print(f"the answer is kept; the report comes by: cifar report {experiment.name}", file=sys.stderr)
            raise
        return code


@contextlib.contextmanager
def _counted(experiment: Path) -> Iterator[None]:
    """Add up the seconds of this process, its start included, also where it is interrupted; and of one that was killed.

    The file's time says until when that one lived.
    """
    path, clock = layout.fit(experiment), Clock.read(experiment)
    lost = max(0.0, path.stat().st_mtime - clock.since) if clock.since else 0.0
    replace(clock, used=clock.used + lost, since=time.time() - seconds_here()).write(experiment)
    try:
        with _touched(path):
            yield
    finally:
        if path.exists():  # where NNI could not start, nothing of the experiment is left
            clock = Clock.read(experiment)
            replace(clock, used=clock.used + seconds_here(), since=None).write(experiment)


@contextlib.contextmanager
def _touched(path: Path) -> Iterator[None]:
    """Give a file the present time, every other second."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(_TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _finish(experiment: Path, dataset: Dataset) -> int:
    trials = store.read_trials(experiment)
    store.refuse_other_data(trials, dataset.fingerprint)
    tests, seeds = best.load_tests(dataset), new_seeds(trials, SEEDS)
    # Helpers of the trainings are forked from a process that begins to import now, while this one reads and measures.
    with processes.spawner("cifar.analysis.training_time"), best.training(experiment, dataset, 0) as trainer:

        @cache
        def plans() -> Plans:  # which measures for some seconds, and an earlier run may have decided all
            tested = sum(len(test.labels) for test in tests)
            return Plans(experiment, dataset, tested, measured_speed(experiment, trainer), trainer.claim.device)

        confirmed = _confirmed(experiment, plans, trainer, seeds)
        last = _last(experiment, plans, trainer, confirmed)
        print(f"training {last.name} ({last.budget_text}) with {SEEDS} new seeds, on all images", file=sys.stderr)
        trainer.expect(SEEDS)
        finals = trainer.final_models(last, seeds)
    return best.conclude(experiment, dataset, last, finals, tests, confirmed)


def _confirmed(experiment: Path, plans: Callable[[], Plans], trainer: Trainer, seeds: Sequence[int]) -> list[Confirmed]:
    """What promises most and the defaults, or nothing where these do; as an earlier run has decided."""
    clock = Clock.read(experiment)
    if clock.rivals is None:
        rival = plans().rival(clock.left)
        clock = replace(clock, rivals=[rival, plans().defaults(clock.left)] if rival else [])
        clock.write(experiment)
    if not clock.rivals:
        return []
    names = " and ".join(some.name for some in clock.rivals)
    print(f"confirming {names} ({clock.rivals[0].budget_text}), each with {SEEDS} new seeds", file=sys.stderr)
    trainer.expect(len(clock.rivals) * SEEDS)
    return [best.hold_round(trainer, clock.rivals, seeds, "search", MOST_ACCURATE)]


def _last(
    experiment: Path, plans: Callable[[], Plans], trainer: Trainer, confirmed: Sequence[Confirmed]
) -> Configuration:
    """What trains to the end, as an earlier run has decided or by the time that is left."""
    clock = Clock.read(experiment)
    if clock.last is None:
        winner = confirmed[0].winner.configuration if confirmed else plans().defaults(clock.left)
        planned = plans().last(winner, clock.left).hparams
        each = beside_each_other(trainer, planned, SEEDS, _MEASURED_SHARE * max(0.0, clock.left))
        clock = replace(clock, last=plans().last(winner, clock.left, each))
        clock.write(experiment)
    assert clock.last is not None
    return clock.last


def _report(experiment: Path, data_name: str) -> None:
    """Beside the model, where its packages are installed."""
    try:
        from cifar.analysis.report import report
    except ModuleNotFoundError as error:
        print(f"no report: it needs the package {error.name}: pip install -e '.[report]'", file=sys.stderr)
        return
    out = experiment / "report.html"
    report(experiment, out, data_name, running=False)
    clock = Clock.read(experiment)
    said = durations.duration_text if clock.limit > _MINUTES else lambda seconds: f"{seconds:.0f} s"
    took, limit = (said(seconds) for seconds in (clock.used + seconds_here(), clock.limit))
    print(f"report: {short(out)}\ntook {took} of {limit}")
