"""Experiments on disk: NNI's own database joined with what each trial left beside it. No manager needs to run."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One trial: `params` as it received them, `result` as it wrote it, `nni_status` as NNI shows it."""

    id: str
    number: int  # Trial No. in the web page
    nni_status: str
    params: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        return self.nni_status not in ("WAITING", "RUNNING", "UNKNOWN")

    @property
    def status(self) -> str:
        """How the trial ended in its own words, else in NNI's."""
        if self.result is not None:
            return str(self.result["status"])
        return self.nni_status.lower()

    @property
    def reason(self) -> str:
        return str(self.result["reason"]) if self.result is not None else ""

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


def read_trials(experiment: Path) -> list[Trial]:
    """All trials of the experiment in this directory, in the order NNI started them."""
    trials: dict[str, Trial] = {}
    for trial_id, event, number, data in _events(experiment / "db" / "nni.sqlite"):
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


def _events(database: Path) -> list[tuple[str, str, int, str | None]]:
    if not database.exists():  # the manager has not got that far
        return []
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'TrialJobEvent'").fetchone():
            return []
        return connection.execute(
            "select trialJobId, event, sequenceId, data from TrialJobEvent order by timestamp, rowid"
        ).fetchall()


def _with_files(trial: Trial, experiment: Path) -> Trial:
    directory = trial_directory(experiment, trial.id)
    params, result = _read_json(directory / "params.json"), _read_json(directory / "result.json")
    return replace(trial, params=params["parameters"] if params else trial.params, result=result)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else None
