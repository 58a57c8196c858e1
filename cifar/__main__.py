"""The commands, also as `python -m cifar`."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cifar import console
from cifar.console import say_next, show
from cifar.errors import RequestError
from cifar.options import FIT_MODEL, LEAST_TIME, TIME_LIMIT, Run, parse
from cifar.system import processes
from cifar.system.files import refuse_to_replace
from cifar.system.ports import LOOPBACK
from cifar.system.signals import listen
from cifar.training.hparams import given_arguments
from cifar.trials import layout, store

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
    options = parse(_RUNS)
    listen()
    try:
        return int(options.run(options))
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
        code = search(prepared, options.keep_open, resume_command)
    if code == 0:
        from cifar.analysis import next_steps

        say_next(next_steps.after_search(prepared.directory, store.read_trials(prepared.directory), options.config))
    return code


def run_fit(options: argparse.Namespace) -> int:
    limit = _time_limit(options)
    if not (options.config or options.resume or hasattr(options, "model")):
        options.model = FIT_MODEL
    with contextlib.ExitStack() as held:
        with processes.spawner("cifar.search.forecast"):  # first: it imports beside the imports here
            from cifar.analysis import fit, next_steps
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
        code = fit.go_on(experiment, data, prepared)
    if code == 0:
        say_next(next_steps.uses_of(layout.best_model(experiment)))
    return code


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
    written = TIME_LIMIT if options.time_limit is None else options.time_limit
    seconds = durations.seconds(written) if durations.is_duration(written) else None
    if seconds is None:
        raise RequestError(f"--time-limit {durations.RULE}, got {written!r}")
    if seconds < LEAST_TIME:
        raise RequestError(f"--time-limit must be at least {LEAST_TIME}s, got {written}: to measure takes nearly that")
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
    text = {"table": leaderboard, "csv": as_csv, "json": as_json}[options.format](trials, directory)
    show(text) if options.format == "table" else print(text)
    return 0


def run_list(options: argparse.Namespace) -> int:
    from cifar.analysis.experiments import listing

    print(listing(_parent(options)))
    return 0


def run_compare(options: argparse.Namespace) -> int:
    from cifar.analysis.experiments import comparison

    parent = _parent(options)
    text = comparison(store.find(options.first, parent), store.find(options.second, parent))
    show(text)
    return 0


def run_best(options: argparse.Namespace) -> int:
    from cifar.analysis import next_steps
    from cifar.analysis.best import Budget, best
    from cifar.analysis.confirm import Rule
    from cifar.search.facts import same_data

    directory = _experiment(options)
    _runs(directory)
    budget = Budget(options.seeds, options.final_epochs)
    rule = Rule(options.prefer, options.margin / 100)
    code = best(directory, same_data(directory, None), budget, options.data, options.force, rule)
    if code == 0:
        say_next(next_steps.after_best(directory, options.config if options.config != Path("config.yml") else None))
    return code


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
    first = report(directory, out, same_data(directory, None), _runs(directory))
    show(f"{first.text}\nreport: {out}")
    return 0


def _parent(options: argparse.Namespace) -> Path:
    """Where the experiments of a search lie."""
    from cifar.search.config import experiments_directory

    if options.config != Path("config.yml") and not options.config.exists():
        raise RequestError(f"{options.config}: no such file")
    return experiments_directory(options.config)


def _experiment(options: argparse.Namespace) -> Path:
    directory = store.find(options.id, _parent(options))
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
    from cifar.data.folder_advice import ARCHIVES
    from cifar.data.inspection import describe

    path = Path(options.data)
    if path.is_file() and path.suffix.lower() not in ARCHIVES:
        from cifar.inference import model_file

        show(model_file.description(model_file.load(path)))
        return 0
    return describe(options.data, options.preview, options.force)


def run_predict(options: argparse.Namespace) -> int:
    from cifar.data.preview import refuse_unfit, save
    from cifar.inference import model_file
    from cifar.inference.predict import print_predictions
    from cifar.inference.prediction_grid import prediction_grid

    if options.grid:
        refuse_unfit(options.grid, "--grid", options.force)
    predictions = print_predictions(model_file.load(options.model), options.images, options.top, options.json)
    if options.grid:
        save(prediction_grid(predictions), options.grid)
        print(f"pictures with their classes: {options.grid}", file=sys.stderr)
    return int(any(some.error for some in predictions))


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


_RUNS: dict[str, Run] = {
    "search": run_search,
    "fit": run_fit,
    "doctor": run_doctor,
    "list": run_list,
    "trials": run_trials,
    "best": run_best,
    "report": run_report,
    "compare": run_compare,
    "data": run_data,
    "predict": run_predict,
    "export": run_export,
}


if __name__ == "__main__":
    program()
