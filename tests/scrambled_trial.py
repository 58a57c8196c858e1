"""A trial that trains nothing, and asks for its parameters late, so that later trials overtake it.

The first four ask in the reverse of the order in which NNI started them, the others after random waits.
"""

from __future__ import annotations

import os
import random
import sys
import time

from cifar.trials import nni_trial
from cifar.trials.result import Result


def main() -> None:
    sequence = int(os.environ["NNI_TRIAL_SEQ_ID"])
    time.sleep(0.5 + 0.7 * (3 - sequence) if sequence < 4 else random.Random(sequence).uniform(0, 1.5))
    if sys.argv[1:] == ["--without-repair"]:
        nni_trial._recorded = lambda: None
    nni = nni_trial.NniTrial()
    params = nni.next_params()
    nni.report_epoch(1, {"default": float(str(params["x"]))})
    nni.report_final(Result("ok", "scrambled", {"default": float(str(params["x"]))}, details={"data": {}}))


if __name__ == "__main__":
    main()
