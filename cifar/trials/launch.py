"""A trial's process from outside: it may be one of several, dies with a reason on file, and has an exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from cifar import console
from cifar.errors import RequestError
from cifar.system.processes import leave
from cifar.training.distributed import PeerLost, process_group
from cifar.trials import nni_client
from cifar.trials.nni_client import ManagerGone
from cifar.trials.nni_trial import KilledTooOften, NniTrial
from cifar.trials.result import Result


def launch(main: Callable[[NniTrial], Result]) -> NoReturn:
    """Run a trial's main function, and end this process as the trial ended."""
    logging.basicConfig(format="%(message)s")
    leave(console.run(lambda: exit_code(main)))


def exit_code(main: Callable[[NniTrial], Result]) -> int:
    """0 for a trial that has told NNI how it ended; alone, for a good one."""
    try:
        with process_group() as processes:
            trial = NniTrial(processes)
            with recording_errors(trial):
                result = main(trial)
    except RequestError as error:
        _say(f"error: {error}")
        return 2
    except (ManagerGone, KilledTooOften, PeerLost) as error:
        _say(f"error: {error}")
        return 1 if _is_main_process() else 0  # the main process says how the trial ended
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    if result.status == "interrupted":
        return 130
    return 0 if result.status == "ok" or nni_client.experiment_id() else 1


def _say(line: str) -> None:
    if _is_main_process():
        print(line, file=sys.stderr)


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"  # torchrun's word, also where no group has come about


@contextlib.contextmanager
def recording_errors(trial: NniTrial) -> Iterator[None]:
    """Leave a result file also when the trial dies of an error."""
    try:
        yield
    except KeyboardInterrupt:
        trial.write_result(trial.final_status(Result("interrupted", "interrupted before training")))
        raise
    except SystemExit as exit:
        if exit.code:
            trial.write_result(Result("error", "wrong command line; the sentence is in trial.stderr"))
        raise
    except ManagerGone as error:
        trial.write_result(Result("interrupted", str(error)))
        raise
    except KilledTooOften as error:
        trial.write_result(Result("error", str(error)))
        raise
    except PeerLost as error:
        failure = trial.processes.told_failure()  # without one it was killed, and NNI starts the trial again
        trial.write_result(Result("error", failure) if failure else Result("interrupted", str(error)))
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        trial.processes.tell_failure(reason)
        trial.write_result(Result("error", reason))
        raise
