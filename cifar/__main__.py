"""The commands: `cifar search` and `cifar doctor`, also as `python -m cifar`."""

from __future__ import annotations

import argparse
import io
import logging
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cifar.config import Changes
from cifar.doctor import doctor
from cifar.errors import RequestError
from cifar.interrupts import listen
from cifar.ports import EVERYWHERE, LOOPBACK
from cifar.prepare import Request, prepare_new, prepare_resumed, prepare_view
from cifar.search import search, view


def main() -> int:
    logging.basicConfig(format="%(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know ASCII alone
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parse_arguments()
    listen()
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except RequestError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, a missing permission: the system's words are the clearest
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    parser = _Parser(prog="cifar", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("search", help="run the experiment to its end and show the best trials")
    command.set_defaults(run=run_search)
    _add_experiment_options(command)
    add = command.add_argument
    add("--host", choices=[LOOPBACK, EVERYWHERE], default=LOOPBACK, help="who sees the web page (default: you)")
    add("--keep-open", action="store_true", help="leave the web page up at the end, until Ctrl-C")
    earlier = command.add_mutually_exclusive_group()
    earlier.add_argument("--resume", metavar="ID", help="go on with an experiment that was stopped or cut off")
    earlier.add_argument("--ui-only", metavar="ID", help="only show a stopped experiment in the web page")
    command = commands.add_parser("doctor", help="check and measure what a search would need, without starting it")
    command.set_defaults(run=run_doctor)
    _add_experiment_options(command)
    return parser.parse_args()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")  # one line, as for any other mistake


def _add_experiment_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--config", type=Path, default=Path("config.yml"), help="default: config.yml; the options below override it")
    add("--data", help="cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)")
    add("--epochs", type=int, help="of every trial")
    add("--max-trials", type=int, help="trials in all")
    add("--duration", help="no new trial after this time: 90s, 30m, 2h, 1d")
    add("--concurrency", type=_concurrency, metavar="N|auto", help="trials at once; auto: as many as pay, measured")
    add("--tuner", help="TPE, Random, GridSearch or Evolution")
    add("--seed", type=int, help="of the tuner, where it takes one, and of every trial")
    add("--name", help="of the experiment, in the web page")
    add("--port", type=int, help="of the web page (default: the first free one from 8080 up)")


def _concurrency(text: str) -> int | str:
    if text != "auto" and not re.fullmatch(r"-?\d+", text):
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}")
    return text if text == "auto" else int(text)


def run_search(options: argparse.Namespace) -> int:
    request = _request(options)
    if options.ui_only:
        with prepare_view(request, options.ui_only) as shown:
            return view(shown)
    prepared = prepare_resumed(request, options.resume) if options.resume else prepare_new(request)
    config = [] if options.config == Path("config.yml") else ["--config", str(options.config)]
    resume_command = shlex.join(["cifar", "search", *config, "--resume", prepared.id])
    with prepared:
        return search(prepared, options.keep_open, resume_command)


def run_doctor(options: argparse.Namespace) -> int:
    return doctor(_request(options))


def _request(options: argparse.Namespace) -> Request:
    auto = options.concurrency == "auto"
    changes = Changes(
        name=options.name,
        tuner=options.tuner,
        max_trials=options.max_trials,
        duration=options.duration,
        concurrency=None if auto else options.concurrency,
        epochs=options.epochs,
        seed=options.seed,
    )
    return Request(options.config, changes, options.data, auto, options.port, getattr(options, "host", LOOPBACK))


if __name__ == "__main__":
    sys.exit(main())
