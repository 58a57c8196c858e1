"""A search's progress: a line for each trial that ends, and on a terminal a bar, the best and what is running."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from cifar.console import say
from cifar.search.experiment import Experiment
from cifar.system.durations import duration_text
from cifar.trials.leaderboard import accuracy_text, params_text, why_no_better
from cifar.trials.store import Trial, best_first, read_seconds

Epochs = Mapping[str, tuple[int, float]]  # per trial id how many it has trained, and its accuracy after them

_MOST_RUNNING = 6  # trials with a line of their own
_BAR = "{bar:20} {desc}"


class Progress:
    """Shows one run of an experiment on stderr, which it may share with others' messages."""

    def __init__(self, experiment: Experiment, trials: list[Trial]) -> None:
        """`trials` are those of earlier runs, which need no line any more."""
        self._experiment = experiment
        self._shown = {trial.id for trial in trials if trial.ended}
        self._before = len(self._shown)
        self._began = time.monotonic()
        self._bar = tqdm(total=1.0, position=0, disable=None, bar_format=_BAR, leave=False, file=sys.stderr)
        self._below: list[tqdm[Any]] = []

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        for line in reversed(self._below):
            line.close()
        self._bar.close()

    def show(self, trials: list[Trial], epochs: Epochs) -> None:
        """`epochs` are those of the trials that run; earlier ones may be among them."""
        left = self._time_left(trials)
        for trial in trials:
            if trial.ended and trial.id not in self._shown:
                self._shown.add(trial.id)
                if self._bar.disable:
                    count = f"{len(self._shown)}{self._total()}"
                    self.tell(f"{ended_line(trial)}; {count}, {left}; {_best_short(trials)}")
                else:
                    self.tell(ended_line(trial, tried(trial, trials)))
        if not self._bar.disable:
            self._bar.n = self._share(trials)
            self._bar.set_description_str(f"{self._counts(trials)}; {left}")
            self._show_below([best_line(trials), *running_lines(trials, epochs)])

    def tell(self, line: str) -> None:
        """A line above what changes."""
        say(line)

    def _show_below(self, texts: Sequence[str]) -> None:
        while len(self._below) < len(texts):
            place = len(self._below) + 1
            self._below.append(tqdm(position=place, bar_format="{desc}", leave=False, file=sys.stderr))
        width = shutil.get_terminal_size().columns - 1  # a wrapped line would stay where it is
        for number, line in enumerate(self._below):
            line.set_description_str(_cut(texts[number], width) if number < len(texts) else "")

    def _total(self) -> str:
        wanted = self._experiment.max_trials
        return f" of {wanted}" if wanted else ""

    def _counts(self, trials: list[Trial]) -> str:
        counts = {
            "stopped early": sum(trial.status == "stopped_early" for trial in trials),
            "failed": sum(trial.failed for trial in trials),
        }
        done = f"{sum(trial.ended for trial in trials)}{self._total()} trials"
        return ", ".join([done, *(f"{count} {name}" for name, count in counts.items() if count)])

    def _share(self, trials: list[Trial]) -> float:
        """How much of the search is done, by its trials or by its time, whichever ends it."""
        wanted, max_seconds = self._experiment.max_trials, self._experiment.max_seconds
        shares = [sum(trial.ended for trial in trials) / wanted] if wanted else []
        shares += [read_seconds(self._experiment.directory) / max_seconds] if max_seconds else []
        return min(1.0, max(shares, default=0.0))

    def _time_left(self, trials: list[Trial]) -> str:
        done = sum(trial.ended for trial in trials)
        halves = done + (len(trials) - done) / 2  # those that run are half-way, on average
        elapsed = time.monotonic() - self._began
        wanted, max_seconds = self._experiment.max_trials, self._experiment.max_seconds
        estimates = []
        if wanted and done > self._before:
            estimates.append(elapsed / (halves - self._before) * (wanted - halves))
        if max_seconds:
            estimates.append(max(0.0, max_seconds - read_seconds(self._experiment.directory)))
        return f"about {duration_text(min(estimates))} left" if estimates else "time left not known yet"


def _cut(text: str, width: int) -> str:
    """As much of it as fits, without a part of a value."""
    return text if len(text) <= width else f"{text[: width - 4].rpartition(', ')[0]}, ..."


def running_lines(trials: Sequence[Trial], epochs: Epochs) -> Iterator[str]:
    """A line for each trial that runs: how far it is, how well, and what it tries."""
    running = [trial for trial in trials if not trial.ended]
    for trial in running[:_MOST_RUNNING]:
        number, accuracy = epochs.get(trial.id, (0, 0.0))
        state = f"epoch {number}, {accuracy:.1%}" if number else "starting"
        yield f"  trial {trial.number}: {state:<15} {params_text(trial)}"
    if len(running) > _MOST_RUNNING:
        yield f"  and {len(running) - _MOST_RUNNING} more are running"


def ended_line(trial: Trial, tried: str = "") -> str:
    """A trial that has ended: how well, what it tried if that is given, and how it ended where not as planned."""
    end, what = ending(trial), f" ({tried})" if tried else ""
    return f"trial {trial.number}: {accuracy_text(trial)}{what}{'' if end == 'ok' else f', {end}'}"


def tried(trial: Trial, trials: list[Trial]) -> str:
    """Its parameters, or which trial it repeats."""
    repeated = _repeated(trial, trials)
    return params_text(trial) if repeated is None else f"trial {repeated.number} again, seed {trial.params['seed']}"


def _repeated(trial: Trial, trials: list[Trial]) -> Trial | None:
    """The earlier trial that this one repeats with a seed of its own, if it does."""
    params = {name: value for name, value in trial.params.items() if name != "seed"}
    earlier = [some for some in trials if some.number < trial.number and some.params == params]
    return earlier[0] if earlier and "seed" in trial.params else None


def ending(trial: Trial) -> str:
    """How a trial ended, and why where it did not just run to its end."""
    name = trial.status.replace("_", " ")
    if trial.status == "ok" and (why := why_no_better(trial)):
        return f"but {why}"
    if trial.status == "stopped_early" and trial.reason:
        return trial.reason  # which says that, and after how many epochs
    return name if trial.status == "ok" else f"{name} ({trial.reason or 'see its trial.stderr'})"


def best_line(trials: list[Trial]) -> str:
    ranked = best_first(trials)
    if not ranked:
        return "no result yet"
    return f"best: trial {ranked[0].number}, {accuracy_text(ranked[0])} ({params_text(ranked[0])})"


def _best_short(trials: list[Trial]) -> str:
    ranked = best_first(trials)
    return f"best {accuracy_text(ranked[0])} in trial {ranked[0].number}" if ranked else "no result yet"
