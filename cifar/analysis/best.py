"""`cifar best`: names the best configuration of a search, with an interval, and leaves its model.

The leading trials and the recipe's defaults are trained again with new seeds; the best of them and the defaults once
more at the budget of the final networks, where that is another one. The winner is then trained on the validation images
too, and only these last networks see test images.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from cifar.analysis import answer as answers
from cifar.analysis.answer import Answer, Cost
from cifar.analysis.configurations import (
    DEFAULTS,
    MOST_LEADERS,
    Configuration,
    leading,
    new_seeds,
    of_defaults,
    of_trial,
    size_of,
    started,
)
from cifar.analysis.confirm import MOST_ACCURATE, Candidate, Confirmed, Rule, decide, finalists
from cifar.analysis.final_test import read_test_images, refuse_known, refuse_unfit
from cifar.analysis.kept_trainings import Stage
from cifar.analysis.retrain import Failed, Trainer
from cifar.console import say, show
from cifar.data import datasets, test_log
from cifar.data.datasets import Dataset
from cifar.data.leaks import leaks
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.system import mps
from cifar.system.files import read_json, short, write_json
from cifar.system.gpus import list_gpus
from cifar.training.hparams import Hparams
from cifar.trials import layout, store
from cifar.trials.trial_line import trial_line

_FINAL_LEADERS = 2  # at the budget of the final networks each training is dear


@dataclass(frozen=True)
class Budget:
    """How many trainings each configuration gets, and how long the final networks train; None: as in the search."""

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
            f"experiment {experiment.name} already has an answer, {layout.answer(experiment)}; --force replaces it, "
            "and reads the test images once more"
        )
    test_log.read(layout.test_log(experiment))  # damaged, it is to be mended before anything is added
    searched = store.read_trials(experiment)
    leaders, dataset = leading(searched, experiment), datasets.load(data_name, size_of(experiment))
    store.refuse_other_data(leaders, dataset.fingerprint)
    chosen = _distinct([of_trial(trial) for trial in leaders])[:MOST_LEADERS]
    racing = _distinct([*chosen, *(of_trial(trial) for trial in started(searched, experiment))])
    configurations = _with_defaults(experiment, dataset, racing, budget)
    tests = load_tests(dataset, second_test)
    for leak in (leak for test in tests for leak in leaks(dataset, test)):
        say(f"warning: {leak}")
    seeds = new_seeds(searched, budget.seeds)
    _say_what_follows(len(leaders), racing[len(chosen) :], configurations, budget)
    try:
        with training(experiment, dataset, len(configurations) * budget.seeds) as trainer:
            confirmed = _confirm(trainer, configurations, seeds, budget, rule)
            winner = confirmed[-1].winner.configuration
            finals = trainer.final_models(_at_final_budget(winner, budget), seeds)
        return conclude(experiment, dataset, winner, finals, tests, confirmed, rule)
    except Failed as failure:
        say(f"error: {failure}")
        return 1
    except KeyboardInterrupt:
        say("what is trained is kept: the same command goes on from here")
        raise


@contextlib.contextmanager
def training(experiment: Path, dataset: Dataset, trainings: int) -> Iterator[Trainer]:
    """Train for the experiment, as many at once as it did. RequestError while another process does."""
    directory, at_once = layout.confirmed(experiment), int(store.read_config(experiment).get("trialConcurrency", 1))
    directory.mkdir(exist_ok=True)
    gpus = list_gpus()
    try:
        held = FileLock(directory / ".lock", timeout=0).acquire()
    except Timeout:
        raise RequestError(f"another cifar best or fit is at work on experiment {experiment.name}") from None
    with held, mps.started(gpus if at_once > len(gpus) else []) as shared:
        os.environ.update(shared)
        with _clock(experiment), contextlib.closing(Trainer(directory, dataset, at_once, trainings)) as trainer:
            yield trainer


def conclude(
    experiment: Path,
    dataset: Dataset,
    winner: Configuration,
    finals: list[SavedModel],
    tests: Sequence[Dataset],
    confirmed: Sequence[Confirmed] = (),
    rule: Rule = MOST_ACCURATE,
) -> int:
    """Read the test images, keep the model and the answer, and print it."""
    alike = [some for some in confirmed[-1:] if winner.budget_text in some.budgets]  # by which seeds differ as much
    known = [candidate.predictions for some in alike for candidate in some.candidates]
    test_results = [read_test_images(experiment, finals, test, winner.id, known) for test in tests]
    cost = Cost(store.read_seconds(experiment), _seconds(experiment))
    answer = Answer(winner, finals, test_results, cost, confirmed, rule)
    return _keep(experiment, dataset, answer, tests)


def load_tests(dataset: Dataset, second: str | None = None) -> list[Dataset]:
    """The test images of a data set, and those of a second folder. RequestError where they would say nothing."""
    tests = [datasets.load_test(dataset.name, dataset.size)]
    if second:
        tests.append(datasets.load_test_folder(second, dataset.size))
        refuse_known(tests[-1], dataset)
    for test in tests:
        refuse_unfit(test, dataset.classes)
    return tests


def _distinct(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Each configuration once, whatever its seeds."""
    found = dict[Hparams, Configuration]()
    for some in configurations:
        found.setdefault(some.unseeded, some)
    return list(found.values())


def _with_defaults(
    experiment: Path, dataset: Dataset, leaders: Sequence[Configuration], budget: Budget
) -> list[Configuration]:
    """The leaders and the recipe's defaults, which a leader may be; without them where they cannot be trained."""
    try:
        images = len(datasets.split(dataset).train)
        defaults = of_defaults(experiment, dataset.name, images)
        if budget.final_epochs is not None:
            longer = of_defaults(experiment, dataset.name, images, epochs=budget.final_epochs, images_per_epoch=0)
            defaults = replace(defaults, longer=longer)
    except RequestError as error:
        say(f"the defaults are left out: {error}")
        return [*leaders]
    same = [leader for leader in leaders if leader.unseeded == defaults.unseeded]
    found = same[0].found if same else None
    return [*(leader for leader in leaders if leader not in same), replace(defaults, found=found)]


def _say_what_follows(
    leaders: int, started: Sequence[Configuration], configurations: Sequence[Configuration], budget: Budget
) -> None:
    who = "one trial leads" if leaders == 1 else f"{leaders} trials are tied for first"
    searched = [some for some in configurations if some.id != DEFAULTS and some not in started]
    best = [_which_of(len(searched), leaders)] if searched else []
    others = [f"{some.name}, from which it started," for some in configurations if some in started]
    trained = " and ".join([*best, *others, *(some.name for some in configurations if some.id == DEFAULTS)])
    longer = "the best of these at the final budget, " if _is_longer(configurations, budget) else ""
    rounds = f"training {trained} with {budget.seeds} new seeds each, {longer}then the winner"
    say(f"{who}: {rounds} on all but the test images")


def _which_of(searched: int, leaders: int) -> str:
    if searched == leaders:
        return "it" if leaders == 1 else "them"
    return "the best of them" if searched == 1 else f"the best {searched} of them"


def _confirm(
    trainer: Trainer, configurations: Sequence[Configuration], seeds: Sequence[int], budget: Budget, rule: Rule
) -> list[Confirmed]:
    """A round at the search's budget, and one at the final networks' where that is another one."""
    trainer.expect(len(seeds))
    longer = _is_longer(configurations, budget)
    confirmed = [hold_round(trainer, configurations, seeds, "search", rule)]
    if longer:
        chosen = [_at_final_budget(some, budget) for some in finalists(confirmed[0], _FINAL_LEADERS)]
        trainer.expect(len(chosen) * len(seeds))
        confirmed.append(hold_round(trainer, chosen, seeds, "long", rule))
    return confirmed


def _is_longer(configurations: Sequence[Configuration], budget: Budget) -> bool:
    return any(_at_final_budget(some, budget) != some for some in configurations)


def _at_final_budget(configuration: Configuration, budget: Budget) -> Configuration:
    if configuration.longer:
        return replace(configuration.longer, found=configuration.found)
    return replace(configuration, hparams=budget.of_finals(configuration.hparams))


def hold_round(
    trainer: Trainer, configurations: Sequence[Configuration], seeds: Sequence[int], stage: Stage, rule: Rule
) -> Confirmed:
    """Train all with each of the seeds. A configuration that diverges with one of them is out."""
    candidates, out = list[Candidate](), list[Configuration]()
    for configuration, trained in trainer.candidates(configurations, seeds, stage):
        if isinstance(trained, Failed):
            say(f"{configuration.name} is out: {trained}")
            out.append(configuration)
        else:
            candidates.append(trained)
    if not candidates:
        raise Failed("no leading trial could be trained again")
    return replace(decide(candidates, rule), out=out)


def _keep(experiment: Path, dataset: Dataset, answer: Answer, tests: Sequence[Dataset]) -> int:
    """Save the first seed's network, since to choose among them by the test images would flatter; and print all."""
    path, model = layout.best_model(experiment), answer.finals[0]
    accuracy = {
        "test_accuracy": answer.of_the_model.value,
        "configuration_test_accuracy": answer.test_results[0].accuracy.value,
    }
    if answer.validation:
        accuracy[f"configuration_validation_{answer.winner.hparams.metric}"] = answer.validation.value
    model_file.save(path, model.network, model.hparams, dataset, accuracy)
    write_json(layout.answer(experiment), answers.record(answer))
    lines = [
        answers.text(answer),
        f"model: {short(path)}, one of {len(answer.finals)} networks, alone {answer.of_the_model} of the test images",
        f"to train such a network again: {trial_line(model.hparams, dataset.name)}",
        test_log.summary(layout.test_log(experiment)),
        *map(test_log.count, tests),
    ]
    show("\n".join(lines))
    return 0


@contextlib.contextmanager
def _clock(experiment: Path) -> Iterator[None]:
    """Add up what this command has taken so far, interrupted or not."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds = _seconds(experiment) + time.monotonic() - began
        write_json(layout.best_seconds(experiment), {"seconds": seconds})


def _seconds(experiment: Path) -> float:
    with contextlib.suppress(RequestError, TypeError, ValueError, KeyError):
        return float((read_json(layout.best_seconds(experiment)) or {"seconds": 0.0})["seconds"])
    return 0.0
