"""The command that runs a trial: its program, its script, its options."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from cifar.errors import RequestError
from cifar.system.files import is_directory, is_file
from cifar.training.hparams import Hparams, command_hparams, option

_SHELL_WORDS = ("exec", "command", "time", "env")  # a program follows them


def command_problems(command: str, directory: Path, is_local: bool) -> Iterator[str]:
    """Sentences about a trial command that runs in a directory."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        yield f"trialCommand cannot be read: {error}, got {command!r}"
        return
    if not words or set(command) & set(";&|<>`\n"):
        yield f"trialCommand must be one simple command, so that NNI's stop signal reaches the trial, got {command!r}"
    elif any(word.startswith("#") for word in words):
        yield f"trialCommand must hold no comment, behind which options would be lost, got {command!r}"
    elif is_local and (program_problem := _program_problem(words, directory)):
        yield program_problem
    script = script_of(words)
    if script and is_directory(directory) and not is_file(Path(directory, expanded(script, directory))):
        yield f"trialCommand: there is no file {script} in {directory}"
    own = words[words.index(script) :] if script else words  # before it stand those of the launcher
    names = [word.split("=")[0] for word in own if word.startswith("--")]
    if "--data" in names:
        yield "trialCommand must not name --data: what is checked and measured would be other data; give it to cifar"
    try:
        hparams, others = command_hparams(command)
        Hparams.from_params(hparams)
    except RequestError as error:
        yield f"trialCommand: {error}"
    else:
        unknown = [name for name in names if name in others and name != "--data"]
        if unknown and script and Path(script).name == "trial.py":
            yield f"trialCommand: in a search trial.py takes no {', '.join(unknown)}"


def with_options(command: str, hparams: Mapping[str, object]) -> str:
    """A trial command with these hyperparameters, in place of what it said of them."""
    known, _ = command_hparams(command)
    for name, value in hparams.items():
        if known.get(name) != value:
            command = f"{_without_option(command, name)} {option(name, value)}"
    return command


def _without_option(command: str, name: str) -> str:
    """A trial command without an option of that name; one that is left all the same loses to a later one."""
    spelt = name.replace("_", "[-_]")
    flag = {spec.name: spec.type for spec in fields(Hparams)}[name] == "bool"
    return re.sub(rf"\s--(no-)?{spelt}(?=\s|$)" if flag else rf"\s--{spelt}[=\s]\s*[^\s-]\S*", "", command)


def script_of(words: Sequence[str]) -> str | None:
    """The Python file that a trial command runs."""
    return next((word for word in words if word.endswith(".py")), None)


def trial_path() -> str:
    """Where trials look for programs: this Python's own directory first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _program_problem(words: Sequence[str], directory: Path) -> str | None:
    """Why the shell would not find what a trial command runs; None where it would, or where only the shell can tell."""
    left = itertools.dropwhile(lambda word: word in _SHELL_WORDS or re.match(r"[A-Za-z_]\w*=", word), words)
    program = expanded(next(left, ""), directory)
    if program.startswith("-") or "$" in program:
        return None
    if not program:
        return f"trialCommand runs no program, got {shlex.join(words)!r}"
    if "/" in program:
        found = is_file(Path(directory, program)) and os.access(Path(directory, program), os.X_OK)
    else:
        found = shutil.which(program, path=trial_path()) is not None
    return None if found else f"trialCommand: there is no program {program}, got {shlex.join(words)!r}"


def expanded(text: str, directory: Path | None = None) -> str:
    """A path as a shell would read it; one that runs in `directory` if that is given. Unknown variables stay."""
    if directory is not None:
        text = re.sub(r"\$(PWD\b|\{PWD\})", lambda _: str(directory), text)
    return os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111  # a Path would drop the dot of ./program
