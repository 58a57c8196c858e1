"""`cifar best`: names the winner of a search, with an interval, and leaves its model.

A trial that leads a search is partly lucky. So the leading trials, which the validation images cannot tell apart, are
trained again with new seeds; the winner is then trained on the validation images too, and only these last networks see
test images.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from prettytable import PrettyTable

from cifar.analysis.confirm import (
    MOST_CANDIDATES,
    Candidate,
    Confirmed,
    Prefer,
    decide,
    leading,
    new_seeds,
    with_seeds,
)
from cifar.analysis.final_test import FinalTest, read_test_images, refuse_known, refuse_unfit
from cifar.analysis.retrain import Failed, Trainer
from cifar.analysis.statistics import Mean
from cifar.console import plain_table
from cifar.data import datasets, test_log
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.system import mps
from cifar.system.files import read_json, write_json
from cifar.system.gpus import list_gpus
from cifar.training.hparams import Hparams
from cifar.trials import layout, store
from cifar.trials.intervals import Interval, wilson
from cifar.trials.leaderboard import params_text
from cifar.trials.store import Trial


@dataclass(frozen=True)
class Answer:
    """Which configuration is best, what it was compared with, and what the test images say of it."""

    confirmed: Confirmed
    rule: Rule
    finals: list[SavedModel]
    test_results: list[FinalTest]

    @property
    def winner(self) -> Candidate:
        return self.confirmed.winner


@dataclass(frozen=True)
class Rule:
    """What wins: the highest mean, or the quickest of those that are not worse by `margin`, a fraction."""

    prefer: Prefer = "accuracy"
    margin: float = 0.005

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise RequestError(f"--margin must be from 0 to 100 points, got {100 * self.margin:g}")


MOST_ACCURATE = Rule()


@dataclass(frozen=True)
class Budget:
    """How many trainings each leading trial gets, and how long the final networks train; None: as in the search."""

    seeds: int
    final_epochs: int | None = None  # of all images, also where the search drew fewer

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise RequestError(
                f"--seeds must be at least 2, got {self.seeds}: one training says nothing of the chance in it"
            )
        try:
            self.of_finals(Hparams())
        except RequestError as error:
            raise RequestError(f"--final-{error}") from None

    def of_finals(self, hparams: Hparams) -> Hparams:
        if self.final_epochs is None:
            return hparams
        return replace(hparams, epochs=self.final_epochs, images_per_epoch=0)


def best(
    experiment: Path,
    data_name: str,
    budget: Budget,
    second_test: str | None,
    force: bool,
    rule: Rule = MOST_ACCURATE,
) -> int:
    """Confirm the leading trials with new seeds, and test the winner; returns 1 where training fails."""
    if (layout.answer(experiment)).exists() and not force:
        raise RequestError(
            f"experiment {experiment.name} has its answer, {layout.answer(experiment)}; --force replaces it, "
            "and reads the test images once more"
        )
    test_log.read(layout.test_log(experiment))  # damaged, it is to be mended before anything is added
    searched = store.read_trials(experiment)
    leaders, dataset = leading(searched, experiment), datasets.load(data_name)
    trials = leaders[:MOST_CANDIDATES]
    store.refuse_other_data(trials, dataset.fingerprint)
    tests = [datasets.load_test(data_name)]
    if second_test:
        tests.append(datasets.load_test_folder(second_test))
        refuse_known(tests[-1], dataset)
    for test in tests:
        refuse_unfit(test, dataset.classes)
    _say_what_follows(leaders, trials, budget.seeds)
    directory = layout.confirmed(experiment)
    directory.mkdir(exist_ok=True)
    try:
        at_once = int(store.read_config(experiment).get("trialConcurrency", 1))
        gpus = list_gpus()
        with FileLock(directory / ".lock", timeout=0), mps.started(gpus if at_once > len(gpus) else []) as shared:
            os.environ.update(shared)
            trainer = Trainer(directory, dataset, at_once, (len(trials) + 1) * budget.seeds)
            seeds = new_seeds(searched, budget.seeds)
            return _confirm(experiment, trainer, trials, seeds, budget, rule, tests)
    except Timeout:
        raise RequestError(f"another cifar best is at work on experiment {experiment.name}") from None
    except Failed as failure:
        _say(f"error: {failure}")
        return 1
    except KeyboardInterrupt:
        _say("what is trained is kept: the same command goes on from here")
        raise


def _say_what_follows(leaders: Sequence[Trial], chosen: Sequence[Trial], seeds: int) -> None:
    if len(leaders) == 1:
        _say(f"one trial leads: training with {seeds} new seeds, then on all but the test images")
        return
    some = f", the best {len(chosen)} of them" if len(leaders) > len(chosen) else ""
    _say(
        f"{len(leaders)} trials lead and cannot be told apart: training{some} with {seeds} new seeds each, "
        "then the winner on all but the test images"
    )


def _candidates(trainer: Trainer, trials: Sequence[Trial], seeds: Sequence[int]) -> list[Candidate]:
    """The trials that train with each of the seeds: one that diverges with another seed than its own is no winner."""
    candidates = list[Candidate]()
    for trial, trained in trainer.candidates(trials, seeds):
        if isinstance(trained, Failed):
            _say(f"trial {trial.number} is out: {trained}")
        else:
            candidates.append(trained)
    if not candidates:
        raise Failed("no leading trial trains again")
    return candidates


def _confirm(
    experiment: Path,
    trainer: Trainer,
    trials: Sequence[Trial],
    seeds: Sequence[int],
    budget: Budget,
    rule: Rule,
    tests: Sequence[Dataset],
) -> int:
    candidates = _candidates(trainer, trials, seeds)
    confirmed = decide(candidates, rule.margin, rule.prefer)
    winner = confirmed.winner
    seeded = with_seeds(winner.trial, seeds)
    finals = trainer.final_models(winner.trial, [budget.of_finals(hparams) for hparams in seeded])
    trainer.progress.close()
    test_results = [read_test_images(experiment, finals, test, winner.trial.id) for test in tests]
    answer = Answer(confirmed, rule, finals, test_results)
    path = layout.best_model(experiment)
    _save_model(path, trainer.dataset, answer)
    write_json(layout.answer(experiment), _record(answer))
    print(_text(answer))
    print(f"model: {path}, the first seed's, which alone has {_of_the_model(answer)}")
    print("\n".join([test_log.summary(layout.test_log(experiment)), *map(test_log.count, tests)]))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _save_model(path: Path, dataset: Dataset, answer: Answer) -> None:
    """The first seed's network: to choose among them by the test images would flatter."""
    model = answer.finals[0]
    accuracy = {"validation": answer.confirmed.accuracy(answer.winner).value, "test": _of_the_model(answer).value}
    if not _trained_as_confirmed(answer):
        del accuracy["validation"]
    model_file.save(path, model.network, model.hparams, dataset, accuracy)


def _of_the_model(answer: Answer) -> Interval:
    """Of the one network that is kept, beside the mean of its configuration."""
    of_first = answer.test_results[0].predictions[0]
    return wilson(float(of_first.correct.mean()), len(of_first.labels))


def _text(answer: Answer) -> str:
    winner = answer.winner
    lines = [
        str(_candidates_table(answer.confirmed)),
        f"winner: trial {winner.trial.number} ({params_text(winner.trial)}), {_how_it_won(answer)}",
    ]
    longer = "" if _trained_as_confirmed(answer) else f", for {answer.finals[0].hparams.epochs} epochs of all images"
    for tested in answer.test_results:
        lines += [
            f"test accuracy on {tested.name}: {tested.accuracy} (95 % interval, {len(tested.predictions)} seeds, "
            f"{tested.images:,} images), trained on the validation images too{longer}; true classes down, predicted "
            "across, summed over the seeds:",
            str(_confusion_table(tested)),
        ]
    return "\n".join(lines)


def _how_it_won(answer: Answer) -> str:
    number = len(answer.confirmed.tied)
    certainty = "better than each of the others" if number == 1 else f"{number} tie for first"
    if answer.rule.prefer == "speed":
        return f"the quickest that is shown not to be worse by {100 * answer.rule.margin:g} points; {certainty}"
    return f"the highest mean; {certainty}"


def _trained_as_confirmed(answer: Answer) -> bool:
    """Whether the final networks were trained as long as the networks by which the winner was chosen."""
    final = answer.finals[0].hparams
    return final == next(with_seeds(answer.winner.trial, [final.seed]))


def _candidates_table(confirmed: Confirmed) -> PrettyTable:
    table = plain_table(["No.", "trial", "in the search", "new seeds ± 95%", "tie", "seconds"])
    for candidate, accuracy in zip(confirmed.candidates, confirmed.accuracies, strict=True):
        trial, tie = candidate.trial, "=" if len(confirmed.tied) > 1 and candidate in confirmed.tied else ""
        found = f"{trial.accuracy or 0:.1%}"
        table.add_row([trial.number, trial.id, found, str(accuracy), tie, f"{candidate.seconds:.1f}"])
    return table


def _confusion_table(tested: FinalTest) -> PrettyTable:
    confusion = tested.confusion
    table = plain_table(["", *tested.classes, "accuracy"])
    for label, name in enumerate(tested.classes):
        row = confusion[label]
        table.add_row([name, *row, f"{row[label] / row.sum():.1%}" if row.sum() else "no image"])
    return table


def _record(answer: Answer) -> dict[str, Any]:
    return {
        "winner": answer.winner.trial.id,
        "rule": {"prefer": answer.rule.prefer, "margin": answer.rule.margin},
        "tied": [candidate.trial.id for candidate in answer.confirmed.tied],
        "candidates": {
            candidate.trial.id: _mean_record(accuracy)
            for candidate, accuracy in zip(answer.confirmed.candidates, answer.confirmed.accuracies, strict=True)
        },
        "seeds": len(answer.test_results[0].predictions),
        "seconds": answer.winner.seconds,
        "final_epochs": answer.finals[0].hparams.epochs,
        "classes": list(answer.test_results[0].classes),
        "tests": [_test_record(tested) for tested in answer.test_results],
    }


def _test_record(tested: FinalTest) -> dict[str, Any]:
    confusion = tested.confusion.tolist()
    return {"data": tested.name, "images": tested.images, **_mean_record(tested.accuracy), "confusion": confusion}


def _mean_record(mean: Mean) -> dict[str, float]:
    return {"mean": mean.value, "margin_95": mean.margin}


def read_answer(experiment: Path) -> dict[str, Any] | None:
    """What best.json holds; None before there is one. RequestError where it is damaged or of another version."""
    path = layout.answer(experiment)
    answer = read_json(path)
    if answer is None:
        return None
    try:
        means = [answer["candidates"][answer["winner"]], *answer["tests"]]
        shapes = [np.asarray(test["confusion"]).shape for test in answer["tests"]]
        size = len(answer["classes"])
        whole = all(isinstance(mean["mean"] + mean["margin_95"], float) for mean in means)
        known: dict[str, Any] = {**answer, "seeds": int(answer["seeds"]), "tied": list(answer["tied"])}
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} is of another version: {error!r} is missing or unfit") from None
    if not whole or any(shape != (size, size) for shape in shapes):
        raise RequestError(f"{path} is of another version")
    return known
