"""A trial's conversation with NNI: which parameters to try, how good each epoch and the end were.

NNI 3.0 hands parameters to trials in the order they ask, but records them in the order it submitted them. With several
trials at once the two differ: tables, exports and the tuner then attribute results to the wrong parameters, and the
tuner dies of it in silence. So a trial asks the manager which parameters it *recorded* for this trial, and uses those.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar.console import show
from cifar.data.datasets import Dataset, Splits
from cifar.errors import RequestError
from cifar.system import environment
from cifar.system.durations import seconds
from cifar.system.files import read_json
from cifar.training.distributed import ALONE, Processes
from cifar.training.hparams import Hparams
from cifar.trials import artifacts, layout, nni_client, tensorboard
from cifar.trials.nni_client import ManagerGone
from cifar.trials.result import Result
from cifar.trials.run import Trained

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 10.0  # seconds; the record appears within 50 ms of the trial's start
_HURRY = 1.0  # second: NNI kills a trial five seconds after it told it to stop


class KilledTooOften(Exception):
    """Somebody, the kernel for want of memory for instance, kills this trial whenever it is started."""


class NniTrial:
    """One trial of an experiment. Outside NNI its methods do nothing, so that `python trial.py` alone needs no NNI.

    Of several processes that train together, the main one alone speaks with NNI, and tells the others what they need.
    """

    def __init__(self, processes: Processes = ALONE) -> None:
        self.processes = processes
        self.speaks = processes.is_main and nni_client.trial_id() is not None
        self.params: dict[str, object] = {}
        self.params_are_recorded = True

    @property
    def is_absent(self) -> bool:
        """Whether this process, the main one, trains without NNI."""
        return self.processes.is_main and nni_client.trial_id() is None

    @property
    def experiment_id(self) -> str | None:
        return nni_client.experiment_id()

    def say(self, text: str) -> None:
        if self.processes.is_main:
            show(text)

    def next_params(self) -> dict[str, object]:
        """This trial's parameters as the manager recorded them, also written to params.json; {} outside NNI."""
        return self.processes.broadcast(self._next_params)

    def _next_params(self) -> dict[str, object]:
        if not self.speaks:
            return {}
        if reason := os.environ.get(environment.GIVE_UP):
            raise KilledTooOften(reason)
        nni_client.bypass_proxies()
        received = None if _was_restarted() else nni_client.next_parameter()
        record = _recorded()
        self.params_are_recorded = record is not None
        if record is None:
            if received is None:
                raise ManagerGone
            logger.warning("NNI's record of this trial could not be read: another trial may get its parameters")
            record = nni_client.module()._params
        elif received is not None and record["parameters"] != received:
            logger.warning("NNI handed out another trial's parameters; using those it recorded for this one")
        # Metrics carry this id. With the recorded one, table, export and tuner agree on what ran.
        nni_client.module()._params = record
        artifacts.write_params(record)
        parameters: dict[str, object] = record["parameters"]
        self.params = parameters
        return parameters

    def finished_before(self) -> Result | None:
        """The result of an earlier start of this trial, whose end the manager did not live to note.

        It is not trained again. After a resume its final result is sent again, since no tuner may have heard it: the
        tuner then hears of ended trials only. NNI shows the first of two, and they are the same.
        """
        return self.processes.broadcast(self._finished_before)

    def _finished_before(self) -> Result | None:
        result = _earlier_result() if self.speaks else None
        if result:
            _send_final(result)
        return result

    def checkpoint_path(self) -> Path | None:
        """The file with which this trial goes on when NNI starts it again; None outside NNI."""
        return self.processes.broadcast(lambda: nni_client.directory() / layout.CHECKPOINT if self.speaks else None)

    def concurrency(self) -> int:
        """How many trials the experiment runs at once on this machine; 1 outside NNI.

        Raises ManagerGone without its answer: another number of threads would round otherwise, unnoticed.
        """
        if not self.speaks:
            return 1
        profile = _until_answered(lambda: nni_client.ask("experiment"))
        if not profile:
            raise ManagerGone
        machines = profile["params"]["trainingService"].get("machineList", [""])
        return math.ceil(int(profile["params"]["trialConcurrency"]) / len(machines))

    def report_epoch(self, epoch: int, metrics: dict[str, float], last: bool = False) -> None:
        """Send an intermediate result; a continued trial's follow those before it.

        To the last epoch, too, the assessor may answer with a stop, which would then only cost the result: it is
        ignored. A repeat tells its seed, by which this project's assessor knows it and lets it run.
        """
        if not self.speaks:
            return
        if isinstance(seed := self.params.get("seed"), int):
            metrics = {**metrics, "seed": seed}
        if last:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        nni_client.module().overwrite_intermediate_seq(epoch - 1)
        nni_client.send(nni_client.module().report_intermediate_result, metrics)
        tensorboard.add_epoch(artifacts.tensorboard_directory(), epoch, metrics)

    def final_status(self, result: Result) -> Result:
        """The result as it is recorded: early stopping may have interrupted it. No interrupt comes after this."""
        if not self.speaks:
            return result
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a stop that arrives now comes too late to matter
        if result.status == "interrupted" and _experiment_goes_on():
            reason = result.reason.replace("interrupted", _how_stopped())
            return replace(result, status="stopped_early" if result.metrics else "interrupted", reason=reason)
        return result

    def report_final(self, result: Result) -> None:
        """Write result.json and send the final result, once."""
        self.write_result(result)
        if self.speaks and result.status != "interrupted":  # or NNI runs it again when the experiment is resumed
            _send_final(result)

    def write_result(self, result: Result) -> None:
        if self.speaks:
            artifacts.write_result(result, self.params_are_recorded)

    def save_artifacts(
        self, result: Result, trained: Trained | None, hparams: Hparams, dataset: Dataset, splits: Splits
    ) -> None:
        """Save what comparing and using the trial takes.

        After the report: NNI kills a trial five seconds after it was to stop, and on a busy machine this takes long.
        """
        if self.speaks:
            artifacts.save_artifacts(result, trained, hparams, dataset, splits)

    def save_again(self, result: Result, hparams: Hparams, dataset: Dataset, splits: Splits) -> None:
        """Save what an earlier start of this trial did not come to save."""
        if self.speaks:
            artifacts.save_again(result, hparams, dataset, splits)


def _was_restarted() -> bool:
    """Whether the manager that runs now has started this trial before, see nni_patches/restarts.js."""
    return environment.RESTARTS in os.environ


def _recorded() -> Any:
    """The parameter record that the manager keeps for this trial, None where it cannot be had."""
    return _until_answered(_ask_record)


def _ask_record() -> Any:
    job = nni_client.ask_job()
    return json.loads(job["hyperParameters"][0]) if job and job.get("hyperParameters") else None


def _until_answered(ask: Callable[[], Any]) -> Any:
    """The manager's answer, None where it gives none for too long."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    return None


def _earlier_result() -> Result | None:
    """What result.json holds, where that is final; another one is removed, since this start replaces it."""
    path = nni_client.directory() / layout.RESULT
    try:
        earlier = read_json(path)
        if earlier is None:
            return None
        result = Result.from_json(earlier)
    except (RequestError, KeyError, TypeError) as error:
        logger.warning("this trial's result cannot be read, it runs again: %r", error)
    else:
        if result.status not in ("interrupted", "error"):
            return result
    path.unlink()
    return None


def _send_final(result: Result) -> None:
    again = _was_restarted() or nni_client.is_remote()  # where it may run again because its machine was lost
    heard = again and nni_client.ask(f"metric-data/{nni_client.trial_id()}?type=FINAL")
    if result.metrics and not heard:  # a tuner dies of hearing it twice
        nni_client.send(nni_client.module().report_final_result, result.metrics)


def _experiment_goes_on() -> bool:
    """Whether only this trial is being stopped, by the assessor or by hand, and not the experiment."""
    status = nni_client.ask("check-status", 2 * _HURRY)
    return bool(status) and status["status"] in ("RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL")


def _how_stopped() -> str:
    """By maxTrialDuration, where the trial can know that it was."""
    job, profile = nni_client.ask_job(_HURRY), nni_client.ask("experiment", _HURRY)
    limit = profile and profile["params"].get("maxTrialDuration")
    began = job and job.get("startTime")  # milliseconds
    if limit and began and time.time() - began / 1000 >= (seconds(limit) or 0.0):
        return f"stopped by maxTrialDuration, {limit},"
    return "stopped"
