"""Searches that a contest has played, kept as they end: so that it goes on where it was ended."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.contest.replay import Lead
from benchmarks.shared.report import RESULTS
from benchmarks.table import rows
from cifar.system.files import new_file

_MINUTE = 60.0


@dataclass(frozen=True)
class Kept:
    """The searches of one contender, seed by seed, and the commit that played them, or several."""

    commit: str
    searches: list[list[Lead]]


def path(table: str) -> Path:
    return RESULTS / "contest" / f"{table}.searches.json.gz"


def read(table: str) -> dict[str, Kept]:
    """Of each contender; of none where the table has changed since, and its surrogate with it."""
    if not path(table).exists():
        return {}
    kept = json.loads(gzip.decompress(path(table).read_bytes()))
    if kept["table"] != _digest(table):
        return {}
    return {
        who: Kept(some["commit"], [[Lead(**lead) for lead in leads] for leads in some["searches"]])
        for who, some in kept["contenders"].items()
    }


def write(table: str, contenders: dict[str, Kept]) -> None:
    text = json.dumps({"table": _digest(table), "contenders": {who: asdict(kept) for who, kept in contenders.items()}})
    with new_file(path(table)) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


def by_the_minute(before: Kept, more: Iterable[list[Lead]], commit: str) -> Iterator[Kept]:
    """What there is to keep, about once a minute and at the end, while more searches are played by this commit."""
    commits = ", ".join(dict.fromkeys([*before.commit.split(", "), commit])) if before.searches else commit
    searches, written = [*before.searches], time.monotonic()
    for search in more:
        searches.append(search)
        if time.monotonic() - written > _MINUTE:
            written = time.monotonic()
            yield Kept(commits, searches)
    yield Kept(commits, searches)


def _digest(table: str) -> str:
    return hashlib.sha256(rows.path(table).read_bytes()).hexdigest()
