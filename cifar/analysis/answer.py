"""The answer of `cifar best`: the text that it prints, and the file that keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prettytable import PrettyTable

from cifar.analysis.configurations import DEFAULTS, Configuration
from cifar.analysis.confirm import MOST_ACCURATE, Candidate, Confirmed, Rule
from cifar.analysis.final_test import FinalTest
from cifar.analysis.statistics import Mean
from cifar.console import first_that_fits, plain_table
from cifar.data.balance import why_useless
from cifar.errors import RequestError
from cifar.inference.model_file import SavedModel
from cifar.system.durations import duration_text
from cifar.system.files import read_json
from cifar.training.hparams import Hparams
from cifar.training.intervals import Interval, wilson
from cifar.trials import layout
from cifar.trials.leaderboard import param_text

_NOT_COMPARED: dict[str, Any] = {"defaults": None, "gain": None, "budgets": "", "out": [], "tied": [], "candidates": {}}
USELESS = "no network was found that beats guessing; give it more time, more pictures or another network"
_BEGINNING = 4  # letters of a class's name above a narrow table


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, over all runs of either command."""

    search: float
    best: float


@dataclass(frozen=True)
class Answer:
    """Which configuration is best, what it was compared with, and what the test images say of it.

    `confirmed` has one round at the search's budget and, where the final networks have another one, one at theirs; none
    where the search's own trials have decided.
    """

    winner: Configuration
    finals: list[SavedModel]
    test_results: list[FinalTest]
    cost: Cost
    confirmed: Sequence[Confirmed] = ()
    rule: Rule = MOST_ACCURATE

    @property
    def decisive(self) -> Confirmed | None:
        """The round at the final budget, whose winner is the answer."""
        return self.confirmed[-1] if self.confirmed else None

    @property
    def validation(self) -> Mean | None:
        return self.decisive.accuracy(self.decisive.winner) if self.decisive else None

    @property
    def is_longer(self) -> bool:
        """Whether the last networks have trained longer than what was compared."""
        return not (self.decisive and self.winner.budget_text in self.decisive.budgets)

    @property
    def of_the_model(self) -> Interval:
        """The test accuracy of the one network that is kept."""
        of_first = self.test_results[0].predictions[0]
        return wilson(float(of_first.correct.mean()), len(of_first.labels))


def text(answer: Answer) -> str:
    """The tables, and what they come to in the last lines, which a terminal still shows."""
    lines, accuracies = list[str](), list[str]()
    for title, confirmed in zip(_titles(answer), answer.confirmed, strict=False):
        lines += [title, first_that_fits(*map(str, _candidates_tables(confirmed)))]
    also = f", trained on the validation images too{f', {answer.winner.budget_text}' if answer.is_longer else ''}"
    for tested in answer.test_results:
        title = f"test images of {tested.name}, true classes down, predicted across, summed over the seeds:"
        lines += [title, first_that_fits(*map(str, _confusion_tables(tested)))]
        accuracies += [
            f"test accuracy on {tested.name}: {tested.accuracy} (95 % interval, {len(tested.predictions)} seeds, "
            f"{tested.images:,} images){also}",
            *_unevenness(tested),
        ]
    winner = f"winner: {answer.winner.name} ({answer.winner.params_text}), {_how_it_won(answer)}"
    useless = [f"warning: {USELESS}: {why}"] if (why := why_no_answer(answer)) else []
    found = record(answer)
    return "\n".join([*lines, "", winner, *useless, *accuracies, gain_text(found), *defaults_text(found)])


def _unevenness(tested: FinalTest) -> list[str]:
    if not tested.is_uneven:
        return []
    guessing = f"guessing the largest class would get an accuracy of {tested.guessing:.1%}"
    return [f"balanced accuracy: {tested.balanced_accuracy}; {guessing}"]


def gain_text(record: Mapping[str, Any]) -> str:
    """What the search was worth, from what best.json holds."""
    if "gain" not in record:
        return "gain over the defaults: not measured by the version that made this answer"
    gain = record["gain"]
    if gain is None and record.get("out"):
        return f"gain over the defaults: not known, as {' and '.join(record['out'])} could not be trained"
    if gain is None and record["winner"] == DEFAULTS:
        why = "leads" if record.get("candidates") else "is likely to be better"
        return f"gain over the defaults: none, as no other configuration {why}: use the defaults"
    if gain is None:
        return "gain over the defaults: not known, as the defaults cannot be trained"
    budgets = [f", {text}" for text in [record.get("budgets")] if text]
    by = f"95 % interval, {record['seeds']} new seeds, validation images{''.join(budgets)}"
    known = f"gain over the defaults: {points(gain)} ({by})"
    search, best = (duration_text(record[name]) for name in ("seconds_of_search", "seconds_of_best"))
    known += f", for {search} of search and {best} of confirming and training"
    if record["winner"] == DEFAULTS:
        return f"{known}: use the defaults" + (", which are quicker" if gain["mean"] > 0 else "")
    return known if gain["mean"] > gain["margin_95"] else f"{known}: it may be chance"


def defaults_text(record: Mapping[str, Any]) -> list[str]:
    """What the defaults are here; nothing where they are the winner, or an earlier version does not say."""
    params = record.get("defaults")
    if not params or record["winner"] == DEFAULTS:
        return []
    return [f"the defaults, here: {', '.join(f'{name} {param_text(value)}' for name, value in params.items())}"]


def mean_text(mean: Mapping[str, float]) -> str:
    """An accuracy as best.json holds it."""
    return f"{mean['mean']:.1%} ± {mean['margin_95']:.1%}"


def points(difference: Mapping[str, float]) -> str:
    return f"{100 * difference['mean']:+.1f} points ± {100 * difference['margin_95']:.1f}"


def _titles(answer: Answer) -> list[str]:
    """One for each round; networks that are validated and final at once have had one at the final budget."""
    return ["at the search's budget:", f"at the final budget, {answer.winner.budget_text}:"]


def _budgets_text(confirmed: Confirmed, final: Configuration) -> str:
    """Where the candidates did not see as many images as the last networks, or as each other."""
    if len(confirmed.budgets) == 1:
        (compared,) = confirmed.budgets
        return "" if compared == final.budget_text else f"after {compared}"
    known = {some.configuration.name: some.configuration.budget_text for some in confirmed.ranked}
    return ", ".join(f"{name} with {budget}" for name, budget in known.items())


def _how_it_won(answer: Answer) -> str:
    if answer.decisive is None:
        return "since no other is likely to be better"
    number = len(answer.decisive.tied)
    certainty = "no other ties with it" if number == 1 else f"{number} tie for first"
    if len(answer.decisive.candidates) == 1:
        return "the only one that trains"
    highest = answer.decisive.ranked[0].id
    if answer.winner.id == DEFAULTS != highest and answer.rule.prefer == "accuracy":
        return f"since nothing is better by more than luck; {certainty}"
    if answer.rule.prefer == "speed":
        shown = f"not to be worse than the highest mean by more than {100 * answer.rule.margin:g} points"
        return f"the quickest one that is shown {shown}; more seeds may show this of quicker ones"
    return f"the highest mean; {certainty}"


def why_no_answer(answer: Answer) -> str:
    """Why the winner is no better than guessing; "" where it is. It would otherwise look like an answer."""
    metric, tested = answer.winner.hparams.metric, answer.test_results[0]
    predictions, value = tested.predictions, tested.accuracy if metric == "accuracy" else tested.balanced_accuracy
    if answer.decisive and not answer.is_longer:
        predictions, value = answer.decisive.winner.predictions, answer.decisive.accuracy(answer.decisive.winner)
    labels = predictions[0].labels
    given = max(len(np.unique(some.predicted)) for some in predictions)
    share = float(np.bincount(labels).max() / len(labels))
    return why_useless(given, value.value, metric, share, len(np.unique(labels)))


def _candidates_tables(confirmed: Confirmed) -> Iterator[PrettyTable]:
    """Narrower and narrower."""
    columns: dict[str, Callable[[Candidate], str]] = {
        "configuration": lambda one: one.configuration.name,
        "trained": lambda one: _size_of_training(one.configuration.hparams),
        "trial": lambda one: "" if one.id == DEFAULTS else one.id,
        "in the search": lambda one: "" if one.configuration.found is None else f"{one.configuration.found:.1%}",
        f"{_tuned(confirmed)} ± 95%": lambda one: str(confirmed.accuracy(one)),
        "tie": lambda one: "=" if _is_tied(one.id, confirmed) else "",
        "seconds": lambda one: f"{one.seconds:.1f}",
    }
    if len(confirmed.budgets) == 1:
        del columns["trained"]
    for dropped in (None, "in the search", "trial", "seconds"):
        columns.pop(dropped or "", None)
        table = plain_table([*columns])
        table.align["configuration"] = "l"
        table.add_rows([[cell(candidate) for cell in columns.values()] for candidate in confirmed.ranked])
        yield table


def _size_of_training(hparams: Hparams) -> str:
    return f"{hparams.epochs} x {hparams.images_per_epoch:,}" if hparams.images_per_epoch else f"{hparams.epochs} x all"


def _tuned(confirmed: Confirmed) -> str:
    return confirmed.winner.configuration.hparams.metric.replace("_", " ")


def _is_tied(candidate: str, confirmed: Confirmed) -> bool:
    return len(confirmed.tied) > 1 and candidate in [some.id for some in confirmed.tied]


def _confusion_tables(tested: FinalTest) -> Iterator[PrettyTable]:
    """Narrower and narrower: with whole names above, with their beginnings, and without what is taken for what."""
    short = [name[:_BEGINNING] for name in tested.classes]
    for heads in (tested.classes, short if len({*short}) == len(short) else tested.classes, ()):
        table = plain_table(["", *heads, "accuracy"])
        for label, name in enumerate(tested.classes):
            row = tested.confusion[label]
            share = f"{row[label] / row.sum():.1%}" if row.sum() else "no image"
            table.add_row([name, *row[: len(heads)], share])
        yield table


def record(answer: Answer) -> dict[str, Any]:
    """As best.json has it; without candidates where none was trained beside the winner."""
    return {
        "winner": answer.winner.id,
        "params": answer.winner.params,
        **(_compared(answer.decisive, answer.winner) if answer.decisive else _NOT_COMPARED),
        "before": _round_record(answer.confirmed[0]) if len(answer.confirmed) > 1 else None,
        "useless": why_no_answer(answer),
        "seconds_of_search": answer.cost.search,
        "seconds_of_best": answer.cost.best,
        "rule": {"prefer": answer.rule.prefer, "margin": answer.rule.margin},
        "seeds": len(answer.finals),
        "final_epochs": answer.finals[0].hparams.epochs,
        "classes": list(answer.test_results[0].classes),
        "tests": [_test_record(tested) for tested in answer.test_results],
    }


def _compared(decisive: Confirmed, final: Configuration) -> dict[str, Any]:
    return {
        "defaults": next((some.configuration.params for some in decisive.candidates if some.id == DEFAULTS), None),
        "gain": decisive.gain and _mean_record(decisive.gain),
        "budgets": _budgets_text(decisive, final),
        "out": [some.name for some in decisive.out],
        "tied": [candidate.id for candidate in decisive.tied],
        "candidates": _round_record(decisive),
        "seconds": decisive.winner.seconds,
    }


def _round_record(confirmed: Confirmed) -> dict[str, Any]:
    return {candidate.id: _mean_record(confirmed.accuracy(candidate)) for candidate in confirmed.ranked}


def _test_record(tested: FinalTest) -> dict[str, Any]:
    confusion = tested.confusion.tolist()
    return {
        "data": tested.name,
        "images": tested.images,
        **_mean_record(tested.accuracy),
        "balanced_accuracy": _mean_record(tested.balanced_accuracy),
        "confusion": confusion,
    }


def _mean_record(mean: Mean) -> dict[str, float]:
    return {"mean": mean.value, "margin_95": mean.margin}


def read(experiment: Path) -> dict[str, Any] | None:
    """What best.json holds; None before there is one. RequestError where it is damaged or of another version."""
    path = layout.answer(experiment)
    answer = read_json(path)
    if answer is None:
        return None
    try:
        validated = [answer["candidates"][answer["winner"]]] if answer["candidates"] else []
        first, *others = answer["tests"]
        means = [*validated, first, *others, *filter(None, [answer.get("gain")])]
        shapes = [np.asarray(test["confusion"]).shape for test in answer["tests"]]
        size = len(answer["classes"])
        whole = all(isinstance(mean["mean"] + mean["margin_95"], float) for mean in means)
        known: dict[str, Any] = {**answer, "seeds": int(answer["seeds"]), "tied": list(answer["tied"])}
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} is of another version: {error!r} is missing or unfit") from None
    if not whole or any(shape != (size, size) for shape in shapes):
        raise RequestError(f"{path} is of another version")
    return known
