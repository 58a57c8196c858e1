"""A trial that trains nothing: it waits as long as CIFAR_TEST_SECONDS says, and reports an accuracy made of its lr."""

from __future__ import annotations

import os
import signal
import sys
import time

from cifar.trials.nni_client import ManagerGone
from cifar.trials.nni_trial import NniTrial
from cifar.trials.result import Result


def main() -> int:
    if "CIFAR_TEST_STUBBORN" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    nni = NniTrial()
    try:
        params = nni.next_params()
        if not nni.finished_before():
            run(nni, float(str(params["lr"])))
    except (ManagerGone, KeyboardInterrupt):
        return 1
    return 0


def run(nni: NniTrial, lr: float) -> None:
    time.sleep(float(os.environ.get("CIFAR_TEST_SECONDS", "0.1")))
    if "CIFAR_TEST_FAIL" in os.environ:
        nni.report_final(Result("error", f"OSError: no trial may write '{os.getpid()}'"))
        sys.exit(1)
    nni.report_epoch(1, {"default": lr})
    nni.report_final(Result("ok", "quick", {"default": lr}, epochs=1, details={"data": {"val_images": 100}}))


if __name__ == "__main__":
    sys.exit(main())
