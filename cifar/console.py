"""How commands run and print: exit codes of a closed pipe, tables."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence

from prettytable import PrettyTable, TableStyle


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


def plain_table(names: Sequence[str]) -> PrettyTable:
    """An empty table with these columns, aligned to the right, without lines."""
    table = PrettyTable(list(names))
    table.set_style(TableStyle.PLAIN_COLUMNS)
    table.left_padding_width, table.right_padding_width = 0, 2
    table.align = "r"
    return table
