"""The causes that need no experiment to be told apart; test_run.py shows them in real ones."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from cifar.search.experiment import Experiment
from cifar.search.watchdog import Watch, same_failures
from cifar.trials.store import Trial

# As NNI 3.0 writes them.
DISPATCHER_LOG = """\
[2026-11-21 10:31:47] INFO (nni.tuner.tpe/MainThread) Using random seed 1
[2026-11-21 10:31:56] ERROR (nni.runtime.msg_dispatcher_base/Thread-1 (command_queue_worker)) 7
Traceback (most recent call last):
  File "nni/algorithms/hpo/tpe_tuner.py", line 196, in receive_trial_result
    params = self._running_params.pop(parameter_id)
KeyError: 7
[2026-11-21 10:31:59] INFO (nni.runtime.msg_dispatcher_base/MainThread) Dispatcher exiting...
"""
MANAGER_LOG = """\
[2026-11-21 10:31:47] INFO (NNIManager) Starting experiment: abc
[2026-11-21 10:31:48] ERROR (NNIManager) Error: SQLITE_FULL: database or disk is full
[2026-11-21 10:31:49] INFO (ShutdownManager) Initiate shutdown
"""


class Stopped:
    """An experiment that no longer runs, with the logs it left."""

    max_trials = 4
    has_hosts = True
    proposals: int | None = 1  # by the tuner

    def __init__(self, directory: Path, log_starts: dict[str, int]) -> None:
        self.directory, self.log_starts = directory, log_starts

    def errors(self) -> list[str]:
        return []

    def proposed(self) -> int | None:
        return self.proposals


def watch(directory: Path, earlier: list[Trial] | None = None, **log_starts: int) -> Watch:
    (directory / "log").mkdir(exist_ok=True)
    starts = {f"{name}.log": start for name, start in log_starts.items()}
    return Watch(cast(Experiment, Stopped(directory, starts)), earlier or [])


def trial(number: int, status: str = "ok", reason: str = "", nni_status: str = "SUCCEEDED") -> Trial:
    return Trial(f"trial{number}", number, nni_status, {}, {"status": status, "reason": reason, "metrics": None})


def test_the_last_line_of_the_tuners_traceback_is_the_cause(tmp_path: Path) -> None:
    watching = watch(tmp_path)
    (tmp_path / "log" / "dispatcher.log").write_text(DISPATCHER_LOG)
    assert str(watching.stop_reason("RUNNING", [])).startswith("the tuner or assessor failed: KeyError: 7 (see ")


HOSTS_LOG = """\
[2026-11-25 09:31:47] ERROR (RemoteV3.remote) host gpu1:22 is lost, with 2 trials; hosts left: 1
[2026-11-25 09:31:47] WARNING (RemoteV3.remote) trial abc runs again on gpu2:22
"""


def test_each_loss_is_told_once_and_the_last_host_is_the_end(tmp_path: Path) -> None:
    old = "[2026-11-24 10:00:00] ERROR (RemoteV3.remote) no host is left\n"  # of an earlier run
    watching, log = watch(tmp_path, nnimanager=len(old)), tmp_path / "log" / "nnimanager.log"
    log.write_text(old + HOSTS_LOG[:-30])
    assert watching.host_events() == ["host gpu1:22 is lost, with 2 trials; hosts left: 1"]
    log.write_text(old + HOSTS_LOG)
    assert watching.host_events() == ["trial abc runs again on gpu2:22"]
    assert watching.stop_reason("RUNNING", []) is None
    with log.open("a") as file:
        file.write("[2026-11-25 09:32:07] ERROR (RemoteV3.remote) no host is left\n")
    assert watching.host_events() == []
    assert str(watching.stop_reason("RUNNING", [])).startswith("no host is left (see ")


def test_a_tuner_that_lost_its_manager_is_not_the_cause(tmp_path: Path) -> None:
    watching = watch(tmp_path)
    (tmp_path / "log" / "dispatcher.log").write_text(DISPATCHER_LOG)
    cause = "NNI's manager has ended: stopped or killed from outside (see "
    assert str(watching.stop_reason("DEAD", [])).startswith(cause)


def test_what_an_earlier_run_logged_is_no_cause(tmp_path: Path) -> None:
    watching = watch(tmp_path, dispatcher=len(DISPATCHER_LOG))
    (tmp_path / "log" / "dispatcher.log").write_text(DISPATCHER_LOG)
    assert watching.stop_reason("RUNNING", []) is None


@pytest.mark.parametrize("status", ["DEAD", "ERROR"])
def test_the_managers_log_says_why_it_ended(tmp_path: Path, status: str) -> None:
    watching = watch(tmp_path)
    (tmp_path / "log" / "nnimanager.log").write_text(MANAGER_LOG)
    assert ": Error: SQLITE_FULL: database or disk is full (see " in str(watching.stop_reason(status, []))


def test_a_space_that_runs_out_is_no_trouble_where_only_time_bounds_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [trial(0), trial(1, nni_status="RUNNING")]
    assert watch(tmp_path).stop_reason("TUNER_NO_MORE_TRIAL", running) is None
    assert "ran out after 1 of 4" in str(watch(tmp_path).stop_reason("TUNER_NO_MORE_TRIAL", running[:1]))
    monkeypatch.setattr(Stopped, "max_trials", None)
    assert watch(tmp_path).stop_reason("TUNER_NO_MORE_TRIAL", running[:1]) is None


@pytest.mark.parametrize(("proposals", "is_over"), [(1, True), (2, False), (None, False)])
def test_a_space_is_not_exhausted_before_the_last_proposal_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proposals: int | None, is_over: bool
) -> None:
    """NNI says that there are no more as soon as the tuner does, though a proposal that came with it still waits."""
    monkeypatch.setattr(Stopped, "proposals", proposals)
    assert watch(tmp_path).is_exhausted("TUNER_NO_MORE_TRIAL", [trial(0)]) is is_over
    assert (watch(tmp_path).stop_reason("TUNER_NO_MORE_TRIAL", [trial(0)]) is not None) is is_over
    assert not watch(tmp_path).is_exhausted("RUNNING", [trial(0)])


def test_a_database_that_was_held_too_long_is_named(tmp_path: Path) -> None:
    watching = watch(tmp_path)
    (tmp_path / "log" / "nnimanager.log").write_text("[2026-11-21 10:31:48] ERROR (NNIManager) Error: SQLITE_BUSY: x\n")
    assert "another program has held the database so long" in str(watching.stop_reason("ERROR", []))


def test_a_tuners_log_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    watching, log = watch(tmp_path), tmp_path / "log" / "dispatcher.log"
    log.write_text("[2026-11-21 10:31:48] INFO (nni) all is well\n")
    assert watching.stop_reason("RUNNING", []) is None
    with log.open("a") as file:
        file.write("[2026-11-21 10:31:49] ERROR (nni.runtime.msg_dispatcher_base/MainThread) \n")
        file.write("Traceback (most recent call last):\nKeyError: 3\n")
    assert str(watching.stop_reason("RUNNING", [])).startswith("the tuner or assessor failed: KeyError: 3 (see ")


def test_failures_that_differ_in_names_and_numbers_alone_are_the_same() -> None:
    failed = [trial(n, "error", f"OSError: [Errno 28] No space left: '/x/{n}/c.pt'") for n in range(3)]
    assert str(same_failures([trial(9), *failed])).startswith("the last 3 trials all failed: OSError: [Errno 28]")
    assert same_failures([*failed, trial(9)]) is None
    assert same_failures(failed[:2]) is None
    assert same_failures([*failed[:2], trial(3, "error", "KeyError: 'x'")]) is None
    assert same_failures([trial(n, "diverged", "loss is nan") for n in range(3)]) is None  # a result, if a bad one


def test_failures_of_an_earlier_run_do_not_count(tmp_path: Path) -> None:
    failed = [trial(n, "error", "mended meanwhile") for n in range(3)]
    assert watch(tmp_path, earlier=failed).stop_reason("RUNNING", failed) is None
    assert watch(tmp_path).stop_reason("RUNNING", failed) is not None
