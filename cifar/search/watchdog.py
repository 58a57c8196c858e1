"""What NNI does not notice itself: each cause for which a running experiment will not come to its end."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from pathlib import Path

import psutil

from cifar.search.experiment import Experiment
from cifar.system import processes
from cifar.trials import layout
from cifar.trials.store import Trial

_SAME_FAILURES = 3  # in a row, for the same reason: the next would fail too
_SILENT_SECONDS = 60.0
# Of nni_patches/reschedule.js:
_LOSS = re.compile(
    r"host \S+ is lost, with .*|host \S+ is back$|trial \S+ runs again on \S+$"
)  # nni_patches/reschedule.js
_LEAST_FREE_BYTES = 32 * 2**20  # below it NNI's database and the trials' checkpoints soon cannot be written


class Watch:
    """Watches one run of an experiment."""

    def __init__(self, experiment: Experiment, trials: list[Trial]) -> None:
        """`trials` are the trials of earlier runs."""
        self._experiment = experiment
        self._directory = experiment.directory
        self._ended_before = {trial.id for trial in trials if trial.ended}
        self._answered = time.monotonic()
        self._tuner: psutil.Process | None = None
        self._read = dict(experiment.log_starts)  # bytes of each log
        self._no_host_is_left = False

    def host_events(self) -> list[str]:
        """What has become of hosts that were lost, and of their trials, since this was last asked."""
        if not self._experiment.has_hosts:
            return []
        lines = self._next_lines(layout.manager_log(self._directory))
        self._no_host_is_left |= any(line.endswith("no host is left") for line in lines)
        return [match[0] for line in lines if (match := _LOSS.search(line))]

    def stop_reason(self, status: str, trials: list[Trial]) -> str | None:
        """Why the experiment cannot go on, in one sentence; None as long as it can."""
        return (
            self._full_disk()
            or self._dead_manager(status)
            or self._lost_hosts()
            or self._tuner_failure(status)
            or self._manager_failure(status)
            or same_failures([trial for trial in trials if trial.id not in self._ended_before])
            or self._short_space(status, trials)
        )

    def _full_disk(self) -> str | None:
        free = shutil.disk_usage(self._directory).free
        if free >= _LEAST_FREE_BYTES:
            return None
        return f"the disk is full: {free / 2**20:.0f} MB are left for {self._directory}"

    def _dead_manager(self, status: str) -> str | None:
        """Asked before the tuner, which logs errors of its own when it loses its manager."""
        if status != "DEAD":
            return None
        log = layout.manager_log(self._directory)
        reason = _last_error(self._new_lines(log)) or "stopped or killed from outside"
        return f"NNI's manager has ended: {reason} (see {log})"

    def _lost_hosts(self) -> str | None:
        """NNI would wait for ever, its status RUNNING."""
        return f"no host is left (see {layout.manager_log(self._directory)})" if self._no_host_is_left else None

    def _next_lines(self, log: Path) -> list[str]:
        """What has been logged since these lines were last asked for, in whole lines."""
        if not log.exists():
            return []
        with log.open("rb") as file:
            file.seek(self._read.get(log.name, 0))
            content: bytes = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read[log.name] = self._read.get(log.name, 0) + len(whole)
        return whole.decode(errors="replace").splitlines()

    def _tuner_failure(self, status: str) -> str | None:
        """NNI logs a tuner's exception and goes on waiting for it, its status RUNNING."""
        log = layout.tuner_log(self._directory)
        if any(" ERROR (nni.runtime.msg_dispatcher_base" in line for line in self._next_lines(log)):
            return f"the tuner or assessor failed: {_last_exception(self._new_lines(log))} (see {log})"
        if self._tuner is None:
            self._tuner = next(iter(processes.find(self._directory, "tuner")), None)
        elif status == "RUNNING" and not processes.is_alive(self._tuner):
            reason = _last_exception(self._new_lines(log)) or "killed from outside"
            return f"the tuner's process has ended: {reason} (see {log})"
        return None

    def _manager_failure(self, status: str) -> str | None:
        log = layout.manager_log(self._directory)
        if status != "SILENT":
            self._answered = time.monotonic()
        if status == "ERROR" and any("SQLITE_BUSY" in line for line in self._new_lines(log)):
            return f"another program has held the database so long that NNI's manager gave up, SQLITE_BUSY (see {log})"
        if status == "ERROR":
            errors = [*self._experiment.errors(), *self._new_lines(layout.manager_errors(self._directory))[-1:]]
            reason = "; ".join(error for error in errors if error.strip(" -")) or _last_error(self._new_lines(log))
            return f"NNI's manager reports an error: {reason} (see {log})"
        if time.monotonic() - self._answered > _SILENT_SECONDS:
            return f"NNI's manager has not answered for {_SILENT_SECONDS:.0f} seconds (see {log})"
        return None

    def is_exhausted(self, status: str, trials: list[Trial]) -> bool:
        """Whether the tuner has no more to propose, and all that it has proposed has run: NNI would wait for ever.

        Its last proposals may have come together with that message, and still be waiting.
        """
        if status != "TUNER_NO_MORE_TRIAL" or not all(trial.ended for trial in trials):
            return False
        proposed = self._experiment.proposed()
        return proposed is not None and proposed <= len(trials)

    def _short_space(self, status: str, trials: list[Trial]) -> str | None:
        wanted = self._experiment.max_trials
        if wanted is None or not self.is_exhausted(status, trials):
            return None
        return f"the search space ran out after {len(trials)} of {wanted} trials: the tuner knows no further point"

    def _new_lines(self, log: Path) -> list[str]:
        """The lines of this run: an earlier run has written to the same file."""
        if not log.exists():
            return []
        with log.open("rb") as file:
            file.seek(self._experiment.log_starts.get(log.name, 0))
            return file.read().decode(errors="replace").splitlines()


def same_failures(trials: list[Trial]) -> str | None:
    """The sentence about it where the trials that ended last all failed, and for the same reason."""
    last = [trial for trial in trials if trial.ended][-_SAME_FAILURES:]
    reasons = {_without_names(trial.reason) for trial in last}
    if len(last) < _SAME_FAILURES or len(reasons) > 1 or not all(trial.failed for trial in last):
        return None
    reason = last[-1].reason or "no reason is known, see their trial.stderr"
    return f"the last {_SAME_FAILURES} trials all failed: {reason}"


def _without_names(reason: str) -> str:
    """Paths, names and numbers differ between trials that fail for the same reason."""
    return re.sub(r"'[^']*'|\S*/\S*|\d+", "", reason)


def _last_exception(lines: list[str]) -> str | None:
    """The last line of the last traceback among log lines, which begin with their time in brackets."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if not starts:
        return None
    traceback = itertools.takewhile(lambda line: not line.startswith("["), lines[starts[-1] :])
    return [line for line in traceback if line.strip()][-1]


def _last_error(lines: list[str]) -> str | None:
    """What NNI's manager logged last as an error."""
    errors = [line.split(") ", 1)[-1] for line in lines if re.match(r"\[[^]]*\] (ERROR|CRITICAL) ", line)]
    return errors[-1] if errors else None
