from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cifar.search import progress
from cifar.search.experiment import Experiment
from cifar.search.progress import Progress
from cifar.system.durations import duration_text
from cifar.trials.store import Trial


class Bounded:
    """An experiment of 10 trials, or of so many seconds."""

    def __init__(self, max_trials: int | None = 10, max_seconds: float | None = None) -> None:
        self.directory, self.max_trials, self.max_seconds = Path("nowhere"), max_trials, max_seconds


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def trial(number: int, accuracy: float | None = None, status: str = "ok") -> Trial:
    result: dict[str, Any] = {"status": status, "reason": "", "data": {"val_images": 100}}
    result["metrics"] = None if accuracy is None else {"default": accuracy}
    nni_status = "RUNNING" if accuracy is None and status == "ok" else "SUCCEEDED"
    return Trial(f"t{number}", number, nni_status, {"lr": 0.1 * number}, None if nni_status == "RUNNING" else result)


def lines_for(experiment: Bounded, clock: Clock, capsys: pytest.CaptureFixture[str], earlier: list[Trial]) -> list[str]:
    """What a search prints 60 seconds after its start, where output is no terminal."""
    with Progress(cast(Experiment, experiment), earlier) as shown:
        shown.show(earlier, {})
        assert capsys.readouterr().err == ""  # earlier runs' trials have had their lines
        clock.now += 60
        shown.show([*earlier, trial(1, 0.5), trial(2, 0.8, "stopped_early"), trial(3, status="error"), trial(4)], {})
        shown.show([*earlier, trial(1, 0.5), trial(2, 0.8, "stopped_early"), trial(3, status="error"), trial(4)], {})
    return capsys.readouterr().err.splitlines()


def test_each_trial_that_ends_has_one_line_with_all_that_counts(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_for(Bounded(), clock, capsys, earlier=[])
    # 3 done and 1 half done in 60 s: the other 6.5 take 111 s.
    rest = "about 2 min left; best 80.0% in trial 2"
    assert lines == [
        f"trial 1: 50.0%; 1 of 10, {rest}",
        f"trial 2: 80.0%, stopped early (see its trial.stderr); 2 of 10, {rest}",
        f"trial 3: none, error (see its trial.stderr); 3 of 10, {rest}",
    ]


def test_time_left_is_reckoned_from_this_run_alone(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = [trial(number, 0.1) for number in (10, 11, 12)]
    assert (
        "; 4 of 10, about 60 s left;"
        in (
            lines_for(Bounded(), clock, capsys, earlier)[0]  # 3.5 in 60 s, 3.5 to go
        )
    )


def test_a_duration_bounds_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "read_seconds", lambda _: 70.0)  # NNI's own count, over all runs
    line = lines_for(Bounded(max_trials=None, max_seconds=100), clock, capsys, [])[0]
    assert "; 1, about 30 s left;" in line


def test_durations_read_as_people_say_them() -> None:
    assert [duration_text(seconds) for seconds in (0.4, 90, 100, 3600, 9000)] == [
        "0 s",
        "90 s",
        "2 min",
        "60 min",
        "2 h 30 min",
    ]


def test_a_repeat_says_which_trial_it_repeats() -> None:
    first, other, again = trial(0, 0.5), trial(1, 0.8), trial(2, 0.7)
    again = replace(again, params={**first.params, "seed": 5002})
    assert (
        progress.ended_line(again, progress.tried(again, [first, other, again]))
        == "trial 2: 70.0% (trial 0 again, seed 5002)"
    )
    assert progress.ended_line(other, progress.tried(other, [first, other, again])) == "trial 1: 80.0% (lr 0.1)"


def test_a_trial_that_answers_one_class_is_not_just_ok() -> None:
    constant = trial(0, 0.6)
    assert constant.result is not None
    constant.result["metrics"]["predicted_classes"] = 1
    constant.result["data"] |= {"largest_class_share": 0.6, "classes": 3}
    said = "60.0% (lr 0), but every image it is judged by gets the same class; guessing the largest class gets 60.0%"
    assert progress.ended_line(constant, progress.tried(constant, [constant])).endswith(said)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_the_best_and_how_far_each_running_trial_is(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    trials = [trial(0, 0.5), trial(1, 0.8), trial(2), trial(3)]
    with Progress(cast(Experiment, Bounded(4)), trials[:1]) as shown:
        clock.now += 60
        shown.show(trials, {"t0": (2, 0.5), "t2": (3, 0.442)})
        bar = shown._bar.format_meter(shown._bar.n, 1.0, 0, ncols=80, bar_format=progress._BAR, prefix="")
        assert bar.count("█") == 10  # half of twenty: two of four trials
    text = terminal.getvalue()
    assert "trial 1: 80.0% (lr 0.1)\n" in text
    assert "2 of 4 trials; about 30 s left" in text
    for line in (
        "best: trial 1, 80.0% (lr 0.1)",
        "  trial 2: epoch 3, 44.2%  lr 0.2",
        "  trial 3: starting        lr 0.3",
    ):
        assert line in text
    assert "trial 0:" not in text  # an earlier run's


def test_a_line_that_is_too_long_ends_between_two_values() -> None:
    assert progress._cut("width 6, lr 0.1, batch_size 16", 30) == "width 6, lr 0.1, batch_size 16"
    assert progress._cut("width 6, lr 0.1, batch_size 16", 29) == "width 6, lr 0.1, ..."


def test_of_many_running_trials_some_have_lines() -> None:
    lines = [*progress.running_lines([trial(number) for number in range(9)], {})]
    assert len(lines) == 7
    assert lines[-1] == "  and 3 more are running"
