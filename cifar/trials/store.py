"""Experiments on disk: NNI's own database joined with what each trial left beside it. No manager needs to run."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from cifar.errors import RequestError
from cifar.system import places
from cifar.system.durations import seconds
from cifar.system.files import read_json
from cifar.training.intervals import Interval, wilson
from cifar.trials import database, layout
from cifar.trials.database import UNENDED, naming_damage
from cifar.trials.result import checked

_ERROR = re.compile(
    r"^(Killed|Aborted|Bus error|Segmentation fault)|^\S*(Error|Exception|Interrupt|Exit)\b|error:"
    r"|: .*(not found|No such|denied|can't)"
)
COMPARED = ("ok", "stopped_early")  # trials whose accuracy says something of their configuration
_CANCELED = ("USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")


@dataclass(frozen=True)
class Trial:
    """One trial: `params` as it received them, `result` as it wrote it, `nni_status` as NNI shows it."""

    id: str
    number: int  # Trial No. in the web page
    nni_status: str
    params: dict[str, Any]
    result: dict[str, Any] | None
    last_words: str = ""  # of one that ended without a result
    started: int = 0  # milliseconds since 1970, by NNI's clock
    changed: int = 0  # likewise, of the last change of nni_status
    by_hand: bool = False  # added in NNI's page, and unknown to the tuner
    repeats: tuple[Trial, ...] = ()  # later ones of the same configuration with other seeds, where it stands for all

    @property
    def ended(self) -> bool:
        return self.nni_status not in UNENDED

    @property
    def status(self) -> str:
        """How the trial ended in its own words, else in NNI's."""
        if self.result is not None:
            return str(self.result["status"])
        return self.nni_status.lower()

    @property
    def reason(self) -> str:
        return str(self.result["reason"]) if self.result is not None else self.last_words

    @property
    def failed(self) -> bool:
        """Whether it ended by an error, its own or the machine's; one that diverged has merely a bad result."""
        return self.ended and (self.status == "error" or (self.result is None and self.nni_status == "FAILED"))

    def interrupted(self) -> Trial:
        """This trial, known to run no more although NNI has it as running, to run it again when it resumes."""
        return replace(self, nni_status="INTERRUPTED")

    @property
    def data(self) -> dict[str, Any]:
        """Name and fingerprints of the data that it was about; {} where it left none."""
        data: dict[str, Any] = (self.result or {}).get("data", {})
        return data

    @property
    def trainings(self) -> tuple[Trial, ...]:
        """Each by itself."""
        return (replace(self, repeats=()), *self.repeats) if self.repeats else (self,)

    @property
    def accuracy(self) -> float | None:
        """The validation images' figure that the tuner was told, an accuracy or a balanced one, as a fraction.

        With repeats it is their mean.
        """
        own = [trial._own_accuracy for trial in self.trainings]
        known = [accuracy for accuracy in own if accuracy is not None]
        return fmean(known) if known else None

    @property
    def _own_accuracy(self) -> float | None:
        metrics = self.result and self.result["metrics"]
        return float(metrics["default"]) if metrics and self.status != "interrupted" else None

    @property
    def interval(self) -> Interval | None:
        """The accuracy by the number of validation images; networks of other seeds may lie outside."""
        if self.accuracy is None or self.result is None:
            return None
        balanced = self.result.get("hparams", {}).get("metric") == "balanced_accuracy"
        return wilson(self.accuracy, self.result["data"]["balanced_images" if balanced else "val_images"])


def find(experiment_id: str | None, parent: Path) -> Path:
    """The directory of an experiment, below `parent`, else where NNI's own list has it; None means the latest.

    The first characters are enough where only one experiment has them. RequestError, naming the experiments that there
    are, where none fits or several do.
    """
    latest_first = experiments(parent)
    if experiment_id is None and latest_first:
        return latest_first[0].resolve()
    known = sorted(latest_first)
    fitting = [path for path in known if path.name.startswith(experiment_id or "\0")]
    exact = [path for path in fitting if path.name == experiment_id]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0].resolve()
    listed = _listed_parent(experiment_id)  # asked last: of a copied project the copy is meant
    if experiment_id and not fitting and listed and _is_experiment(listed / experiment_id):
        return (listed / experiment_id).resolve()
    names = ", ".join(path.name for path in fitting or known) or "none"
    if fitting:
        raise RequestError(f"{experiment_id!r} fits several experiments in {parent}: {names}")
    wanted = f"experiment {experiment_id!r}" if experiment_id is not None else "experiment"
    raise RequestError(f"no {wanted} in {parent}; there are: {names}")


def experiments(parent: Path) -> list[Path]:
    """The directories of all experiments below `parent`, the latest first."""
    found = [path for path in parent.glob("*") if _is_experiment(path) and not path.is_symlink()]
    return sorted(found, key=database.last_change, reverse=True)  # to look at one changes its database


def _is_experiment(directory: Path) -> bool:
    return layout.database(directory).exists()


def read_id(experiment: Path) -> str:
    """The experiment's id by its own database, also where its folder has another name."""
    profile = database.profile(experiment, "id")
    return experiment.name if profile is None else str(profile)


def read_config(experiment: Path) -> dict[str, Any]:
    """The experiment's configuration as its manager saved it last; {} where it has not yet."""
    profile = database.profile(experiment, "params")
    with naming_damage(experiment):
        return {} if profile is None else dict(json.loads(profile))


def read_seconds(experiment: Path) -> float:
    """How long the experiment has run, over all its runs, as NNI counts it against the duration it may have."""
    profile = database.profile(experiment, "execDuration")
    with naming_damage(experiment):
        return 0.0 if profile is None else float(profile)


def read_trials(experiment: Path) -> list[Trial]:
    """All trials of the experiment in this directory, in the order NNI started them."""
    return Reader(experiment).trials()


def _parameters(content: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a trial as it was submitted; somebody may have sent NNI anything, by hand."""
    parameters = content["parameters"]
    return parameters if isinstance(parameters, dict) else {}


class Reader:
    """The trials of an experiment that goes on: asked again, it reads only what is new."""

    def __init__(self, experiment: Path) -> None:
        self._experiment = experiment
        self._row = 0  # of the last event that was read
        self._known: dict[str, Trial] = {}  # without what their files say
        self._ended: dict[str, Trial] = {}  # with it

    def trials(self) -> list[Trial]:
        """All of them, in the order NNI started them."""
        with naming_damage(self._experiment):
            for row, *event in database.events(self._experiment, self._row):
                trial = _after(self._known, *event)
                self._known[trial.id] = trial
                self._ended.pop(trial.id, None)
                self._row = row
        return [self._ended.get(trial.id) or self._with_files(trial) for trial in self._known.values()]

    def _with_files(self, trial: Trial) -> Trial:
        whole = _with_files(trial, self._experiment)
        if trial.ended:  # all is written before a trial ends
            self._ended[trial.id] = whole
        return whole


class EpochReader:
    """The latest epoch of each trial of an experiment that goes on: asked again, it reads only what is new."""

    def __init__(self, experiment: Path) -> None:
        self._experiment = experiment
        self._row = 0
        self._latest: dict[str, tuple[int, float]] = {}

    def latest(self) -> dict[str, tuple[int, float]]:
        """Per trial id how many epochs it has trained, and its accuracy after them."""
        with naming_damage(self._experiment):
            for row, trial_id, number, data in database.epochs_since(self._experiment, self._row):
                self._row = row
                metrics = json.loads(json.loads(data))
                if isinstance(metrics, dict) and "default" in metrics:  # another program's trials may report anything
                    self._latest[str(trial_id)] = int(number) + 1, float(metrics["default"])
        return self._latest


def _after(known: Mapping[str, Trial], trial_id: Any, event: str, number: Any, data: Any, timestamp: Any) -> Trial:
    """A trial as it is after an event."""
    moment, content = int(timestamp), json.loads(data) if data else {}
    trial = known.get(trial_id) or Trial(str(trial_id), int(number), event, {}, None, started=moment)
    params = _parameters(content) if content else trial.params
    if (trial.id, trial.number) != (trial_id, number) or not (content or trial_id in known):  # the first one has them
        raise ValueError(f"no trial is {number} {trial_id!r}, which is {event}")
    by_hand = trial.by_hand or content.get("parameter_source") == "customized"
    return replace(trial, nni_status=event, params=params, changed=moment, by_hand=by_hand)


def read_curves(experiment: Path) -> dict[str, list[dict[str, float]]]:
    """Per trial id its epochs' metrics, as NNI has them; of an epoch that was reported twice, the later."""
    curves: dict[str, dict[int, dict[str, float]]] = {}
    with naming_damage(experiment):
        for trial_id, kind, sequence, data, _ in database.metrics(experiment):
            if kind == "PERIODICAL":
                metrics = json.loads(json.loads(data))
                if isinstance(metrics, dict):  # another program's trials may report numbers alone
                    values = {str(name): float(value) for name, value in metrics.items()}
                    curves.setdefault(trial_id, {})[int(sequence)] = values
    return {trial_id: [epochs[number] for number in sorted(epochs)] for trial_id, epochs in curves.items()}


def read_result_times(experiment: Path) -> dict[str, int]:
    """When the tuner heard of each trial's final result, in milliseconds since 1970, by NNI's clock."""
    metrics = database.metrics(experiment)
    finals = [(trial_id, timestamp) for trial_id, kind, _, _, timestamp in metrics if kind == "FINAL"]
    return dict(reversed(finals))  # of two the first


def refuse_other_data(trials: Sequence[Trial], fingerprint: str) -> None:
    """RequestError where the data have changed since a trial."""
    for trial in trials:
        if trial.data.get("fingerprint", fingerprint) != fingerprint:
            raise RequestError(f"the data have changed since trial {trial.number}: results on them would not compare")


def best_first(trials: list[Trial]) -> list[Trial]:
    """Configurations that have an accuracy, the highest first; the chance accuracy of a failed trial is none.

    Each is its first trial, which has those as `repeats` that differ in nothing but the seed.
    """
    finished = [trial for trial in trials if trial.status in COMPARED]
    return sorted(_configurations(finished), key=lambda trial: trial.accuracy or 0.0, reverse=True)


def _configurations(trials: Sequence[Trial]) -> Iterator[Trial]:
    same = defaultdict[str, dict[object, Trial]](dict)
    for trial in trials:
        hparams = (trial.result or {}).get("hparams") or {}
        key = json.dumps({**hparams, "seed": None}, sort_keys=True)
        seed = hparams.get("seed", 0)
        if trial.status != "ok" or not hparams or seed in same[key]:
            key = trial.id  # of its own: the same seed again says nothing new
        same[key][seed] = trial
    for trainings in filter(None, same.values()):
        first, *repeats = trainings.values()
        yield replace(first, repeats=tuple(repeats)) if repeats else first


def _listed_parent(experiment_id: str | None) -> Path | None:
    """Where NNI's list of this user's experiments says that it lies."""
    if experiment_id is None or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", experiment_id):
        return None
    try:
        listed = read_json(places.home() / "nni-experiments" / ".experiment") or {}
    except RequestError:  # NNI's own list, which only helps to find what lies elsewhere
        return None
    entry = listed.get(experiment_id)
    parent = entry.get("logDir") if isinstance(entry, dict) else None
    return Path(parent) if isinstance(parent, str) and parent else None


def _with_files(trial: Trial, experiment: Path) -> Trial:
    directory = layout.trial_directory(experiment, trial.id)
    try:
        params, result = read_json(directory / layout.PARAMS), read_json(directory / layout.RESULT)
        result = None if result is None else checked(result)
        trial = replace(trial, params=params["parameters"] if params else trial.params, result=result)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return replace(trial, last_words=f"its files cannot be read, damaged or of another version: {error!r}")
    if result is None and trial.ended:
        return replace(trial, last_words=_why_without_result(trial, experiment))
    return trial


def _why_without_result(trial: Trial, experiment: Path) -> str:
    canceled = trial.nni_status in _CANCELED
    words = "" if canceled else _last_error(layout.trial_directory(experiment, trial.id) / layout.STDERR)
    limit = read_config(experiment).get("maxTrialDuration")
    too_long = limit and trial.changed - trial.started >= 1000 * (seconds(limit) or 0.0)
    if too_long and words in ("", "KeyboardInterrupt"):  # NNI calls it failed if it ended itself
        return f"ended by maxTrialDuration, {limit}, before it had a result"
    return "ended from outside before it had a result" if canceled else words


def _last_error(path: Path) -> str:
    """The last line that tells of an error, of a program's or of Python's; "" where none does."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if _ERROR.search(line)), "")
