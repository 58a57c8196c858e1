"""`python -m benchmarks.contest.live [MATCH...]`: whole runs on real images, for all contenders the same time.

This project's run is the command `cifar fit`. The others search with their own library for the same share of the time,
as many trials at once, by the same trainer and on the same budget of a trial; then their best trial trains with two
seeds on all images, for the rest of the time. The defaults do so for the whole time. What counts is the test
accuracy of those last networks. Each run is kept as it ends, and the same command goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from filelock import FileLock

from benchmarks.contest import policies
from benchmarks.contest.live_runs import Outcome, Room, run_fit
from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, mean_and_ends
from benchmarks.table.plan import PLANS, Plan
from cifar.data import datasets
from cifar.system.files import new_file

_PICTURES = 2_000  # to train on, of the folder that has few
HEADER = ["match", "contender", "runs", "test accuracy", "lowest", "highest", "longest, in seconds"]


@dataclass(frozen=True)
class Match:
    """What is trained, on which images, for how long, and how often by each contender."""

    name: str
    plan: Plan
    seconds: float
    runs: int
    contenders: tuple[str, ...]


def _as_searched(plan: Plan) -> Plan:
    """An image by itself and its mirror image, as `cifar fit` has it; the tables go without, to save time."""
    return replace(plan, base=replace(plan.base, tta_flip=True))


ALL = ("cifar fit", "the defaults", "the defaults, twice as wide", "Optuna: TPE and a pruner", policies.GP)
MATCHES = {
    match.name: match
    for match in [
        Match("net", PLANS["net"], 900, 3, ALL),
        Match("2000", _as_searched(PLANS["fast-2000"]), 360, 3, ALL),
        Match("digits", PLANS["net"], 120, 3, ALL),
        Match("fast", _as_searched(PLANS["fast"]), 1800, 2, ALL[:2]),
    ]
}


@dataclass(frozen=True)
class Run:
    match: str
    contender: str
    seed: int
    outcome: Outcome


@dataclass(frozen=True)
class Line:
    """All runs of one contender in a match."""

    match: str
    contender: str
    accuracies: list[float]
    seconds: list[float]

    def cells(self) -> list[str]:
        runs, longest = str(len(self.accuracies)), f"{max(self.seconds):.0f}"
        return [self.match, self.contender, runs, *mean_and_ends(self.accuracies), longest]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contest.live", description=__doc__)
    parser.add_argument("matches", nargs="*", metavar="MATCH", help=f"of {', '.join(MATCHES)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.matches) - set(MATCHES):
        parser.error(f"no match is called {', '.join(sorted(unknown))}; there are {', '.join(MATCHES)}")
    images = machine.choose_data()
    with FileLock(_kept().with_suffix(".lock")):
        for match in (MATCHES[name] for name in options.matches or MATCHES):
            for seed in range(match.runs):
                for contender in match.contenders:
                    known = read()
                    if not any((run.match, run.contender, run.seed) == (match.name, contender, seed) for run in known):
                        keep([*known, Run(match.name, contender, seed, play(match, contender, seed, images))])
                        write_report(images)
    return 0


def play(match: Match, contender: str, seed: int, images: str) -> Outcome:
    print(f"{match.name}, {contender}, run {seed}: {match.seconds:.0f} s", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        data_name = _data(match, images, Path(scratch))
        datasets.load(data_name)  # decoded before the clock starts: a user does it once
        if contender == "cifar fit":
            return run_fit(match.plan.base.model, data_name, match.seconds, seed)
        room = Room(match.plan.base, match.plan.space, data_name, match.seconds, Path(scratch))
        if contender.startswith("the defaults"):
            return room.of_defaults(wider=2 if "wide" in contender else 1)
        return room.of_policy(policies.CONTENDERS[contender](match.plan, seed))


def _data(match: Match, images: str, scratch: Path) -> str:
    if match.name == "digits":
        return "digits"
    return str(_few(Path(images), scratch / "few")) if match.name == "2000" else images


def _few(images: Path, folder: Path) -> Path:
    """A folder with the first pictures of each class, and all test pictures."""
    classes = sorted(path for path in (images / "train").iterdir() if path.is_dir())
    each = round(_PICTURES / 0.9 / len(classes))
    for source in classes:
        target = folder / "train" / source.name
        target.mkdir(parents=True)
        for picture in sorted(source.iterdir())[:each]:
            (target / picture.name).symlink_to(picture)
    (folder / "test").symlink_to(images / "test")
    return folder


def _kept() -> Path:
    return RESULTS / "contest-live.jsonl"


def read() -> list[Run]:
    if not _kept().exists():
        return []
    kept = [json.loads(line) for line in _kept().read_text().splitlines()]
    return [Run(**{**run, "outcome": Outcome(**run["outcome"])}) for run in kept]


def keep(runs: list[Run]) -> None:
    with new_file(_kept()) as temporary:
        temporary.write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs))


def lines(runs: list[Run]) -> Iterator[Line]:
    """The best of each match first."""
    for match in dict.fromkeys(run.match for run in runs):
        outcomes = {
            contender: [run.outcome for run in runs if (run.match, run.contender) == (match, contender)]
            for contender in dict.fromkeys(run.contender for run in runs if run.match == match)
        }
        found = [
            Line(match, contender, [some.test_accuracy for some in theirs], [some.seconds for some in theirs])
            for contender, theirs in outcomes.items()
        ]
        yield from sorted(found, key=lambda line: -fmean(line.accuracies))


def write_report(images: str) -> None:
    facts = machine.describe("python -m benchmarks.contest.live", images)
    report = Report(RESULTS / "contest-live", "The contest, live", facts)
    report.table("Test accuracy of the last networks, two a run", "live", HEADER, lines(read()))


if __name__ == "__main__":
    sys.exit(main())
