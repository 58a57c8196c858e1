"""The commands: `cifar search`, also as `python -m cifar search`."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from cifar import data
from cifar.errors import RequestError
from cifar.experiment import Experiment, claim_port, load_config, noting_interrupt, start
from cifar.leaderboard import accuracy_text, leaderboard
from cifar.store import Trial, best_first, read_trials


def main() -> int:
    logging.basicConfig(format="%(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know ASCII alone
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parse_arguments()
    try:
        return search(options)
    except RequestError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cifar", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("search", help="run the experiment to its end and show the best trials")
    command.add_argument("--config", type=Path, default=Path("config.yml"), help="default: config.yml")
    command.add_argument(
        "--data",
        default=os.environ.get("CIFAR_DATA") or "cifar10",
        help="cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)",
    )
    command.add_argument("--max-trials", type=int, help="default: as in the config")
    command.add_argument("--port", type=int, help="of the web page (default: the first free one from 8080 up)")
    return parser.parse_args()


def search(options: argparse.Namespace) -> int:
    """Run an experiment to its end. Returns 0, 1 where it failed, 130 where it was interrupted."""
    config = load_config(options.config, options.max_trials)
    port, _port_claim = claim_port(options.port)
    data.load(options.data)  # prepared once, before any trial wants it
    with noting_interrupt() as interrupted:
        experiment = start(config, options.data, port)
        print(f"experiment {experiment.id}, web page {experiment.url}", file=sys.stderr)
        try:
            follow(experiment, interrupted)
            code = exit_code(experiment, interrupted())
        finally:
            experiment.stop()
    print(leaderboard(read_trials(experiment.directory)))
    print(f"saved in {experiment.directory}: db/nni.sqlite, and per trial environments/local-env/trials/*/result.json")
    return code


def exit_code(experiment: Experiment, interrupted: bool) -> int:
    """Says on the way why the code is not 0."""
    if interrupted:
        print("interrupted, stopping the trials", file=sys.stderr)
        return 130
    trials = read_trials(experiment.directory)
    if trials and not best_first(trials):
        print(f"no trial succeeded; the last one: {ending(trials[-1])}", file=sys.stderr)
        return 1
    if experiment.status() in ("DONE", "TUNER_NO_MORE_TRIAL"):
        return 0
    print(f"the experiment failed; its logs are in {experiment.directory / 'log'}", file=sys.stderr)
    return 1


def ending(trial: Trial) -> str:
    """How a trial ended, and why where it did not just run to its end."""
    return trial.status if trial.status == "ok" else f"{trial.status} ({trial.reason or 'see its trial.stderr'})"


def follow(experiment: Experiment, interrupted: Callable[[], bool]) -> None:
    """Show progress until the experiment ends: a line for each trial that does, and a bar on a terminal."""
    ended: list[Trial] = []
    total = f"/{experiment.max_trials}" if experiment.max_trials else ""  # a search may be bounded by time alone
    with tqdm(total=experiment.max_trials, unit="trial", disable=None) as bar:
        for trial in experiment.watch(interrupted):
            ended.append(trial)
            ranked = best_first(ended)
            best = f"best {accuracy_text(ranked[0])} in trial {ranked[0].number}" if ranked else "none finished yet"
            line = f"trial {trial.number}: {accuracy_text(trial)}, {ending(trial)}"
            tqdm.write(f"[{len(ended)}{total}] {line}; {best}", file=sys.stderr)
            bar.update()


if __name__ == "__main__":
    sys.exit(main())
