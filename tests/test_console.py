from __future__ import annotations

import io

import pytest
from prettytable import PrettyTable

from cifar import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both streams as a terminal of 40 columns; asked for in the test itself, since pytest puts its own back before."""
    shown = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", shown)
    monkeypatch.setenv("COLUMNS", "40")
    return shown


def table() -> PrettyTable:
    made = console.plain_table(["number", "trial", "accuracy", "parameters", "seconds"])
    made.add_row(["7", "abcde", "80.0% ± 4.6%", "62,006", "10.0"])
    return made


def test_on_a_narrow_terminal_the_least_important_columns_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    heads = console.as_wide_as_the_terminal(table(), ["trial", "missing", "parameters"]).splitlines()[0].split()
    assert heads == ["number", "accuracy", "seconds"]
    assert console.as_wide_as_the_terminal(table(), []).split()[0] == "number"


def test_long_names_are_cut_short_and_leave_each_column_on_its_side(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    made = console.plain_table(["name", "accuracy ± 95%", "label_smoothing", "weight_decay"])
    made.align["name"] = "l"
    made.add_row(["a", "1", "2", "3"])
    made.add_row(["long one", "10", "20", "30"])
    heads, one, two = console.as_wide_as_the_terminal(made, ["weight_decay"]).splitlines()
    assert heads.split() == ["name", "accuracy", "±", "95%", "label_s…"]
    assert one.startswith("a ") and two.startswith("long one ")
    assert one.index("1") == two.index("10") + 1 and one.index("2") == two.index("20") + 1


def test_names_that_would_become_equal_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    made = console.plain_table(["label_smoothing_first", "label_smoothing_second"])
    assert console.as_wide_as_the_terminal(made, []) == ""  # without a row
    made.add_row(["1", "2"])
    assert console.as_wide_as_the_terminal(made, []).split()[:2] == ["label_smoothing_first", "label_smoothing_second"]


def test_in_a_pipe_a_table_has_all_its_columns() -> None:
    assert "parameters" in console.as_wide_as_the_terminal(table(), ["parameters"])


def test_long_lines_break_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    text = "short\n" + "one two three " * 5
    lines = console.wrapped(text, terminal).splitlines()
    assert [line[:5] for line in lines] == ["short", "one t", "  thr"]
    assert all(len(line) <= 40 for line in lines)
    assert console.wrapped(text, io.StringIO()) == text
    assert console.wrapped("x" * 90, terminal) == "x" * 90  # a path is not broken


def test_what_comes_next_stands_beside_its_command_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console.say_next([("cifar best", "which is best")])
    assert terminal.getvalue() == "\nnext:\n  cifar best  # which is best\n"


def test_what_comes_next_stands_above_its_command_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console.say_next([("cifar best abcdefgh", "which is best, how sure: 3 min"), ("cifar report", "all of it")])
    lines = terminal.getvalue().splitlines()[2:]
    assert lines == [
        "  # which is best, how sure: 3 min",
        "  cifar best abcdefgh",
        "  # all of it",
        "  cifar report",
    ]
    console.say_next([])
    assert len(terminal.getvalue().splitlines()) == 6
