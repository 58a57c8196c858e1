"""How commands are read, run and print: mistakes, exit codes of a closed pipe, tables, what to do next."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from prettytable import PrettyTable, TableStyle
from tqdm import tqdm

_BEGINNING = 7  # letters of a long name above a narrow column


def run(main: Callable[[], int]) -> int:
    """Run a program's main function, and return its exit code; 1 where nobody reads on, as in `cifar trials | head`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a class may have any name, and a terminal know ASCII alone
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # here, where it can still fail in silence
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the flush at exit complain
        return 1


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes get one line, with what may have been meant."""

    def parse(self) -> argparse.Namespace:
        """The options of this process; a subcommand may name its own parser as `parser`, to say what it knows."""
        options, unknown = self.parse_known_args()
        if unknown:
            getattr(options, "parser", self).refuse(unknown)
        return options

    def error(self, message: str) -> NoReturn:
        if wrong := re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            known = [word.strip("' ") for word in wrong[3].split(",")]
            named = wrong[1] if wrong[1].startswith("-") else wrong[1].lower()
            message = f"{named} must be one of {', '.join(known)}, got {wrong[2]!r}{_meant(wrong[2], known)}"
        self.exit(2, f"error: {message}\n")

    def refuse(self, unknown: list[str]) -> NoReturn:
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        first = unknown[0].split("=")[0]
        if first.startswith("-"):
            self.error(f"there is no option {first}{_meant(first, known)}")
        self.error(f"not understood: {' '.join(unknown)}; --help shows what is")


def _meant(given: str, known: list[str]) -> str:
    bare = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(given.lstrip("-"), bare, n=1)
    return f"; did you mean {bare[near[0]]}?" if near else "; --help lists them" if given.startswith("-") else ""


def plain_table(names: Sequence[str]) -> PrettyTable:
    """An empty table with these columns, aligned to the right, without lines."""
    table = PrettyTable(list(names))
    table.set_style(TableStyle.PLAIN_COLUMNS)
    table.left_padding_width, table.right_padding_width = 0, 2
    table.align = "r"
    return table


def as_wide_as_the_terminal(table: PrettyTable, least_important: Sequence[str]) -> str:
    """The table; on a narrow terminal with long names cut short, and without these columns, from the first on."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text = str(table)
    if width is not None and _width(text) > width:
        least_important = [_cut_short(name) for name in least_important]
        _rename(table, [_cut_short(name) for name in table.field_names])
        text = str(table)
    for name in (name for name in least_important if name in table.field_names):
        if width is None or _width(text) <= width:
            return text
        table.del_column(name)
        text = str(table)
    return text


def _cut_short(name: str) -> str:
    """Of a hyperparameter: its values are seldom as wide."""
    return f"{name[:_BEGINNING]}…" if "_" in name else name


def _rename(table: PrettyTable, names: Sequence[str]) -> None:
    """Each column stays on its side, which PrettyTable would forget."""
    if len({*names}) == len(names):
        sides = [table.align[name] for name in table.field_names]
        table.field_names = [*names]
        for name, side in zip(names, sides, strict=True):
            table.align[name] = side


def first_that_fits(*texts: str) -> str:
    """The first of these texts, on a terminal the first whose lines it shows whole; the last where none is."""
    width = shutil.get_terminal_size().columns
    fitting = (text for text in texts if not sys.stdout.isatty() or _width(text) <= width)
    return next(fitting, texts[-1])


def _width(text: str) -> int:
    return max((len(line.rstrip()) for line in text.splitlines()), default=0)


def show(text: str) -> None:
    """Print what a command is asked for."""
    print(wrapped(text, sys.stdout), flush=True)


def say(text: str) -> None:
    """Print what is told beside it, above a bar where there is one."""
    tqdm.write(wrapped(text, sys.stderr), file=sys.stderr)


def wrapped(text: str, stream: TextIO) -> str:
    """The text; where the stream is a terminal, its long lines broken between words."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    how = {"width": width, "subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    lines = [textwrap.fill(line, **how) if len(line) > width else line for line in text.splitlines()]  # type: ignore[arg-type]
    return "\n".join(lines)


def say_next(steps: Sequence[tuple[str, str]]) -> None:
    """Commands that come next, ready to copy, each with what it does and how long that takes."""
    if not steps:
        return
    longest = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{longest}}  # {about}" for command, about in steps]
    if sys.stderr.isatty() and max(map(len, lines)) > shutil.get_terminal_size().columns:
        lines = [line for command, about in steps for line in (f"  # {about}", f"  {command}")]
    print("\nnext:", *lines, sep="\n", file=sys.stderr)
