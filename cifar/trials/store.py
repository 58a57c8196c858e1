"""Experiments on disk: NNI's own database joined with what each trial left beside it. No manager needs to run."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifar.errors import RequestError
from cifar.system import places
from cifar.system.durations import seconds
from cifar.system.files import read_json

_UNENDED = ("WAITING", "RUNNING", "UNKNOWN")
_STATUSES = (*_UNENDED, "SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
_ERROR = re.compile(
    r"^(Killed|Aborted|Bus error|Segmentation fault)|^\S*(Error|Exception|Interrupt|Exit)\b|error:"
    r"|: .*(not found|No such|denied|can't)"
)
_CANCELED = ("USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
_WAIT_SECONDS = 30.0  # for another program that holds the database; NNI's manager waits twice as long
_OTHER_EVENTS = ("USER_TO_CANCEL", "ADD_CUSTOMIZED", "ADD_HYPERPARAMETER", "ADD_RESUMED", "IMPORT_DATA")


class Held(RequestError):
    """Another program holds an experiment's database, and does not let it go."""


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
    changed: int = 0  # likewise, when nni_status became what it is
    by_hand: bool = False  # added in NNI's page, and unknown to the tuner

    @property
    def ended(self) -> bool:
        return self.nni_status not in _UNENDED

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
        """The same, known to run no more although NNI still has it as running, to run it again when it resumes."""
        return replace(self, nni_status="INTERRUPTED")

    @property
    def data(self) -> dict[str, Any]:
        """Name and fingerprints of the data that it was about; {} where it left none."""
        data: dict[str, Any] = (self.result or {}).get("data", {})
        return data

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy that the tuner was told, as a fraction."""
        metrics = self.result and self.result["metrics"]
        return float(metrics["default"]) if metrics and self.status != "interrupted" else None

    @property
    def standard_error(self) -> float | None:
        """Of the accuracy, from the number of validation images alone."""
        if self.accuracy is None or self.result is None:
            return None
        images = int(self.result["data"]["val_images"])
        return float((self.accuracy * (1 - self.accuracy) / images) ** 0.5)


def find(experiment_id: str | None, parent: Path) -> Path:
    """The directory of an experiment, below `parent`, else where NNI's own list has it; None means the latest.

    The first characters are enough where only one experiment has them. RequestError, naming the experiments that there
    are, where none fits or several do.
    """
    known = sorted(path for path in parent.glob("*") if _is_experiment(path) and not path.is_symlink())
    if experiment_id is None and known:
        return max(known, key=lambda path: _database(path).stat().st_mtime).resolve()
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


def _is_experiment(directory: Path) -> bool:
    return _database(directory).exists()


def read_id(experiment: Path) -> str:
    """The experiment's id by its own database, also where its folder has another name."""
    profile = _profile(experiment, "id")
    return experiment.name if profile is None else str(profile)


def read_config(experiment: Path) -> dict[str, Any]:
    """The experiment's configuration as its manager saved it last; {} where it has not yet."""
    profile = _profile(experiment, "params")
    with _damage_named(experiment):
        return {} if profile is None else dict(json.loads(profile))


def read_seconds(experiment: Path) -> float:
    """How long the experiment has run, over all its runs, as NNI counts it against the duration it may have."""
    profile = _profile(experiment, "execDuration")
    with _damage_named(experiment):
        return 0.0 if profile is None else float(profile)


def _profile(experiment: Path, column: str) -> Any:
    """A column of what the manager saved last, None where it has saved nothing; it saves every ten seconds."""
    query = f"select {column} from ExperimentProfile order by rowid desc limit 1"
    rows = _select(experiment, "ExperimentProfile", query)
    return rows[0][0] if rows else None


def write_config(experiment: Path, config: dict[str, Any]) -> None:
    """Save what the experiment's next manager will go by; none may run meanwhile."""
    with closing(_connect(experiment, "rw")) as connection, connection:
        connection.execute(
            "insert into ExperimentProfile select ?, id, execDuration, startTime, endTime, logDir, nextSequenceId, "
            "revision + 1 from ExperimentProfile order by rowid desc limit 1",
            (json.dumps(config),),
        )


def read_trials(experiment: Path) -> list[Trial]:
    """All trials of the experiment in this directory, in the order NNI started them."""
    return Reader(experiment).trials()


def _parameters(content: dict[str, Any]) -> dict[str, Any]:
    """Those that a trial was submitted with; somebody may have sent NNI anything, by hand."""
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
        with _damage_named(self._experiment):
            for row, *event in _events(self._experiment, self._row):
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
    with _damage_named(experiment):
        for trial_id, kind, sequence, data, _ in _metrics(experiment):
            if kind == "PERIODICAL":
                metrics = json.loads(json.loads(data))
                if isinstance(metrics, dict):  # another program's trials may report numbers alone
                    values = {str(name): float(value) for name, value in metrics.items()}
                    curves.setdefault(trial_id, {})[int(sequence)] = values
    return {trial_id: [epochs[number] for number in sorted(epochs)] for trial_id, epochs in curves.items()}


def read_result_times(experiment: Path) -> dict[str, int]:
    """When the tuner heard of each trial's final result, in milliseconds since 1970, by NNI's clock."""
    finals = [(trial_id, timestamp) for trial_id, kind, _, _, timestamp in _metrics(experiment) if kind == "FINAL"]
    return dict(reversed(finals))  # of two the first


def best_first(trials: list[Trial]) -> list[Trial]:
    """Those that have an accuracy, the highest first; a failed trial's chance accuracy is none."""
    finished = [trial for trial in trials if trial.status in ("ok", "stopped_early")]
    return sorted(finished, key=lambda trial: trial.accuracy or 0.0, reverse=True)


def trial_directory(experiment: Path, trial_id: str) -> Path:
    """NNI_OUTPUT_DIR of a local trial."""
    return experiment / f"environments/local-env/trials/{trial_id}"


def board_directory(experiment: Path, trial_id: str) -> Path:
    """Where the button in NNI's page lets TensorBoard look for a local trial's curves."""
    return experiment / "trials" / trial_id / "output" / "tensorboard"


def experiment_of(trial: Path) -> Path:
    """The experiment that a trial's directory belongs to."""
    return trial.parents[3]


def _connect(experiment: Path, mode: str = "ro") -> sqlite3.Connection:
    address = f"{_database(experiment).absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=_WAIT_SECONDS, uri=True)


def _database(experiment: Path) -> Path:
    return experiment / "db" / "nni.sqlite"


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


def _events(experiment: Path, after: int) -> list[Any]:
    """What happened to trials since a row of the table, which comes first in each."""
    # As they were written: other machines' clocks, which some times are of, are not this one's.
    query = "select rowid, trialJobId, event, sequenceId, data, timestamp from TrialJobEvent where rowid > ? order by 1"
    events = _select(experiment, "TrialJobEvent", query, after)
    if strange := {event[2] for event in events} - {*_STATUSES, *_OTHER_EVENTS}:
        raise ValueError(f"nothing that happens to a trial is {sorted(map(str, strange))[0]!r}")
    return [event for event in events if event[2] in _STATUSES]  # others say what users and resumes did


def _metrics(experiment: Path) -> list[Any]:
    query = "select trialJobId, type, sequence, data, timestamp from MetricData order by rowid"
    return _select(experiment, "MetricData", query)


def _select(experiment: Path, table: str, query: str, *values: object) -> list[Any]:
    """Rows of NNI's database; none where its manager has not got so far as to make the table."""
    if not _database(experiment).exists():
        return []
    try:
        try:
            return _rows(experiment, "ro", table, query, values)
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
            return _rows(experiment, "rw", table, query, values)  # a killed manager's half transaction is to be undone
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            held = f"another program has held {_database(experiment)} for {_WAIT_SECONDS:.0f} seconds"
            raise Held(f"{held}: a browser of databases, or a backup?") from None
        raise RequestError(f"{_database(experiment)} is damaged or of another version: {error}") from None


def _rows(experiment: Path, mode: str, table: str, query: str, values: Sequence[object]) -> list[Any]:
    with closing(_connect(experiment, mode)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone():
            return []
        return connection.execute(query, values).fetchall()


@contextmanager
def _damage_named(experiment: Path) -> Iterator[None]:
    """RequestError for what NNI never writes into its database."""
    try:
        yield
    except RequestError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RequestError(f"{_database(experiment)} is damaged: {error}") from None


def _with_files(trial: Trial, experiment: Path) -> Trial:
    directory = trial_directory(experiment, trial.id)
    try:
        params, result = read_json(directory / "params.json"), read_json(directory / "result.json")
        trial = replace(trial, params=params["parameters"] if params else trial.params, result=_understood(result))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return replace(trial, last_words=f"its files cannot be read, damaged or of another version: {error!r}")
    if result is None and trial.ended:
        return replace(trial, last_words=_why_without_result(trial, experiment))
    return trial


def _why_without_result(trial: Trial, experiment: Path) -> str:
    canceled = trial.nni_status in _CANCELED
    words = "" if canceled else _last_error(trial_directory(experiment, trial.id) / "trial.stderr")
    limit = read_config(experiment).get("maxTrialDuration")
    too_long = limit and trial.changed - trial.started >= 1000 * (seconds(limit) or 0.0)
    if too_long and words in ("", "KeyboardInterrupt"):  # NNI calls it failed if it ended itself
        return f"ended by maxTrialDuration, {limit}, before it had a result"
    return "ended from outside before it had a result" if canceled else words


def _understood(result: Any) -> dict[str, Any] | None:
    """A trial's result.json, as far as this version needs it; an error where that is not in it, or cannot be."""
    if result is None:
        return None
    known: dict[str, Any] = {**result, "reason": str(result["reason"]), "status": str(result["status"])}
    if result["metrics"]:
        known["metrics"] = {str(name): float(value) for name, value in result["metrics"].items()}
        known["data"] = {**result["data"], "val_images": int(result["data"]["val_images"])}
        accuracy, images = known["metrics"]["default"], known["data"]["val_images"]
        if not all(map(math.isfinite, known["metrics"].values())) or not 0 <= accuracy <= 1 or images < 1:
            raise ValueError(f"no accuracy is {accuracy} of {images} images")
    known |= {"seconds": float(result["seconds"]), "epochs": int(result["epochs"])}
    if not (math.isfinite(known["seconds"]) and min(known["seconds"], known["epochs"]) >= 0):
        raise ValueError(f"no trial takes {known['seconds']} seconds for {known['epochs']} epochs")
    return known


def _last_error(path: Path) -> str:
    """The last line that tells of an error, of a program's or of Python's; "" where none does."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if _ERROR.search(line)), "")
