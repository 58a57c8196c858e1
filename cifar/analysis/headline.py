"""What a report says first: which configuration to use, how good it is, how sure that is, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar.analysis import answer as answers
from cifar.analysis import next_steps
from cifar.analysis.configurations import DEFAULTS
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.trials import layout
from cifar.trials.leaderboard import param_text, why_no_better
from cifar.trials.seed_noise import SeedNoise, metric_of
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import interval, ties
from cifar.trials.trial_line import line_of, trial_line


@dataclass(frozen=True)
class Headline:
    """`accuracy` is in percent with its interval, `of_what` says of which images; `gain` is that over the defaults."""

    name: str
    is_confirmed: bool
    params: dict[str, str]
    command: str | None
    accuracy: str
    of_what: str
    gain: str | None
    certainty: list[str]
    next: list[tuple[str, str]]

    @property
    def text(self) -> str:
        """What to use, and how good it is, in lines."""
        params = ", ".join(f"{name} {value}" for name, value in self.params.items())
        use = f"use {self.name}{f' ({params})' if params else ''}"
        return "\n".join([use, f"{self.accuracy} {self.of_what}", *filter(None, [self.gain])])


def headline(
    experiment: Path, trials: Sequence[Trial], answer: dict[str, Any] | None, noise: SeedNoise, data_name: str
) -> Headline:
    """From what `cifar best` or `fit` found, else from the leader of the search; commands name the data so."""
    if answer is None:
        return _of_leader(experiment, [*trials], noise, data_name)
    return _of_answer(experiment, trials, answer, data_name)


def _of_leader(experiment: Path, trials: list[Trial], noise: SeedNoise, data_name: str) -> Headline:
    leader, tied = best_first(trials)[0], len(ties(trials, experiment, noise))
    useless = why_no_better(leader)
    first = f"{tied} configurations are tied for first." if tied else "No other comes within chance of it."
    metric = metric_of(leader).replace("_", " ")
    return Headline(
        f"nothing yet: {useless}" if useless else f"trial {leader.number}, the leader of the search",
        False,
        {name: param_text(value) for name, value in leader.params.items()},
        line_of(leader, data_name),
        str(interval(leader, noise)),
        f"of {leader.data.get('val_images', 0):,} validation images ({metric})",
        None,
        [first, "Not confirmed: the best of many trials is partly luck. cifar best trains the leaders again."],
        next_steps.confirm_or_go_on(experiment, trials),
    )


def _of_answer(experiment: Path, trials: Sequence[Trial], answer: dict[str, Any], data_name: str) -> Headline:
    numbers, winner, test = {trial.id: trial.number for trial in trials}, answer["winner"], answer["tests"][0]
    name = "the recipe's defaults" if winner == DEFAULTS else f"trial {numbers.get(winner, winner)}"
    tied, images = len(answer["tied"]), f"{test['images']:,} test images ({test['data']})"
    seeds = f"{answer['seeds']} new seeds"
    sure = f"No other ties with it, by {seeds}" if tied == 1 else f"One of {tied} that tie for first, by {seeds}"
    if len(answer["candidates"]) == 1:
        sure = f"The only one that trains, with {seeds}"
    if answer["candidates"]:
        name += ", confirmed"
        sure += f"; {answers.mean_text(answer['candidates'][winner])} of the validation images"
    else:
        sure = "By the search's trials no other is likely to be better"
    useless = answer.get("useless")
    return Headline(
        f"nothing: {answers.USELESS} ({useless})" if useless else name,
        True,
        {} if useless else {name: param_text(value) for name, value in answer["params"].items()},
        None if useless else _line_of_answer(experiment, data_name),
        answers.mean_text(test),
        f"of {images}",
        answers.gain_text(answer),
        [
            f"{sure}.",
            *(f"{text[0].upper()}{text[1:]}." for text in answers.defaults_text(answer)),
            _how_tested(answer),
        ],
        [] if useless else next_steps.uses_of(_beside_others(experiment)),
    )


def _how_tested(answer: dict[str, Any]) -> str:
    number = answer.get("final_epochs")
    epochs = f"Trained {number} {'epoch' if number == 1 else 'epochs'}" if number else "Trained"
    others = [
        f"{answers.mean_text(test)} of {test['images']:,} images ({test['data']})" for test in answer["tests"][1:]
    ]
    return f"{epochs} on the validation images too, then tested once{'; ' if others else ''}{'; '.join(others)}."


def _beside_others(experiment: Path) -> Path:
    """The model as seen from the project's folder: the place of that on somebody's disk is nobody else's business."""
    return Path(experiment.parent.name, experiment.name, layout.best_model(experiment).name)


def _line_of_answer(experiment: Path, data_name: str) -> str | None:
    """With the first seed; None where the model is gone, or of another version."""
    path = layout.best_model(experiment)
    if not path.exists():
        return None
    try:
        model = model_file.load(path)
    except RequestError:
        return None
    return trial_line(model.hparams, data_name)
