"""A search's progress: a line for each trial that ends, and on a terminal two lines that say how things stand."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from cifar.search.experiment import Experiment
from cifar.system.durations import duration_text
from cifar.trials.leaderboard import accuracy_text, params_text, why_no_better
from cifar.trials.store import Trial, best_first, read_seconds


class Progress:
    """Shows one run of an experiment on stderr, which it may share with others' messages."""

    def __init__(self, experiment: Experiment, trials: list[Trial]) -> None:
        """`trials` are those of earlier runs, which need no line any more."""
        self._experiment = experiment
        self._shown = {trial.id for trial in trials if trial.ended}
        self._before = len(self._shown)
        self._began = time.monotonic()
        self._lines = [
            tqdm(position=position, disable=None, bar_format="{desc}", dynamic_ncols=True, leave=False, file=sys.stderr)
            for position in (0, 1)
        ]

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        for line in reversed(self._lines):
            line.close()

    def show(self, trials: list[Trial]) -> None:
        status = [f"{self._counts(trials)}; {self._time_left(trials)}", best_line(trials)]
        for trial in trials:
            if trial.ended and trial.id not in self._shown:
                self._shown.add(trial.id)
                line = ended_line(trial, trials)
                is_terminal = not self._lines[0].disable
                self.tell(line if is_terminal else "; ".join([line, *status]))
        for shown, text in zip(self._lines, status, strict=True):
            shown.set_description_str(text)

    def tell(self, line: str) -> None:
        """A line above what changes."""
        tqdm.write(line, file=sys.stderr)

    def _counts(self, trials: list[Trial]) -> str:
        done = sum(trial.ended for trial in trials)
        counts = {
            "running": len(trials) - done,
            "stopped early": sum(trial.status == "stopped_early" for trial in trials),
            "failed": sum(trial.failed for trial in trials),
        }
        wanted = self._experiment.max_trials
        total = f" of {wanted}" if wanted else ""
        return ", ".join([f"{done}{total} done", *(f"{count} {name}" for name, count in counts.items())])

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


def ended_line(trial: Trial, trials: list[Trial]) -> str:
    """A trial that has ended: what it tried, how well, and how it ended."""
    repeated = _repeated(trial, trials)
    what = params_text(trial) if repeated is None else f"trial {repeated.number} again, seed {trial.params['seed']}"
    return f"trial {trial.number} ({what}): {accuracy_text(trial)}, {ending(trial)}"


def _repeated(trial: Trial, trials: list[Trial]) -> Trial | None:
    """The earlier trial that this one repeats with a seed of its own, if it does."""
    params = {name: value for name, value in trial.params.items() if name != "seed"}
    earlier = [some for some in trials if some.number < trial.number and some.params == params]
    return earlier[0] if earlier and "seed" in trial.params else None


def ending(trial: Trial) -> str:
    """How a trial ended, and why where it did not just run to its end."""
    name = trial.status.replace("_", " ")
    if trial.status == "ok" and (why := why_no_better(trial)):
        return f"ok, but {why}"
    return name if trial.status == "ok" else f"{name} ({trial.reason or 'see its trial.stderr'})"


def best_line(trials: list[Trial]) -> str:
    ranked = best_first(trials)
    if not ranked:
        return "no result yet"
    return f"best {accuracy_text(ranked[0])} in trial {ranked[0].number} ({params_text(ranked[0])})"
