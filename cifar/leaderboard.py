"""The table of an experiment's best trials."""

from __future__ import annotations

from collections import Counter

from prettytable import PrettyTable, TableStyle

from cifar.store import Trial, best_first


def leaderboard(trials: list[Trial], rows: int = 10) -> str:
    """The best `rows` trials as text, and a line that counts how all of them ended."""
    ranked = best_first(trials)
    names = list(dict.fromkeys(name for trial in ranked for name in trial.params))
    table = PrettyTable(["No.", "trial", "accuracy", *names, "epochs", "seconds", "ended"])
    table.set_style(TableStyle.PLAIN_COLUMNS)
    table.left_padding_width, table.right_padding_width = 0, 2
    table.align = "r"
    for trial in ranked[:rows]:
        table.add_row(_row(trial, names))
    endings = Counter(trial.status for trial in trials)
    count = ", ".join(f"{number} {status}" for status, number in endings.most_common())
    summary = f"{len(trials)} trials: {count or 'none has begun'}"
    if len(ranked) > rows:
        summary += f"; the best {rows} are shown"
    return f"{table}\n{summary}" if ranked else summary


def _row(trial: Trial, names: list[str]) -> list[str]:
    result = trial.result or {}
    return [
        str(trial.number),
        trial.id,
        accuracy_text(trial),
        *(_param_text(trial.params.get(name, "")) for name in names),
        str(result.get("epochs", "")),
        f"{result.get('seconds', 0):.1f}",
        trial.status,
    ]


def _param_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)  # model and optimizer are names


def params_text(trial: Trial) -> str:
    """What a trial tried, on one line."""
    return ", ".join(f"{name} {_param_text(value)}" for name, value in trial.params.items())


def accuracy_text(trial: Trial) -> str:
    """Accuracy and its standard error in per cent, or what stands in their place."""
    if trial.accuracy is None or trial.standard_error is None:
        return "none"
    return f"{trial.accuracy:.1%} ± {trial.standard_error:.1%}"
