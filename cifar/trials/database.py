"""NNI's own database of an experiment, read as it is. No manager needs to run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cifar.errors import RequestError
from cifar.trials import layout

UNENDED = ("WAITING", "RUNNING", "UNKNOWN")
STATUSES = (*UNENDED, "SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
_OTHER_EVENTS = ("USER_TO_CANCEL", "ADD_CUSTOMIZED", "ADD_HYPERPARAMETER", "ADD_RESUMED", "IMPORT_DATA")
_WAIT_SECONDS = 30.0  # for another program that holds the database; NNI's manager waits twice as long


class DatabaseHeld(RequestError):
    """Another program holds an experiment's database, and does not let it go."""


def profile(experiment: Path, column: str) -> Any:
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


def events(experiment: Path, after: int) -> list[Any]:
    """What happened to trials since a row of the table, which comes first in each."""
    # In the order of writing: some times are by the clocks of other machines.
    query = "select rowid, trialJobId, event, sequenceId, data, timestamp from TrialJobEvent where rowid > ? order by 1"
    found = _select(experiment, "TrialJobEvent", query, after)
    if strange := {event[2] for event in found} - {*STATUSES, *_OTHER_EVENTS}:
        raise ValueError(f"nothing that happens to a trial is {sorted(map(str, strange))[0]!r}")
    return [event for event in found if event[2] in STATUSES]  # others say what users and resumes did


def last_change(experiment: Path) -> float:
    """When a trial last began or ended, in seconds since 1970; where none has, when the database was changed."""
    try:
        ((last,),) = _select(experiment, "TrialJobEvent", "select max(timestamp) from TrialJobEvent")
    except (RequestError, DatabaseHeld, ValueError):
        last = None
    changed = layout.database(experiment).stat().st_mtime
    return min(changed, float(last) / 1000) if isinstance(last, (int, float)) else changed


def metrics(experiment: Path) -> list[Any]:
    """What trials have reported: trial, PERIODICAL or FINAL, number, data, time."""
    query = "select trialJobId, type, sequence, data, timestamp from MetricData order by rowid"
    return _select(experiment, "MetricData", query)


def epochs_since(experiment: Path, after: int) -> list[Any]:
    """What trials have reported of epochs since a row of the table: row, trial, number of the epoch from 0, data."""
    query = (
        "select rowid, trialJobId, sequence, data from MetricData where rowid > ? and type = 'PERIODICAL' order by 1"
    )
    return _select(experiment, "MetricData", query, after)


def _select(experiment: Path, table: str, query: str, *values: object) -> list[Any]:
    """Rows of NNI's database; none where its manager has not got so far as to make the table."""
    if not layout.database(experiment).exists():
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
            held = f"another program has held {layout.database(experiment)} for {_WAIT_SECONDS:.0f} seconds"
            raise DatabaseHeld(f"{held}: a browser of databases, or a backup?") from None
        raise RequestError(f"{layout.database(experiment)} is damaged or of another version: {error}") from None


def _rows(experiment: Path, mode: str, table: str, query: str, values: Sequence[object]) -> list[Any]:
    with closing(_connect(experiment, mode)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone():
            return []
        return connection.execute(query, values).fetchall()


@contextmanager
def naming_damage(experiment: Path) -> Iterator[None]:
    """RequestError for what NNI never writes into its database."""
    try:
        yield
    except RequestError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RequestError(f"{layout.database(experiment)} is damaged: {error}") from None


def _connect(experiment: Path, mode: str = "ro") -> sqlite3.Connection:
    address = f"{layout.database(experiment).absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=_WAIT_SECONDS, uri=True)
