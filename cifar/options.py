"""What can be asked of `cifar` on the command line: its commands, their options, and help that can be scanned."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cifar import __version__
from cifar.console import Parser
from cifar.system.ports import EVERYWHERE, LOOPBACK
from cifar.training.hparams import add_arguments

Run = Callable[[argparse.Namespace], int]

TIME_LIMIT, FIT_MODEL = "30m", "fast"  # of `cifar fit`, unless it is told otherwise
LEAST_TIME = 30  # seconds of a fit, which takes nearly that to measure
_DATA = "cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)"
_PORT = "port of NNI's web page (default: the first free one from 8080 up)"
_NAME = "the experiment's name in NNI's web page (default: data, network and tuner)"
_START_FROM = (
    "try {} right after the defaults (what is not named stays as in the defaults), or the best "
    "configurations of experiment ID; may be repeated"
)


@dataclass(frozen=True)
class Command:
    """`example` is what the overview shows, `purpose` says what the command does."""

    name: str
    example: str
    purpose: str
    add_options: Callable[[argparse.ArgumentParser], None]


def parse(runs: Mapping[str, Run]) -> argparse.Namespace:
    """The options of this process's command line; `runs` has what each command runs, which `run` will be."""
    parser = Parser(prog="cifar", usage="cifar COMMAND [OPTIONS]", description=overview(), add_help=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"cifar-nni {__version__}", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND", help=argparse.SUPPRESS, parser_class=Parser)
    for command in (some for group in COMMANDS.values() for some in group):
        about = f"{command.purpose[0].upper()}{command.purpose[1:]}. Example: {command.example}"
        added = commands.add_parser(command.name, prog=f"cifar {command.name}", description=about)
        added.set_defaults(run=runs[command.name], parser=added)
        command.add_options(added)
        added.usage = " ".join([added.prog, *_places(added), "[OPTIONS]"])  # the list below has them all
    options = parser.parse()
    if not hasattr(options, "run"):
        parser.print_help()
        parser.exit()
    return options


def overview() -> str:
    """All commands, in groups, as lines of at most 80 characters."""
    lines = ["Find the best small network for CIFAR-10 or for your own pictures, with NNI."]
    for group, commands in COMMANDS.items():
        lines += ["", group, *(f"  {command.example:<38} {command.purpose}" for command in commands)]
    return "\n".join([*lines, "", "`cifar COMMAND --help` lists its options, `cifar --version` the version."])


def _places(command: argparse.ArgumentParser) -> Iterator[str]:
    """What a command takes beside options, as its usage has it."""
    for action in command._get_positional_actions():
        yield {"?": f"[{action.metavar}]", "+": f"{action.metavar}..."}.get(str(action.nargs), str(action.metavar))


def _add_plan(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("the experiment").add_argument
    config_help = "the search (default: config.yml, with --model fast that of searches/); the options below override it"
    add("--config", type=Path, metavar="CONFIG.yml", help=config_help)
    add("--data", metavar="DATA", help=_DATA)
    add("--max-trials", type=int, metavar="N", help="trials in all (default: the config's, else without an end)")
    add("--duration", metavar="TIME", help="start no trial after this time: 90s, 30m, 2h, 1d (default: the config's)")
    own = "this project's TPE; NNI's own is had by name: TPE in a config"
    add("--tuner", metavar="NAME", help=f"TPE, Random, GridSearch or Evolution (default: the config's, {own})")
    add("--start-from", action="append", metavar="ID|NAME=X,...", help=_START_FROM.format("width=26,lr=0.02"))
    add("--no-early-stopping", action="store_true", default=None, help="let every trial run to its end")
    add("--name", metavar="NAME", help=_NAME)
    add = command.add_argument_group("where it runs").add_argument
    at_once = "trials at once; auto: as many as pay, measured (default: the config's)"
    add("--concurrency", type=_concurrency, metavar="N|auto", help=at_once)
    add("--gpus-per-trial", type=int, metavar="N", help="train each network by N processes, on a GPU each")
    add("--hosts", type=Path, metavar="HOSTS.yml", help="run the trials on these machines, over SSH")
    add("--port", type=int, metavar="N", help=_PORT)
    _add_hparams(command)


def _add_hparams(command: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    about = "the same for each trial; by default what the config's trial command says"
    add_arguments(command, about, without, defaults=False)


def _concurrency(text: str) -> int | str:
    if text != "auto" and not re.fullmatch(r"-?\d+", text):
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}")
    return text if text == "auto" else int(text)


def _add_search(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("this run").add_argument
    add("--install", action="store_true", help="on the machines of --hosts: install this project there first")
    add("--host", choices=[LOOPBACK, EVERYWHERE], default=LOOPBACK, help="who sees the web page (default: you)")
    add("--keep-open", action="store_true", help="leave the web page up at the end, until Ctrl-C")
    earlier = command.add_argument_group("an earlier experiment").add_mutually_exclusive_group()
    earlier.add_argument("--resume", metavar="ID", help="go on with an experiment that was stopped or cut off")
    earlier.add_argument("--ui-only", metavar="ID", help="only show a stopped experiment in NNI's web page")
    _add_plan(command)


def _add_fit(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", metavar="DATA", help=_DATA)
    usual = f"default: {TIME_LIMIT}, at least {LEAST_TIME}s"
    add("--time-limit", metavar="TIME", help=f"for all of it: 90s, 30m, 2h ({usual})")
    add("--config", type=Path, metavar="CONFIG.yml", help="a search of your own; its budget and limits are left out")
    add("--start-from", action="append", metavar="ID|NAME=X,...", help=_START_FROM.format("width=24,lr=0.5"))
    add("--name", metavar="NAME", help=_NAME)
    add("--port", type=int, metavar="N", help=_PORT)
    add("--resume", metavar="ID", help="go on with one that was interrupted, for the time that it has left")
    command.epilog = f"Without --model and --config it searches the network {FIT_MODEL}; --model net is the tutorial's."
    _add_hparams(command, without=("epochs", "images_per_epoch"))  # they follow from the time


def _add_place(command: argparse.ArgumentParser) -> None:
    config_help = "the search whose experiments are meant (default: config.yml)"
    command.add_argument("--config", type=Path, metavar="CONFIG.yml", default=Path("config.yml"), help=config_help)


def _add_experiment(command: argparse.ArgumentParser) -> None:
    id_help = "the experiment, by its ID or the first characters of it (default: the latest)"
    command.add_argument("id", nargs="?", metavar="ID", help=id_help)
    _add_place(command)


def _add_compare(command: argparse.ArgumentParser) -> None:
    for name in ("first", "second"):
        command.add_argument(name, metavar="ID", help=f"the {name} experiment, by its ID or the first characters of it")
    _add_place(command)


def _add_trials(command: argparse.ArgumentParser) -> None:
    _add_experiment(command)
    command.add_argument("--format", choices=["table", "csv", "json"], default="table", help="default: table")


def _add_best(command: argparse.ArgumentParser) -> None:
    _add_experiment(command)
    add = command.add_argument
    final_epochs = (
        "train the final networks for so many epochs of all images, after the two best and the defaults have "
        "(default: as in the search)"
    )
    add("--seeds", type=int, default=3, metavar="N", help="train each leading trial so many times (default: 3)")
    add("--final-epochs", type=int, metavar="N", help=final_epochs)
    add("--prefer", choices=["accuracy", "speed"], default="accuracy", help="what decides (default: accuracy)")
    margin = "accuracy that speed may cost, in points (default: 0.5)"
    add("--margin", type=float, default=0.5, metavar="POINTS", help=margin)
    add("--data", metavar="FOLDER", help="more test images, reported beside the first")
    add("--force", action="store_true", help="do it again, where it has been done")


def _add_report(command: argparse.ArgumentParser) -> None:
    _add_experiment(command)
    command.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default: report-ID.html)")
    command.add_argument("--force", action="store_true", help="replace that file if it is there")


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", help="cifar10, digits or a folder of pictures; or a model file, to see what it is")
    add("--preview", type=Path, metavar="GRID.png", help="also write some images of each class")
    add("--force", action="store_true", help="replace GRID.png if it is there")


def _add_predict(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file")
    images = "a picture, a folder of them, or - for one from stdin; folders named after classes are checked"
    add("images", type=Path, nargs="+", metavar="IMAGE", help=images)
    add("--top", type=int, default=3, metavar="N", help="classes to name for each picture (default: 3)")
    add("--json", action="store_true", help="write JSON, for programs")
    add("--grid", type=Path, metavar="GRID.png", help="also write the pictures with their classes, as one picture")
    add("--force", action="store_true", help="replace GRID.png if it is there")


def _add_export(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file")
    add("out", type=Path, metavar="OUT.onnx", help="the file to write")
    add("--force", action="store_true", help="replace OUT.onnx if it is there")


COMMANDS = {
    "search": [
        Command("fit", "cifar fit --data DIR --time-limit 30m", "the best network for so much time", _add_fit),
        Command("search", "cifar search --max-trials 20", "run trials to the end, show the best", _add_search),
        Command("doctor", "cifar doctor", "would it fit, how long would it take", _add_plan),
    ],
    "answer": [
        Command("list", "cifar list", "the experiments that there are", _add_place),
        Command("trials", "cifar trials", "all trials, the best first", _add_trials),
        Command("best", "cifar best", "train the best again, test it, keep it", _add_best),
        Command("report", "cifar report", "everything on one web page", _add_report),
        Command("compare", "cifar compare ID ID", "two experiments side by side", _add_compare),
    ],
    "use": [
        Command("predict", "cifar predict MODEL photo.jpg", "what is in a picture", _add_predict),
        Command("export", "cifar export MODEL model.onnx", "the model as ONNX", _add_export),
        Command("data", "cifar data DIR", "count pictures, find what is wrong", _add_data),
    ],
}
