"""On PYTHONPATH, this makes each trial of an experiment die once, at the moment that CIFAR_TEST_DEATHS has for it.

The deaths are parted by commas, for trials 0, 1, 2...: a moment of _MOMENTS, a colon and the signal's name.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CALLS: dict[str, int] = {}


def _die(name: str) -> None:
    Path(os.environ["NNI_OUTPUT_DIR"], "died").touch()
    os.kill(os.getpid(), signal.Signals[name])
    signal.pause()  # until it strikes


def _wrap(module_name: str, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner: Any = importlib.import_module(module_name)
    if "." in name:
        class_name, name = name.split(".")
        owner = getattr(owner, class_name)
    setattr(owner, name, around(getattr(owner, name)))


def _before(module: str, name: str, death: str, call: int = 1) -> None:
    """Die when `name` is called for the `call`th time."""

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **options: Any) -> Any:
            _CALLS[name] = _CALLS.get(name, 0) + 1
            if _CALLS[name] == call:
                _die(death)
            return function(*arguments, **options)

        return dying

    _wrap(module, name, around)


def _after(module: str, name: str, death: str) -> None:
    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **options: Any) -> Any:
            function(*arguments, **options)
            _die(death)

        return dying

    _wrap(module, name, around)


def _mid_epoch(death: str) -> None:
    """In the second epoch, after its third batch."""

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any) -> Any:
            _CALLS["epochs"] = _CALLS.get("epochs", 0) + 1
            for number, batch in enumerate(function(*arguments)):
                if (_CALLS["epochs"], number) == (2, 3):
                    _die(death)
                yield batch

        return dying

    _wrap("cifar.training.train", "train_batches", around)


def _while_saving(death: str) -> None:
    """With half of the second epoch's checkpoint on disk."""

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def dying(content: Any, path: Path) -> None:
            _CALLS["saves"] = _CALLS.get("saves", 0) + 1
            function(content, path)
            if _CALLS["saves"] == 2:
                os.truncate(path, path.stat().st_size // 2)
                _die(death)

        return dying

    _wrap("torch", "save", around)


_MOMENTS: dict[str, Callable[[str], None]] = {
    "never": lambda death: None,
    "before parameters": lambda death: _before("cifar.trials.nni_trial", "NniTrial.next_params", death),
    "after parameters": lambda death: _after("cifar.trials.nni_client", "next_parameter", death),
    "always before training": lambda death: _before("cifar.trials.run", "train", death),
    "loading data": lambda death: _before("cifar.data.datasets", "load", death),
    "mid-epoch": _mid_epoch,
    "saving": _while_saving,
    "before the final report": lambda death: _after("cifar.trials.artifacts", "write_result", death),
    "after the final report": lambda death: _after("cifar.trials.nni_trial", "NniTrial.report_final", death),
}


def _prepare() -> None:
    """Let this process, a trial's, die at its moment."""
    deaths = os.environ["CIFAR_TEST_DEATHS"].split(",")
    moment, _, signal_name = deaths[int(os.environ["NNI_TRIAL_SEQ_ID"]) % len(deaths)].partition(":")
    if moment.startswith("always") or not Path(os.environ["NNI_OUTPUT_DIR"], "died").exists():
        _MOMENTS[moment](signal_name)


def _prepare_forked(become: Callable[..., None]) -> Callable[..., None]:
    def becoming(request: Any) -> None:
        become(request)
        _prepare()

    return becoming


if "CIFAR_WARM" in os.environ and "CIFAR_TEST_DEATHS" in os.environ:  # the process that forks the trials
    sys.path.insert(0, str(Path.cwd()))
    _wrap("cifar.trials.warm_wire", "Request.become", _prepare_forked)
