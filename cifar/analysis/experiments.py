"""`cifar list` and `cifar compare`: experiments, one below the other and side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prettytable import PrettyTable

from cifar.analysis import answer as answers
from cifar.analysis.configurations import DEFAULTS
from cifar.console import as_wide_as_the_terminal, plain_table
from cifar.errors import RequestError
from cifar.search.facts import read_facts
from cifar.system.durations import duration_text
from cifar.training.hparams import command_model
from cifar.training.intervals import Interval
from cifar.trials import database, store
from cifar.trials.leaderboard import param_text
from cifar.trials.seed_noise import metric_of, seed_noise
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import interval


@dataclass(frozen=True)
class Summary:
    """What an experiment is about and what came of it; None where it has not come to that."""

    experiment: Path
    data: str
    model: str
    trials: list[Trial]
    best: Trial | None
    accuracy: Interval | None  # of the best, on validation images
    answer: dict[str, Any] | None  # of `cifar best` or `cifar fit`

    @classmethod
    def read(cls, experiment: Path) -> Summary:
        """RequestError where it is damaged."""
        trials, facts = store.read_trials(experiment), read_facts(experiment)
        names = [trial.data["name"] for trial in trials if "name" in trial.data]
        best = next(iter(best_first(trials)), None)
        accuracy = interval(best, seed_noise(trials, experiment)) if best else None
        data = Path(facts.data if facts else next(iter(names), "")).name
        model = command_model(str(store.read_config(experiment).get("trialCommand", "")))
        return cls(experiment, data, model, trials, best, accuracy, answers.read(experiment))

    @property
    def tested(self) -> str:
        """Test accuracy of the confirmed configuration; "" before there is one."""
        test = self.answer["tests"][0] if self.answer else None
        return answers.mean_text(test) if test else ""

    @property
    def when(self) -> str:
        """Of its last trial, as ls tells it: the hour of this year's, the year of older ones."""
        changed = datetime.fromtimestamp(database.last_change(self.experiment))
        return changed.strftime("%b %d %H:%M" if changed.year == datetime.now().year else "%b %d  %Y")


def listing(parent: Path) -> str:
    """All experiments in a directory, the latest first; one that is damaged says so in its line."""
    table = plain_table(["experiment", "data", "network", "trials", "best ± 95%", "test ± 95%", "when"])
    table.align["experiment"] = table.align["data"] = table.align["network"] = "l"
    damaged = []
    for experiment in store.experiments(parent):
        try:
            some = Summary.read(experiment)
        except RequestError as error:
            damaged.append(f"{experiment.name}: {error}")
            continue
        row = [len(some.trials), some.accuracy or "", some.tested, some.when]
        table.add_row([experiment.name, some.data, some.model, *row])
    if not table.rows and not damaged:
        return f"no experiments in {parent}; cifar search begins one"
    shown = as_wide_as_the_terminal(table, ("network", "data", "when"))
    return "\n".join([*([shown] if table.rows else []), *damaged])


def comparison(first: Path, second: Path) -> str:
    """Two experiments side by side, and whether the best of one is shown to be better than that of the other.

    RequestError where they are one.
    """
    if first == second:
        raise RequestError(f"compare needs two experiments, got {first.name} twice")
    both = Summary.read(first), Summary.read(second)
    table = plain_table(["", *(some.experiment.name for some in both)])
    table.align = "l"
    for name, values in _compared(*both):
        table.add_row([name, *values])
    return f"{_without_trailing_spaces(table)}\n{_verdict(*both)}"


def _without_trailing_spaces(table: PrettyTable) -> str:
    return "\n".join(line.rstrip() for line in str(table).splitlines())


def _compared(*both: Summary) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for some in both if some.best for name in some.best.params)
    return [
        ("data", [some.data for some in both]),
        ("network", [some.model for some in both]),
        ("trials", [str(len(some.trials)) for some in both]),
        ("search took", [duration_text(store.read_seconds(some.experiment)) for some in both]),
        ("a trial's budget", [_budget(some.best) for some in both]),
        ("leads the search", [f"trial {some.best.number}" if some.best else "" for some in both]),
        *((f"  {name}", [_param(some.best, name) for some in both]) for name in names),
        ("validation ± 95%", [str(some.accuracy or "") for some in both]),
        ("cifar best", [_winner(some) for some in both]),
        ("  test ± 95%", [some.tested for some in both]),
        ("  over defaults", [_gain(some.answer) for some in both]),
    ]


def _budget(trial: Trial | None) -> str:
    hparams = ((trial and trial.result) or {}).get("hparams") or {}
    images = hparams.get("images_per_epoch") or 0
    shown = f"{images:,} images" if images else "all images"
    return f"{hparams['epochs']} epochs of {shown}" if "epochs" in hparams else ""


def _param(trial: Trial | None, name: str) -> str:
    return param_text(trial.params.get(name, "")) if trial else ""


def _winner(some: Summary) -> str:
    """Which configuration `cifar best` or `cifar fit` has named."""
    if some.answer is None:
        return "not run yet"
    numbers = {trial.id: trial.number for trial in some.trials}
    winner = some.answer["winner"]
    return "the defaults" if winner == DEFAULTS else f"trial {numbers.get(winner, winner)}"


def _gain(answer: dict[str, Any] | None) -> str:
    gain = answer and answer.get("gain")
    return answers.points(gain) if gain else ""


def _verdict(first: Summary, second: Summary) -> str:
    if not (first.best and second.best and first.accuracy and second.accuracy):
        return "nothing to compare: no trial of one of them has finished"
    marks = [(trial.data.get("fingerprint"), trial.data.get("val_images")) for trial in (first.best, second.best)]
    if marks[0] != marks[1] or metric_of(first.best) != metric_of(second.best):
        return "their accuracies do not compare: they are about other data, or another metric"
    behind, ahead = sorted((first, second), key=lambda some: some.accuracy.value if some.accuracy else 0.0)
    assert behind.accuracy and ahead.accuracy
    difference = ahead.accuracy.value - behind.accuracy.value
    margin = math.hypot(ahead.accuracy.margin, behind.accuracy.margin)
    shown = f"{100 * difference:.1f} points ± {100 * margin:.1f}"
    if difference > margin:
        return f"the best of {ahead.experiment.name} is better, by {shown} on the same validation images"
    return f"neither is shown to be better: they are {shown} apart on the same validation images"
