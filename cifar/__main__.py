"""The commands, also as `python -m cifar`."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cifar import console
from cifar.errors import RequestError
from cifar.system import processes
from cifar.system.files import refuse_to_replace
from cifar.system.ports import EVERYWHERE, LOOPBACK
from cifar.system.signals import listen
from cifar.training.hparams import add_arguments, given_arguments
from cifar.trials import store

# Each command imports what it needs when it runs: PyTorch and NNI take seconds, a leaderboard needs neither.
if TYPE_CHECKING:
    from cifar.search.plan import Request


def program() -> NoReturn:
    """What the shell calls `cifar`."""
    code = main()
    atexit._run_exitfuncs()  # multiprocessing's remove its directories
    processes.leave(code)


def main() -> int:
    return console.run(_main)


def _main() -> int:
    logging.basicConfig(format="%(message)s")
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
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a missing permission: the system's words are the clearest
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    parser = _Parser(prog="cifar", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_options, name, run, purpose in (
        (_add_search, "search", run_search, "run the experiment to its end and show the best trials"),
        (_add_fit, "fit", run_fit, "the best network that so much time gives: search, train, model, report"),
        (_add_plan, "doctor", run_doctor, "check and measure what a search would need, without starting it"),
        (_add_trials, "trials", run_trials, "the leaderboard of an experiment, running or not"),
        (_add_best, "best", run_best, "confirm the winner with new seeds, test it once, and keep its model"),
        (_add_report, "report", run_report, "write the experiment as one web page, to open offline"),
        (_add_data, "data", run_data, "count the images of a data set, and find what is wrong with them"),
        (_add_predict, "predict", run_predict, "say what is in pictures"),
        (_add_export, "export", run_export, "write a model as ONNX"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.set_defaults(run=run)
        add_options(command)
    return parser.parse_args()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")  # one line, as for any other mistake


_TIME_LIMIT = "30m"
_START_FROM = (
    "begin, after the defaults, with width=26,lr=0.02 (what is not named is as in the defaults) or with the best of "
    "experiment ID; may be repeated"
)


def _add_plan(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("the experiment").add_argument
    config_help = "default: config.yml, with --model fast that of searches/; the options below override it"
    add("--config", type=Path, metavar="CONFIG.yml", help=config_help)
    add("--data", help="cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)")
    add("--max-trials", type=int, help="trials in all")
    add("--duration", help="no new trial after this time: 90s, 30m, 2h, 1d")
    add("--tuner", help="TPE, Random, GridSearch or Evolution")
    add("--start-from", action="append", metavar="X", help=_START_FROM)
    add("--no-early-stopping", action="store_true", default=None, help="every trial runs to its end")
    add("--name", help="of the experiment, in the web page")
    add = command.add_argument_group("where it runs").add_argument
    add("--concurrency", type=_concurrency, metavar="N|auto", help="trials at once; auto: as many as pay, measured")
    add("--gpus-per-trial", type=int, metavar="N", help="train each network by N processes, on a GPU each")
    add("--hosts", type=Path, metavar="HOSTS.yml", help="run the trials on these machines, over SSH")
    add("--port", type=int, help="of the web page (default: the first free one from 8080 up)")
    add_arguments(
        command.add_argument_group(
            "every trial", "over what the config's trial command says; the seed is the tuner's too"
        )
    )


def _concurrency(text: str) -> int | str:
    if text != "auto" and not re.fullmatch(r"-?\d+", text):
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}")
    return text if text == "auto" else int(text)


def _add_search(command: argparse.ArgumentParser) -> None:
    _add_plan(command)
    add = command.add_argument_group("this run").add_argument
    add("--install", action="store_true", help="on the machines of --hosts: install this project there first")
    add("--host", choices=[LOOPBACK, EVERYWHERE], default=LOOPBACK, help="who sees the web page (default: you)")
    add("--keep-open", action="store_true", help="leave the web page up at the end, until Ctrl-C")
    earlier = command.add_argument_group("an earlier experiment").add_mutually_exclusive_group()
    earlier.add_argument("--resume", metavar="ID", help="go on with an experiment that was stopped or cut off")
    earlier.add_argument("--ui-only", metavar="ID", help="only show a stopped experiment in the web page")


def _add_fit(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", help="cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)")
    add("--time-limit", metavar="TIME", help=f"for all of it: 90s, 30m, 2h (default: {_TIME_LIMIT})")
    add("--config", type=Path, help="a search of your own to begin, whose budget and limits are left out")
    add("--start-from", action="append", metavar="X", help=_START_FROM)
    add("--name", help="of the experiment, in the web page")
    add("--port", type=int, help="of the web page (default: the first free one from 8080 up)")
    add("--resume", metavar="ID", help="go on with one that was interrupted, for the time that it has left")
    every_trial = command.add_argument_group("every trial", "the seed is the tuner's too; epochs follow from the time")
    add_arguments(every_trial, without=("epochs", "images_per_epoch"))


def _add_experiment(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("id", nargs="?", metavar="ID", help="of the experiment, or its first characters (default: the latest)")
    add("--config", type=Path, default=Path("config.yml"), help="says where experiments lie (default: config.yml)")


def _add_trials(command: argparse.ArgumentParser) -> None:
    _add_experiment(command)
    command.add_argument("--format", choices=["table", "csv", "json"], default="table", help="default: table")


def _add_best(command: argparse.ArgumentParser) -> None:
    _add_experiment(command)
    add = command.add_argument
    final_epochs = "epochs of all images for the final networks, at which the two best and the defaults meet again"
    add("--seeds", type=int, default=3, help="trainings of each leading trial, and of the defaults (default: 3)")
    add("--final-epochs", type=int, metavar="N", help=final_epochs)
    add("--prefer", choices=["accuracy", "speed"], default="accuracy", help="of the winner (default: accuracy)")
    add("--margin", type=float, default=0.5, metavar="POINTS", help="that speed may cost, in accuracy (default: 0.5)")
    add("--data", metavar="FOLDER", help="a further set of test images, reported beside the first")
    add("--force", action="store_true", help="again, where it has been done")


def _add_report(command: argparse.ArgumentParser) -> None:
    _add_experiment(command)
    command.add_argument("--out", type=Path, help="the file to write (default: report-ID.html)")
    command.add_argument("--force", action="store_true", help="replace that file if it is there")


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", help="cifar10, digits or a folder of pictures")
    add("--preview", type=Path, metavar="GRID.png", help="also write some images of each class")
    add("--force", action="store_true", help="replace GRID.png if it is there")


def _add_predict(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file")
    add("images", type=Path, nargs="+", metavar="IMAGE", help="a picture, a folder of them, or - for one from stdin")
    add("--top", type=int, default=3, help="classes to name for each picture (default: 3)")
    add("--json", action="store_true", help="for programs")


def _add_export(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file")
    add("out", type=Path, metavar="OUT.onnx", help="the file to write")
    add("--force", action="store_true", help="replace OUT.onnx if it is there")


def run_search(options: argparse.Namespace) -> int:
    if options.ui_only:
        return run_view(options)
    with contextlib.ExitStack() as held:
        with processes.spawner("cifar.search.forecast"):  # first: it imports beside the imports here
            from cifar.search.prepare import prepare_new, prepare_resumed
            from cifar.search.run import search

            request = _request(options)
            if options.resume:
                prepared = held.enter_context(prepare_resumed(request, held, options.resume))
            else:
                prepared = held.enter_context(prepare_new(request, held))
        config = ["--config", str(options.config)] if options.config else []
        resume_command = shlex.join(["cifar", "search", *config, "--resume", prepared.id])
        return search(prepared, options.keep_open, resume_command)


def run_fit(options: argparse.Namespace) -> int:
    limit = _time_limit(options)
    with contextlib.ExitStack() as held:
        with processes.spawner("cifar.search.forecast"):  # first: it imports beside the imports here
            from cifar.analysis import fit
            from cifar.search.config import Overrides
            from cifar.search.facts import same_data
            from cifar.search.plan import Request

            overrides = Overrides(name=options.name, hparams=given_arguments(options))
            config, start_from = search_of(options), tuple(options.start_from or ())
            request = Request(config, overrides, options.data, True, options.port, start_from=start_from)
            if options.resume:
                experiment, prepared = fit.resume(request, options.resume, held)
                data = same_data(experiment, options.data)
            else:
                prepared = fit.begin(request, limit, held)
                experiment, data = prepared.directory, prepared.facts.data
        return fit.go_on(experiment, data, prepared)


def search_of(options: argparse.Namespace) -> Path:
    """The config that is asked for, else the one of the network."""
    if options.config or getattr(options, "model", "net") != "fast":
        return options.config or Path("config.yml")
    from cifar.system.gpus import list_gpus

    return Path("searches", "fast-gpu" if list_gpus() else "fast", "config.yml")


def _time_limit(options: argparse.Namespace) -> float:
    """In seconds."""
    from cifar.system import durations

    if options.resume and options.time_limit:
        raise RequestError("--time-limit cannot change when a fit is resumed: it goes on for the time that it has left")
    written = options.time_limit or _TIME_LIMIT
    seconds = durations.seconds(written) if durations.is_duration(written) else None
    if seconds is None:
        raise RequestError(f"--time-limit {durations.RULE}, got {written!r}")
    return seconds


def run_view(options: argparse.Namespace) -> int:
    from cifar.search.prepare import prepare_view
    from cifar.search.run import view

    with prepare_view(_request(options), options.ui_only) as shown:
        return view(shown)


def run_doctor(options: argparse.Namespace) -> int:
    with processes.spawner("cifar.search.forecast"):
        from cifar.search.doctor import doctor

        return doctor(_request(options))


def run_trials(options: argparse.Namespace) -> int:
    from cifar.trials.leaderboard import as_csv, as_json, leaderboard

    directory = _experiment(options)
    _runs(directory)
    trials = store.read_trials(directory)
    print({"table": leaderboard, "csv": as_csv, "json": as_json}[options.format](trials, directory))
    return 0


def run_best(options: argparse.Namespace) -> int:
    from cifar.analysis.best import Budget, best
    from cifar.analysis.confirm import Rule
    from cifar.search.facts import same_data

    directory = _experiment(options)
    _runs(directory)
    budget = Budget(options.seeds, options.final_epochs)
    rule = Rule(options.prefer, options.margin / 100)
    return best(directory, same_data(directory, None), budget, options.data, options.force, rule)


def run_report(options: argparse.Namespace) -> int:
    try:
        from cifar.analysis.report import report
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "cifar":
            raise
        raise RequestError(f"a report needs the package {error.name}: pip install -e '.[report]'") from None
    from cifar.search.facts import same_data

    directory = _experiment(options)
    out = options.out or Path(f"report-{directory.name}.html")
    refuse_to_replace(out, options.force)
    report(directory, out, same_data(directory, None), _runs(directory))
    print(f"report: {out}")
    return 0


def _experiment(options: argparse.Namespace) -> Path:
    from cifar.search.config import experiments_directory

    if options.config != Path("config.yml") and not options.config.exists():
        raise RequestError(f"{options.config}: no such file")
    directory = store.find(options.id, experiments_directory(options.config))
    if options.id is None:
        print(f"experiment {directory.name}", file=sys.stderr)
    return directory


def _runs(experiment: Path) -> bool:
    """Whether the experiment goes on, and this is what there is so far."""
    running = bool(processes.find(experiment, "manager"))
    if running:
        print(f"experiment {experiment.name} is still running; this is what there is so far", file=sys.stderr)
    return running


def run_data(options: argparse.Namespace) -> int:
    from cifar.data.inspection import describe

    return describe(options.data, options.preview, options.force)


def run_predict(options: argparse.Namespace) -> int:
    from cifar.inference import model_file
    from cifar.inference.predict import print_predictions

    return print_predictions(model_file.load(options.model), options.images, options.top, options.json)


def run_export(options: argparse.Namespace) -> int:
    from cifar.inference import model_file
    from cifar.inference.export import export

    refuse_to_replace(options.out, options.force)
    export(model_file.load(options.model), options.out)
    print(f"model: {options.out}")
    return 0


def _request(options: argparse.Namespace) -> Request:
    from cifar.search.config import Overrides
    from cifar.search.plan import Request
    from cifar.search.remote.host import read

    auto = options.concurrency == "auto"
    overrides = Overrides(
        name=options.name,
        tuner=options.tuner,
        max_trials=options.max_trials,
        duration=options.duration,
        concurrency=None if auto else options.concurrency,
        hparams=given_arguments(options),
        no_early_stopping=options.no_early_stopping,
        gpus_per_trial=options.gpus_per_trial,
        hosts=tuple(read(options.hosts)) if options.hosts else None,
    )
    host, install = getattr(options, "host", LOOPBACK), getattr(options, "install", False)
    start_from = tuple(getattr(options, "start_from", None) or ())
    return Request(search_of(options), overrides, options.data, auto, options.port, host, install, start_from)


if __name__ == "__main__":
    program()
