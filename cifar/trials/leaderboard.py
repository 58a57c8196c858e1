"""The table of an experiment's trials, the best first, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from cifar.console import as_wide_as_the_terminal, plain_table
from cifar.data.balance import is_uneven, why_useless
from cifar.training.intervals import Interval
from cifar.trials.seed_noise import SeedNoise, metric_of, seed_noise
from cifar.trials.store import COMPARED, Trial, best_first
from cifar.trials.ties import interval, ties
from cifar.trials.trial_line import line_of

_LEAST_IMPORTANT = ("trial", "parameters", "epochs", "seconds", "ended")  # columns that a narrow terminal does without


def leaderboard(trials: list[Trial], experiment: Path, rows: int | None = None) -> str:
    """The trials as text, those with an accuracy first, or the best `rows` of these; and how all of them ended."""
    ranked, noise = best_first(trials), seed_noise(trials, experiment)
    tied = ties(trials, experiment, noise)
    shown = ranked[:rows] if rows is not None else [*ranked, *_others(trials, ranked)]
    names, other = _param_names(shown), _other_accuracy(ranked)
    tuned = metric_of(ranked[0]) if ranked else "accuracy"
    head = [f"{_words(tuned)} ± 95%", "tie", *([_words(other)] if other else []), *names]
    table = plain_table(["No.", "trial", *head, "parameters", "epochs", "seconds", "ended"])
    table.align["ended"] = "l"
    for trial in shown:
        table.add_row(_row(trial, names, trial.id in tied, noise, other))
    summary = _summary(trials, ranked, len(tied), noise)
    if rows is not None and len(ranked) > rows:
        summary += f"; the best {rows} are shown"
    if ranked and (line := line_of(ranked[0])):
        summary += f"\nto train the leader again: {line}"
    least_important = [*_LEAST_IMPORTANT, *reversed(names)]
    return f"{as_wide_as_the_terminal(table, least_important)}\n{summary}" if shown else summary


def records(trials: list[Trial], experiment: Path) -> list[dict[str, Any]]:
    """One flat record per trial, those with an accuracy first; None for what a trial does not have.

    Ties, means and intervals are those of its configuration, which later trials may repeat with other seeds.
    """
    ranked, noise = best_first(trials), seed_noise(trials, experiment)
    tied, names = ties(trials, experiment, noise), _param_names(trials)
    return [
        _record(training, names, trial.id in tied, interval(trial, noise), trial)
        for trial in [*ranked, *_others(trials, ranked)]
        for training in trial.trainings
    ]


def _others(trials: list[Trial], ranked: list[Trial]) -> list[Trial]:
    known = {training.id for trial in ranked for training in trial.trainings}
    return [trial for trial in trials if trial.id not in known]


def as_json(trials: list[Trial], experiment: Path) -> str:
    return json.dumps(records(trials, experiment), indent=2)


def as_csv(trials: list[Trial], experiment: Path) -> str:
    lines = records(trials, experiment)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().rstrip("\n")


def _record(
    trial: Trial, names: list[str], tie: bool, of_configuration: Interval | None, first: Trial
) -> dict[str, Any]:
    result = trial.result or {}
    metrics = result.get("metrics") or {}
    return {
        "number": trial.number,
        "trial": trial.id,
        "accuracy": metrics.get("accuracy", trial.accuracy),
        "balanced_accuracy": metrics.get("balanced_accuracy"),
        "tuned": metric_of(trial),
        "configuration": of_configuration and of_configuration.value,
        "low_95": of_configuration and of_configuration.low,
        "high_95": of_configuration and of_configuration.high,
        "tie": tie,
        **{name: trial.params.get(name) for name in names},
        "repeats": None if trial.id == first.id else first.number,
        "parameters": _integer(metrics.get("parameters")),
        "epochs": result.get("epochs"),
        "seconds": result.get("seconds"),
        "ended": trial.status,
        "reason": trial.reason,
        "command": line_of(trial),
    }


def _row(trial: Trial, names: list[str], tie: bool, noise: SeedNoise, other: str | None) -> list[str]:
    result = trial.result or {}
    metrics = result.get("metrics") or {}
    parameters = _integer(metrics.get("parameters"))
    return [
        ", ".join(str(training.number) for training in trial.trainings),
        trial.id,
        str(interval(trial, noise) or "none") if trial.status in COMPARED else accuracy_text(trial),
        "=" if tie else "",
        *([_share(metrics.get(other))] if other else []),
        *(param_text(trial.params.get(name, "")) for name in names),
        "" if parameters is None else f"{parameters:,}",
        str(result.get("epochs", "")),
        f"{result['seconds']:.1f}" if result else "",
        _ending(trial),
    ]


def _summary(trials: list[Trial], ranked: list[Trial], tied: int, noise: SeedNoise) -> str:
    endings = Counter(trial.status for trial in trials)
    count = ", ".join(f"{number} {status}" for status, number in endings.most_common())
    number = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    lines = [f"{number}: {count or 'none has begun'}"]
    if any(trial.repeats for trial in ranked):
        lines.insert(0, "several numbers: one configuration with as many seeds, and their mean")
    if tied:
        lines.insert(0, f"=: {tied} configurations are tied for first: not shown to be worse than the best")
    if ranked:
        lines.insert(0, _guessing(trials))
        lines.insert(0, f"±: the 95 % interval of a configuration, over images and seeds ({noise})")
    return "\n".join(filter(None, lines))


def _guessing(trials: list[Trial]) -> str:
    """What all accuracies are to be measured by; "" where the trials of an earlier version do not say."""
    shares = [trial.data["largest_class_share"] for trial in trials if "largest_class_share" in trial.data]
    return f"guessing the largest class would get {shares[-1]:.1%}" if shares else ""


def _other_accuracy(ranked: list[Trial]) -> str | None:
    """Which accuracy stands beside the one that was tuned, where uneven classes make them differ."""
    if not ranked or "balanced_accuracy" not in (ranked[0].result or {}).get("metrics", {}):
        return None
    data = ranked[0].data
    if not is_uneven(data.get("largest_class_share", 0.0), data.get("classes", 0)):
        return None
    return "accuracy" if metric_of(ranked[0]) == "balanced_accuracy" else "balanced_accuracy"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _param_names(trials: list[Trial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)


def param_text(value: object) -> str:
    """A number as short as it may be, a name as it is."""
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def params_text(trial: Trial) -> str:
    """What a trial tried, on one line."""
    return ", ".join(f"{name} {param_text(value)}" for name, value in trial.params.items())


def _ending(trial: Trial) -> str:
    """How it ended, and why where that does not go without saying."""
    if trial.status == "ok" and (why := why_no_better(trial)):
        return f"ok: {why}"
    return trial.status if trial.status == "ok" or not trial.reason else f"{trial.status}: {trial.reason}"


def why_no_better(trial: Trial) -> str:
    """Why its network is no better than guessing; "" where it is, or where an earlier version does not say."""
    predicted = ((trial.result or {}).get("metrics") or {}).get("predicted_classes")
    share, classes = trial.data.get("largest_class_share"), trial.data.get("classes")
    if trial.accuracy is None or share is None or classes is None:
        return ""
    return why_useless(predicted, trial.accuracy, metric_of(trial), share, classes)


def accuracy_text(trial: Trial) -> str:
    """The accuracy of its network, or what stands in its place."""
    return "none" if trial.accuracy is None else f"{trial.accuracy:.1%}"
