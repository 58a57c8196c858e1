"""A trial's side of the conversation with NNI; no other module of a trial talks to it.

NNI 3.0 hands parameters to trials in the order they ask, but records them in the order it submitted them. With several
trials at once the two differ: tables, exports and the tuner then attribute results to the wrong parameters, and the
tuner dies of it in silence. So a trial asks the manager which parameters it *recorded* for this trial, and uses those.

Outside an experiment every function here does nothing, so that `python trial.py` alone needs no NNI.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar.data.datasets import Dataset, Splits
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.system.durations import seconds
from cifar.system.files import read_json, write_json
from cifar.training import distributed
from cifar.training.hparams import Hparams
from cifar.trials import store, tensorboard, top_models
from cifar.trials.predictions import save_predictions
from cifar.trials.result import Result
from cifar.trials.run import Trained

logger = logging.getLogger(__name__)

_RECORD_TIMEOUT = 10.0  # seconds; the record appears within 50 ms of the trial's start
_HURRY = 1.0  # second: five after it is to stop, NNI kills a trial
_GONE = "NNI's manager is gone; when the experiment is resumed, this trial continues"
_params_are_recorded = True


class ManagerGone(Exception):
    """NNI's manager no longer answers: it was killed, or the machine it runs on is out of reach."""


class KilledTooOften(Exception):
    """Somebody, the kernel for want of memory for instance, kills this trial whenever it is started."""


def running() -> bool:
    """Whether an NNI experiment started this process; of several that train together only the leading one says so."""
    return "NNI_TRIAL_JOB_ID" in os.environ and distributed.leads()


def bypass_proxies() -> None:
    """Speak to this machine directly, whatever proxy the environment names for the rest of the world."""
    exceptions = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "localhost", "127.0.0.1"]
    os.environ["no_proxy"] = ",".join(name for name in exceptions if name)


def next_params() -> dict[str, object]:
    """This trial's parameters as the manager recorded them, also written to params.json; {} outside NNI."""
    global _params_are_recorded
    if not running():
        return {}
    if reason := os.environ.get("CIFAR_GIVE_UP"):
        raise KilledTooOften(reason)
    bypass_proxies()
    trial = _nni_trial()
    received = None if _restarted() else _received()
    record = _recorded()
    _params_are_recorded = record is not None
    if record is None:
        if received is None:
            raise ManagerGone(_GONE)
        logger.warning("NNI's record of this trial could not be read: its parameters may be shown for another trial")
        record = trial._params
    else:
        if received is not None and record["parameters"] != received:
            logger.warning("NNI handed out another trial's parameters; using those it recorded for this one")
        # Metrics carry this id. With the recorded one, table, export and tuner agree on what ran.
        trial._params = record
    _write("params.json", _params_file(record))
    parameters: dict[str, object] = record["parameters"]
    return parameters


def _restarted() -> bool:
    """Whether the manager that runs now has started this trial before, see nni_patches/restarts.js."""
    return "CIFAR_RESTARTS" in os.environ


def _received() -> dict[str, object]:
    """What NNI hands out to this trial. It may ask once: a second time it would take another trial's parameters."""
    import requests  # takes time, which a standalone trial need not spend

    try:
        received: dict[str, object] | None = _nni_trial().get_next_parameter()
    except requests.ConnectionError:
        raise ManagerGone(_GONE) from None
    if received is None:
        raise ManagerGone(_GONE)
    return received


def experiment_id() -> str | None:
    """The experiment that this trial belongs to; None outside NNI."""
    return os.environ.get("NNI_EXP_ID")


def concurrency() -> int:
    """How many trials the experiment runs at once on this machine; 1 outside NNI or without the manager's answer."""
    if not running():
        return 1
    profile = _ask_manager("experiment")
    if not profile:
        return 1
    machines = profile["params"]["trainingService"].get("machineList", [""])
    return math.ceil(int(profile["params"]["trialConcurrency"]) / len(machines))


def checkpoint_path() -> Path | None:
    """Where this trial finds it when NNI starts it again, until all that it leaves is kept; None outside NNI."""
    return _directory() / "checkpoint.pt" if running() else None


def report_epoch(epoch: int, metrics: dict[str, float], last: bool = False) -> None:
    """Send an intermediate result; a continued trial's follow those before it.

    To the last epoch, too, the assessor may answer with a stop, which would then only cost the result: it is ignored.
    """
    if running():
        if last:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _nni_trial().overwrite_intermediate_seq(epoch - 1)
        _send(_nni_trial().report_intermediate_result, metrics)
        tensorboard.add_epoch(_board(), epoch, metrics)


def finished_before() -> Result | None:
    """The result of an earlier start of this trial, whose end the manager did not live to note.

    It is not trained again. After a resume its final result is sent again, since no tuner may have heard it: the tuner
    then hears of ended trials only. NNI shows the first of two, and they are the same.
    """
    result = _earlier_result()
    if result:
        _report_final(result)
    return result


def settle(result: Result) -> Result:
    """The result as it will be recorded: an interruption may have been early stopping. None comes after this."""
    if not running():
        return result
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a stop that arrives now comes too late to matter
    if result.status == "interrupted" and _experiment_goes_on():
        reason = result.reason.replace("interrupted", _stopped())
        return replace(result, status="stopped_early" if result.metrics else "interrupted", reason=reason)
    return result


def _stopped() -> str:
    """By whom, where the trial can know."""
    job = _ask_manager(f"trial-jobs/{os.environ['NNI_TRIAL_JOB_ID']}", _HURRY)
    profile = _ask_manager("experiment", _HURRY)
    limit = profile and profile["params"].get("maxTrialDuration")
    began = job and job.get("startTime")  # milliseconds
    if limit and began and time.time() - began / 1000 >= (seconds(limit) or 0.0):
        return f"stopped by maxTrialDuration, {limit},"
    return "stopped"


def keep(trained: Trained, hparams: Hparams, dataset: Dataset, splits: Splits, result: Result) -> None:
    """Leave what comparing and using the trial takes: its answers to the validation images, and a good one's model.

    After the report: NNI kills a trial five seconds after it was to stop, and on a busy machine this takes long.
    """
    if not running() or result.status not in ("ok", "stopped_early") or not result.metrics:
        return
    accuracy, directory = result.metrics["default"], _directory()
    save_predictions(directory, trained.predictions.numpy(), dataset.labels[splits.val].numpy())
    top_models.save_top_k(
        store.experiment_of(directory),
        os.environ["NNI_TRIAL_JOB_ID"],
        accuracy,
        lambda path: model_file.save(path, trained.model, hparams, dataset, {"validation": accuracy}),
    )


def finish(result: Result) -> None:
    """Write result.json and send the final result, once."""
    if not running():
        return
    _write_result(result)
    if result.status != "interrupted":  # or NNI runs it again when the experiment is resumed
        _report_final(result)


def clear(result: Result) -> None:
    """Remove what only going on with the trial would take, when there is nothing to go on with."""
    if running() and result.status != "interrupted":
        (_directory() / "checkpoint.pt").unlink(missing_ok=True)


def _report_final(result: Result) -> None:
    again = _restarted() or _is_remote()  # where it may run again because its machine was lost
    heard = again and _ask_manager(f"metric-data/{os.environ['NNI_TRIAL_JOB_ID']}?type=FINAL")
    if result.metrics and not heard:  # a tuner dies of hearing it twice
        _send(_nni_trial().report_final_result, result.metrics)


@contextlib.contextmanager
def recording_errors() -> Iterator[None]:
    """Leave a result.json also when the trial dies of an error."""
    try:
        yield
    except KeyboardInterrupt:
        _write_result(settle(Result("interrupted", "interrupted before training")))
        raise
    except SystemExit as exit:
        if exit.code:
            _write_result(Result("error", "wrong command line; the sentence is in trial.stderr"))
        raise
    except ManagerGone as error:
        _write_result(Result("interrupted", str(error)))
        raise
    except KilledTooOften as error:
        _write_result(Result("error", str(error)))
        raise
    except distributed.PeerLost as error:
        failure = distributed.told_failure()  # without one it was killed, and NNI starts the trial again
        _write_result(Result("error", failure) if failure else Result("interrupted", str(error)))
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        distributed.tell_failure(reason)
        _write_result(Result("error", reason))
        raise


def _nni_trial() -> Any:
    """NNI's module for trials, without the rest of the package.

    That would import statistics and data frames, which no trial uses: a second and a half of each trial's life.
    """
    if "nni" not in sys.modules:
        spec = importlib.util.find_spec("nni")
        assert spec is not None
        package: Any = importlib.util.module_from_spec(spec)
        package.dump, package.load = json.dumps, json.loads  # NNI's own differ for objects that are no plain JSON
        sys.modules["nni"] = package
        importlib.import_module("nni.runtime.log")._init_logger()  # as the package itself would: output to trial.log
    return importlib.import_module("nni.trial")


def _send(report: Callable[[dict[str, float]], None], metrics: dict[str, float]) -> None:
    import requests

    finite = _finite(metrics)
    try:
        report(finite)
    except requests.ConnectionError:
        raise ManagerGone(_GONE) from None


def _recorded() -> Any:
    """The parameter record that the manager keeps for this trial, None where it cannot be had."""
    deadline = time.monotonic() + _RECORD_TIMEOUT
    while time.monotonic() < deadline:
        job = _ask_manager(f"trial-jobs/{os.environ['NNI_TRIAL_JOB_ID']}")
        if job and job.get("hyperParameters"):
            return json.loads(job["hyperParameters"][0])
        time.sleep(0.05)
    return None


def _earlier_result() -> Result | None:
    """What result.json holds, where that is final; another one is removed, since this start replaces it."""
    if not running():
        return None
    path = _directory() / "result.json"
    try:
        earlier = read_json(path)
        if earlier is None:
            return None
        result = Result(earlier["status"], earlier["reason"], earlier["metrics"], earlier["epochs"], earlier["seconds"])
    except (RequestError, KeyError, TypeError) as error:
        logger.warning("this trial's result cannot be read, it runs again: %r", error)
    else:
        if result.status not in ("interrupted", "error"):
            return result
    path.unlink()
    return None


def _experiment_goes_on() -> bool:
    """Whether only this trial is being stopped, by the assessor or by hand, and not the experiment."""
    status = _ask_manager("check-status", 2 * _HURRY)
    return bool(status) and status["status"] in ("RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL")


def _ask_manager(path: str, timeout: float = 5.0) -> Any:
    """GET from NNI's REST interface, None where it has no answer within so many seconds."""
    import requests

    try:
        response = requests.get(f"{_manager()}/api/v1/nni/{path}", timeout=timeout)
        return response.json() if response.ok else None
    except (requests.RequestException, ValueError):
        return None


def _is_remote() -> bool:
    """Whether the manager runs on another machine."""
    return os.environ.get("NNI_PLATFORM") == "remote"


def _manager() -> str:
    """Where it answers."""
    if _is_remote():
        # There the channel leads to NNI's keeper of this machine, and its own, ws://HOST:PORT/platform/..., leads on.
        launched = _directory().parents[1].glob("trial_keeper*/launcher_config.json")
        latest = max(launched, key=lambda path: path.stat().st_mtime)
        channel: str = json.loads(latest.read_text())["managerCommandChannel"]
        return channel.replace("ws://", "http://").rsplit("/platform/", 1)[0]
    # The channel is http://HOST:PORT[/PREFIX]/env/...: what comes before /env/ is the manager.
    return os.environ["NNI_TRIAL_COMMAND_CHANNEL"].rsplit("/env/", 1)[0]


def _params_file(record: Any) -> dict[str, object]:
    return {
        "parameter_id": record["parameter_id"],
        "parameters": record["parameters"],
        "trial_id": os.environ["NNI_TRIAL_JOB_ID"],
        "sequence": int(os.environ["NNI_TRIAL_SEQ_ID"]),
    }


def _write_result(result: Result) -> None:
    if running():
        _write(
            "result.json",
            {
                "status": result.status,
                "reason": result.reason,
                "metrics": result.metrics,
                "epochs": result.epochs,
                "seconds": result.seconds,
                "params_are_recorded": _params_are_recorded,
                **result.details,
            },
        )


def _write(name: str, content: dict[str, object]) -> None:
    write_json(_directory() / name, content)


def _directory() -> Path:
    """Where NNI looks for nothing, and what the trial leaves stays."""
    return Path(os.environ["NNI_OUTPUT_DIR"])


def _board() -> Path:
    """Where NNI's page lets TensorBoard look."""
    return store.board_directory(store.experiment_of(_directory()), os.environ["NNI_TRIAL_JOB_ID"])


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Plain floats, none of them NaN or infinite: anything else would silently stop or mislead the tuner."""
    finite = {name: float(value) for name, value in metrics.items()}
    for name, value in finite.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name} is {value}; only finite numbers may be reported")
    return finite
