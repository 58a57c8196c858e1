"""Experiments as NNI and trials leave them on disk, made without running either."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.published import TABLES
from cifar.training.hparams import Hparams
from cifar.trials.layout import trial_directory
from cifar.trials.predictions import save_predictions

SPACE = {
    "width": {"_type": "qloguniform", "_value": [4, 32, 2]},
    "lr": {"_type": "loguniform", "_value": [0.0003, 0.1]},
}
LABELS = np.arange(1000) % 10


def make(directory: Path, trials: list[dict[str, Any]], config: dict[str, Any] | None = None) -> Path:
    """An experiment with these trials, one after the other, each as add_trial takes it."""
    (directory / "db").mkdir(parents=True)
    profile = {"searchSpace": SPACE, "tuner": {"name": "TPE", "classArgs": {"tpe_args": {"n_startup_jobs": 5}}}}
    with closing(sqlite3.connect(directory / "db" / "nni.sqlite")) as connection, connection:
        connection.executescript(TABLES)
        text = json.dumps(profile | {"experimentName": "made"} | (config or {}))
        connection.execute("insert into ExperimentProfile values (?, ?, 60, 0, 0, '', 0, 1)", (text, directory.name))
        for number, trial in enumerate(trials):
            add_trial(connection, directory, number, **trial)
    return directory


def add_trial(
    connection: sqlite3.Connection,
    experiment: Path,
    number: int,
    accuracy: float,
    status: str = "ok",
    epochs: int = 2,
    params: dict[str, Any] | None = None,
    fingerprints: dict[str, str] | None = None,
) -> None:
    """A trial that rises evenly to its accuracy; of 1,000 validation images it has the first ones wrong."""
    trial, began = f"trial{number}", time.time_ns() // 10**6 + 1000 * number
    params = params or {"width": 4.0 + 2 * (number % 8), "lr": 0.001 * (1 + number)}
    nni_params = json.dumps({"parameter_id": number, "parameters": params})
    event = "insert into TrialJobEvent values (?, ?, ?, ?, '', ?, '', '')"
    connection.execute(event, (began, trial, "RUNNING", nni_params, number))
    if status == "running":
        return
    metric = "insert into MetricData values (?, ?, ?, ?, ?, ?)"
    for epoch in range(epochs):
        data = json.dumps(json.dumps({"default": accuracy * (epoch + 1) / epochs, "loss": 1.0}))
        connection.execute(metric, (began + epoch + 1, trial, number, "PERIODICAL", epoch, data))
    connection.execute(metric, (began + 500, trial, number, "FINAL", 0, json.dumps(json.dumps({"default": accuracy}))))
    connection.execute(event, (began + 501, trial, "SUCCEEDED", None, number))
    directory = trial_directory(experiment, trial)
    directory.mkdir(parents=True)
    hparams = Hparams.from_params({"lr": params["lr"], "width": params["width"], "epochs": max(2, epochs)})
    result = {
        "status": status,
        "reason": f"{status} after {epochs} epochs",
        "metrics": {"default": accuracy, "parameters": 62006.0},
        "epochs": epochs,
        "seconds": 10.0 + number,
        "hparams": vars(hparams),
        "data": {"name": "digits", "val_images": len(LABELS), **(fingerprints or {})},
        "versions": {"torch": "2"},
    }
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "params.json").write_text(json.dumps({"parameters": params}))
    predicted = LABELS.copy()
    predicted[: round(len(LABELS) * (1 - accuracy))] += 1
    save_predictions(directory, predicted % 10, LABELS)
