"""Experiments on disk: NNI's own database joined with what each trial left beside it. No manager needs to run."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifar.errors import RequestError

_UNENDED = ("WAITING", "RUNNING", "UNKNOWN")
_STATUSES = (*_UNENDED, "SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")


@dataclass(frozen=True)
class Trial:
    """One trial: `params` as it received them, `result` as it wrote it, `nni_status` as NNI shows it."""

    id: str
    number: int  # Trial No. in the web page
    nni_status: str
    params: dict[str, Any]
    result: dict[str, Any] | None
    last_words: str = ""  # of one that ended without a result: the last line of its trial.stderr

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


def find(experiment_id: str, parent: Path) -> Path:
    """The directory of an experiment, below `parent` or where NNI's own list has it.

    RequestError, naming those that there are, where there is none.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,32}", experiment_id):
        for candidate in (parent, _listed_parent(experiment_id)):
            if candidate and (candidate / experiment_id / "db" / "nni.sqlite").exists():
                return (candidate / experiment_id).resolve()
    ids = [path.parent.parent.name for path in parent.glob("*/db/nni.sqlite") if not path.parent.parent.is_symlink()]
    raise RequestError(f"no experiment {experiment_id!r} in {parent}; there are: {', '.join(sorted(ids)) or 'none'}")


def read_config(experiment: Path) -> dict[str, Any]:
    """The experiment's configuration as its manager saved it last; {} where it has not yet."""
    rows = _select(
        experiment, "ExperimentProfile", "select params from ExperimentProfile order by revision desc limit 1"
    )
    config: dict[str, Any] = json.loads(rows[0][0]) if rows else {}
    return config


def read_seconds(experiment: Path) -> float:
    """How long the experiment has run, over all its runs, as NNI counts it against the duration it may have."""
    query = "select execDuration from ExperimentProfile order by revision desc limit 1"
    rows = _select(experiment, "ExperimentProfile", query)
    return float(rows[0][0]) if rows else 0.0


def write_config(experiment: Path, config: dict[str, Any]) -> None:
    """Save what the experiment's next manager will go by; none may run meanwhile."""
    with closing(_connect(experiment, "rw")) as connection, connection:
        connection.execute(
            "insert into ExperimentProfile select ?, id, execDuration, startTime, endTime, logDir, nextSequenceId, "
            "revision + 1 from ExperimentProfile order by revision desc limit 1",
            (json.dumps(config),),
        )


def read_trials(experiment: Path) -> list[Trial]:
    """All trials of the experiment in this directory, in the order NNI started them."""
    trials: dict[str, Trial] = {}
    for trial_id, event, number, data in _events(experiment):
        known = trials.get(trial_id, Trial(trial_id, number, event, {}, None))
        params = json.loads(data)["parameters"] if data else known.params
        trials[trial_id] = replace(known, nni_status=event, params=params)
    return [_with_files(trial, experiment) for trial in trials.values()]


def best_first(trials: list[Trial]) -> list[Trial]:
    """Those that have an accuracy, the highest first; a failed trial's chance accuracy is none."""
    finished = [trial for trial in trials if trial.status in ("ok", "stopped_early")]
    return sorted(finished, key=lambda trial: trial.accuracy or 0.0, reverse=True)


def trial_directory(experiment: Path, trial_id: str) -> Path:
    """NNI_OUTPUT_DIR of a local trial."""
    return experiment / "environments" / "local-env" / "trials" / trial_id


def _connect(experiment: Path, mode: str = "ro") -> sqlite3.Connection:
    return sqlite3.connect(f"{_database(experiment).absolute().as_uri()}?mode={mode}", uri=True)


def _database(experiment: Path) -> Path:
    return experiment / "db" / "nni.sqlite"


def _listed_parent(experiment_id: str) -> Path | None:
    """Where NNI's list of this user's experiments says that it lies."""
    listed = _read_json(Path.home() / "nni-experiments" / ".experiment") or {}
    parent = listed.get(experiment_id, {}).get("logDir")
    return Path(parent) if parent else None


def _events(experiment: Path) -> list[Any]:
    query = "select trialJobId, event, sequenceId, data from TrialJobEvent order by timestamp, rowid"
    events = _select(experiment, "TrialJobEvent", query)
    return [event for event in events if event[1] in _STATUSES]  # others say what users and resumes did


def _select(experiment: Path, table: str, query: str) -> list[Any]:
    """Rows of NNI's database; none where its manager has not got so far as to make the table."""
    if not _database(experiment).exists():
        return []
    with closing(_connect(experiment)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone():
            return []
        return connection.execute(query).fetchall()


def _with_files(trial: Trial, experiment: Path) -> Trial:
    directory = trial_directory(experiment, trial.id)
    params, result = _read_json(directory / "params.json"), _read_json(directory / "result.json")
    trial = replace(trial, params=params["parameters"] if params else trial.params, result=result)
    if result is None and trial.ended:
        return replace(trial, last_words=_last_line(directory / "trial.stderr"))
    return trial


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else None
