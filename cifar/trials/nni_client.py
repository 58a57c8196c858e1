"""NNI's manager as a trial reaches it: its REST interface, and the channel by which a trial reports."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class ManagerGone(Exception):
    """NNI's manager no longer answers: it was killed, or the machine it runs on is out of reach."""

    def __init__(self) -> None:
        super().__init__("NNI's manager is gone; when the experiment is resumed, this trial continues")


def trial_id() -> str | None:
    """The trial that this process is for; None outside NNI."""
    return os.environ.get("NNI_TRIAL_JOB_ID")


def experiment_id() -> str | None:
    """The experiment that this trial belongs to; None outside NNI."""
    return os.environ.get("NNI_EXP_ID")


def directory() -> Path:
    """The directory of the trial's own files."""
    return Path(os.environ["NNI_OUTPUT_DIR"])


def is_remote() -> bool:
    """Whether the manager runs on another machine."""
    return os.environ.get("NNI_PLATFORM") == "remote"


def bypass_proxies() -> None:
    """Speak to this machine directly, whatever proxy the environment names for the rest of the world."""
    exceptions = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "localhost", "127.0.0.1"]
    os.environ["no_proxy"] = ",".join(name for name in exceptions if name)


def ask(path: str, timeout: float = 5.0) -> Any:
    """GET from the REST interface, None where it has no answer within so many seconds."""
    import requests  # takes time, which a standalone trial need not spend

    try:
        response = requests.get(f"{_address()}/api/v1/nni/{path}", timeout=timeout)
        return response.json() if response.ok else None
    except (requests.RequestException, ValueError):
        return None


def ask_job(timeout: float = 5.0) -> Any:
    """What the manager has on record of this trial."""
    return ask(f"trial-jobs/{trial_id()}", timeout)


def _address() -> str:
    if is_remote():
        # There the channel leads to NNI's keeper of this machine, and its own, ws://HOST:PORT/platform/..., leads on.
        launched = directory().parents[1].glob("trial_keeper*/launcher_config.json")
        latest = max(launched, key=lambda path: path.stat().st_mtime)
        channel: str = json.loads(latest.read_text())["managerCommandChannel"]
        return channel.replace("ws://", "http://").rsplit("/platform/", 1)[0]
    # The channel is http://HOST:PORT[/PREFIX]/env/...: what comes before /env/ is the manager.
    return os.environ["NNI_TRIAL_COMMAND_CHANNEL"].rsplit("/env/", 1)[0]


def module() -> Any:
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


def next_parameter() -> dict[str, object]:
    """The parameters that NNI hands out to this trial. It may ask once: a second time it would take another trial's."""
    import requests

    try:
        received: dict[str, object] | None = module().get_next_parameter()
    except requests.ConnectionError:
        raise ManagerGone from None
    if received is None:
        raise ManagerGone
    return received


def send(report: Callable[[dict[str, float]], None], metrics: dict[str, float]) -> None:
    """Report plain floats. NaN and infinity are a ValueError: they would silently stop or mislead the tuner."""
    import requests

    finite = {name: float(value) for name, value in metrics.items()}
    for name, value in finite.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name} is {value}; only finite numbers may be reported")
    try:
        report(finite)
    except requests.ConnectionError:
        raise ManagerGone from None
