"""What an experiment will need on this machine, measured before it starts: does it fit, how long, how many at once.

Trials are imitated by processes of their own that load the data, claim their devices and train a few steps at the same
time, as trials would.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from statistics import fmean
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from joblib import cpu_count

from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.errors import RequestError
from cifar.search.search_space import sampled_values
from cifar.system.processes import spawned
from cifar.training import augmentation, defaults, device, models
from cifar.training.evaluation import evaluate
from cifar.training.hparams import Hparams, command_hparams
from cifar.training.steps import new_step, precision_on, smallest_numbers_as_zero
from cifar.training.train import new_model, new_optimizer, train_batches
from cifar.trials import warm_start
from cifar.trials.run import is_out_of_memory
from cifar.trials.top_models import KEPT

_SAMPLES = 8  # configurations drawn from the space; the mean of so few is off by a third at times
_SAMPLE_SECONDS = 0.25
_EVALUATED_IMAGES = 512
_HANDOVER_SECONDS = 0.5  # from a trial's last epoch to the next one's own code, results/warm.md
_BYTES_PER_TRIAL = 64 * 1024  # logs, results and NNI's records
_EXIT_SECONDS = 10.0
_LEAST_GAIN = 1.05  # more trials at once must pay by this much: fewer teach the tuner more


@dataclass(frozen=True)
class Throughput:
    """`concurrency` trials side by side: seconds of the mean one without early stopping, and what the largest needs."""

    concurrency: int
    trial_seconds: float
    largest_step_seconds: float
    largest_bytes: int  # of the GPU's memory where there is one, else of the machine's
    beside_seconds: float = 0.0  # those of trial_seconds in which it does not train

    @property
    def trials_per_hour(self) -> float:
        return self.concurrency * 3600 / self.trial_seconds

    def cut_off(self, most_seconds: float | None) -> Throughput:
        """This throughput where no trial may take longer than `most_seconds`."""
        most = math.inf if most_seconds is None else most_seconds + _HANDOVER_SECONDS
        return replace(self, trial_seconds=min(self.trial_seconds, most))


class DoesNotFit(Exception):
    """The largest configuration ran out of memory."""


@dataclass(frozen=True)
class Measurement:
    """What one imitated trial measured."""

    trial_seconds: float
    largest_step_seconds: float
    largest_bytes: int


def largest(space: dict[str, Any], command: str) -> Hparams:
    """The configuration of a search space that needs the most memory, and the longest for a step."""
    given, _ = command_hparams(command)
    values = {name: sampled_values(sampler) for name, sampler in space.items()}
    chosen: dict[str, object] = {name: max(values[name]) for name in ("width", "batch_size") if name in values}
    chosen |= {name: min(values[name]) for name in ("lr", "momentum", "gradient_accumulation_steps") if name in values}
    models = values.get("model", [given.get("model", "net")])
    return max((Hparams.from_params({**given, **chosen, "model": model}) for model in models), key=parameter_count)


def samples(space: dict[str, Any], command: str) -> list[dict[str, object]]:
    """The hyperparameters that a random search of the space would try first, the same each time."""
    from nni.algorithms.hpo.random_tuner import suggest
    from nni.common.hpo_utils import deformat_parameters, format_search_space

    (given, _), chance, formatted = command_hparams(command), np.random.default_rng(0), format_search_space(space)
    drawn = [deformat_parameters(suggest(chance, formatted), formatted) for _ in range(_SAMPLES)]
    return [{**given, **params} for params in drawn]


def processes_per_trial(command: str) -> int:
    """How many a trial command lets train one network together."""
    found = re.search(r"--nproc-per-node[= ](\d+)", command)
    return int(found[1]) if found else 1


def parameter_count(hparams: Hparams) -> int:
    """How many parameters a configuration's network has, for ten classes."""
    with torch.device("meta"):
        return models.parameter_count(models.build_model(hparams, classes=10))


def disk_bytes(hparams: Hparams, trials: int, concurrency: int) -> int:
    """What an experiment writes: of each running trial the old and new checkpoint and a model, of every one what it
    leaves, and the models that are kept."""
    tensors = 3 if hparams.optimizer == "adam" else 2  # parameters, and the optimizer's state of each
    networks = concurrency * (2 * tensors + 1) + KEPT
    return trials * _BYTES_PER_TRIAL + networks * 4 * parameter_count(hparams)


def concurrencies() -> list[int]:
    """How many trials at once are worth trying: each needs a core, also to feed a GPU."""
    cores = cpu_count()
    return sorted({*(2**power for power in range(cores.bit_length())), cores})


def pays(new: Throughput, old: Throughput) -> bool:
    """Whether a throughput is clearly better than another."""
    return new.trials_per_hour > old.trials_per_hour * _LEAST_GAIN


def best(throughputs: list[Throughput]) -> Throughput:
    """The fewest trials at once that come near the most trials per hour."""
    most = max(throughput.trials_per_hour for throughput in throughputs)
    return next(throughput for throughput in throughputs if throughput.trials_per_hour * _LEAST_GAIN >= most)


def throughputs(
    space: dict[str, Any],
    command: str,
    data_name: str,
    concurrencies: Sequence[int],
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Throughput]:
    """One for each of `concurrencies`, in rising order, until more at once no longer fit or are clearly slower.

    The imitated trials get `variables` in their environment. Raises RequestError where the largest configuration fits
    not once.
    """
    most = 0.0
    for number in concurrencies:
        try:
            throughput = measure(space, command, data_name, number, variables)
        except DoesNotFit as error:
            if not most:
                raise RequestError(str(error)) from None
            return
        yield throughput
        if throughput.trials_per_hour < most / _LEAST_GAIN:
            return
        most = max(most, throughput.trials_per_hour)


def together(throughputs: Sequence[Throughput]) -> Throughput:
    """The throughput of several machines at once."""
    concurrency = sum(one.concurrency for one in throughputs)
    trials_per_hour = sum(one.trials_per_hour for one in throughputs)
    return Throughput(
        concurrency,
        concurrency * 3600 / trials_per_hour,
        max(one.largest_step_seconds for one in throughputs),
        max(one.largest_bytes for one in throughputs),
        fmean(one.beside_seconds for one in throughputs),
    )


def measure(
    space: dict[str, Any],
    command: str,
    data_name: str,
    concurrency: int,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Throughput:
    """Imitate `concurrency` trials at once. Raises DoesNotFit."""
    biggest = largest(space, command)
    began = time.monotonic()
    arguments = (dict(variables), data_name, concurrency, biggest, samples(space, command))
    with _imitated_trials(concurrency, arguments) as connections:
        preparing_seconds = fmean(_receive(connection, biggest) for connection in connections)
        is_warm = warm_start.is_possible() and processes_per_trial(command) == 1
        startup_seconds = preparing_seconds if is_warm else time.monotonic() - began  # with all imports
        for connection in connections:
            connection.send("go")  # all at once, since side by side is what is measured
        measured = [_receive(connection, biggest) for connection in connections]
    beside_seconds = startup_seconds + _HANDOVER_SECONDS
    return Throughput(
        concurrency,
        beside_seconds + fmean(m.trial_seconds for m in measured),
        fmean(m.largest_step_seconds for m in measured),
        max(m.largest_bytes for m in measured),
        beside_seconds,
    )


@contextlib.contextmanager
def _imitated_trials(number: int, arguments: tuple[object, ...]) -> Iterator[list[Connection]]:
    """Connections to `number` processes that run _imitate; they end with the block."""
    pipes = [multiprocessing.Pipe() for _ in range(number)]
    theirs = [(there, os.getpid(), *arguments) for _, there in pipes]
    with spawned(_imitate, theirs, _EXIT_SECONDS):
        for _, there in pipes:
            there.close()  # so that the end of the process is the end of the connection
        yield [here for here, _ in pipes]


def _receive(connection: Connection, biggest: Hparams) -> Any:
    try:
        received = connection.recv()
    except EOFError:
        received = "the system ended its process"
    if isinstance(received, Exception):
        raise RequestError(f"a trial cannot begin: {received}") from None
    if isinstance(received, str):
        sizes = f"model {biggest.model}, width {biggest.width}, batch_size {biggest.batch_size}"
        raise DoesNotFit(f"the largest configuration of the search space ({sizes}) does not fit: {received}")
    return received


def _imitate(
    connection: Connection,
    parent: int,
    variables: dict[str, str],
    data_name: str,
    concurrency: int,
    biggest: Hparams,
    sampled: list[dict[str, object]],
) -> None:
    """In its own process: get ready as a trial does, wait for the others, then measure."""
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a word
    try:
        began = time.monotonic()
        dataset = datasets.load(data_name, biggest.size)
        splits = datasets.split(dataset)
        claim = device.claim(concurrency, f"forecast-{parent}")
        dataset, splits = dataset.to(claim.device), splits.to(claim.device)
        connection.send(time.monotonic() - began)
        connection.recv()
        torch.set_num_threads(claim.threads(biggest))
        largest_seconds = step_seconds(biggest, dataset, splits, at_most_seconds=0)
        trial_seconds = []
        for params in sampled:
            hparams = augmentation.fitting(defaults.for_data(params, len(splits.train)), data_name)
            torch.set_num_threads(claim.threads(hparams))
            trial_seconds.append(_trial_seconds(hparams, dataset, splits))
        connection.send(Measurement(fmean(trial_seconds), largest_seconds, _peak_bytes(claim.device)))
    except Exception as error:  # whatever it is, each trial would end of it
        connection.send(str(error).splitlines()[0] if _is_of_memory(error) else RequestError(_sentence(error)))


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and is_out_of_memory(error)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"


def _trial_seconds(hparams: Hparams, dataset: Dataset, splits: Splits) -> float:
    steps = hparams.epochs * math.ceil(hparams.epoch_images(len(splits.train)) / hparams.batch_size)
    each = step_seconds(hparams, dataset, splits, _SAMPLE_SECONDS)
    few = splits.val[:_EVALUATED_IMAGES]
    began = time.perf_counter()
    evaluate(new_model(hparams, dataset), dataset, few, precision=precision_on(few.device, hparams))
    evaluation_seconds = (time.perf_counter() - began) / len(few) * len(splits.val)
    return steps * each + hparams.epochs * evaluation_seconds


def step_seconds(hparams: Hparams, dataset: Dataset, splits: Splits, at_most_seconds: float) -> float:
    """Mean seconds of a step, after a first one that is slower; of one step at least."""
    model = new_model(hparams, dataset)
    step = new_step(model, new_optimizer(model, hparams), hparams)
    epochs = (train_batches(hparams, dataset, splits.train, epoch=1) for _ in itertools.count())
    batches = itertools.chain.from_iterable(epochs)
    with smallest_numbers_as_zero():
        step(*next(batches))
        _synchronise(splits.train.device)
        steps, began = 0, time.perf_counter()
        while not steps or time.perf_counter() - began < at_most_seconds:
            step(*next(batches))
            steps += 1
        _synchronise(splits.train.device)
        return (time.perf_counter() - began) / steps


def _synchronise(on: torch.device) -> None:
    if on.type == "cuda":
        torch.cuda.synchronize(on)


def _peak_bytes(on: torch.device) -> int:
    if on.type == "cuda":
        return torch.cuda.max_memory_reserved(on)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
