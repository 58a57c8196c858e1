"""`python -m benchmarks.studies.published TABLE CONFIG MINUTES DIRECTORY`: a published search, for `cifar best`.

TABLE is what `cifar trials --format csv` printed of a search whose experiment is gone, CONFIG what it ran by, MINUTES
how long it took. DIRECTORY becomes an experiment with these trials; of their predictions and curves nothing is left.
"""

from __future__ import annotations

import argparse
import csv
import json
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from cifar.system.files import write_json
from cifar.training.hparams import Hparams, command_hparams
from cifar.trials import layout

_VAL_IMAGES = 5000
# NNI's, as far as they are read.
TABLES = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
    sequenceId integer, message text, environmentId text);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer, data text);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, endTime integer,
    logDir text, nextSequenceId integer, revision integer);
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.published", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--epochs", type=int, help="of each trial (default: as CONFIG has them)")
    options = parser.parse_args()
    config = read_config(options.config, options.epochs)
    make(options.directory, config, 60 * options.minutes, read_rows(options.table))
    return 0


def read_rows(table: Path) -> list[dict[str, str]]:
    """In the order in which the trials began."""
    with table.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["number"]))


def read_config(path: Path, epochs: int | None) -> dict[str, Any]:
    """As NNI keeps it, with the search space in it."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    config["searchSpace"] = json.loads((path.parent / config.pop("searchSpaceFile")).read_text())
    if epochs is not None:
        config["trialCommand"] += f" --epochs {epochs}"
    return config


def make(directory: Path, config: dict[str, Any], seconds: float, rows: list[dict[str, str]]) -> None:
    layout.database(directory).parent.mkdir(parents=True)
    with closing(sqlite3.connect(layout.database(directory))) as connection, connection:
        connection.executescript(TABLES)
        profile = (json.dumps(config), directory.name, seconds)
        connection.execute("insert into ExperimentProfile values (?, ?, ?, 0, 0, '', 0, 1)", profile)
        for row in rows:
            params = {name: float(row[name]) for name in config["searchSpace"]}
            content = json.dumps({"parameters": params})
            event = "insert into TrialJobEvent values (0, ?, ?, ?, '', ?, '', '')"
            connection.execute(event, (row["trial"], "RUNNING", content, int(row["number"])))
            connection.execute(event, (row["trial"], "SUCCEEDED", None, int(row["number"])))
            trial = layout.trial_directory(directory, row["trial"])
            trial.mkdir(parents=True)
            write_json(trial / layout.PARAMS, {"parameters": params})
            write_json(trial / layout.RESULT, _result(row, params, config["trialCommand"]))


def _result(row: Mapping[str, str], params: Mapping[str, float], command: str) -> dict[str, Any]:
    given, _ = command_hparams(command)
    return {
        "status": row["ended"],
        "reason": row["reason"],
        "metrics": {"default": float(row["accuracy"])} if row["accuracy"] else None,
        "epochs": int(row["epochs"]),
        "seconds": float(row["seconds"]),
        "hparams": vars(Hparams.from_params({**given, **params})),
        "data": {"val_images": _VAL_IMAGES},
    }


if __name__ == "__main__":
    sys.exit(main())
