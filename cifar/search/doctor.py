"""`cifar doctor`: what `cifar search` finds out before it starts, without starting."""

from __future__ import annotations

import shutil
from pathlib import Path

from joblib import cpu_count

from cifar.data import datasets
from cifar.data.datasets import PreparedImages
from cifar.data.inspection import telling_apart
from cifar.search import forecast, start
from cifar.search.concurrency import forecast_line
from cifar.search.forecast import Throughput
from cifar.search.plan import Request, disk_bytes, plan
from cifar.search.remote import hosts
from cifar.search.remote.hosts import HostInfo
from cifar.system import durations, mps
from cifar.system.files import existing
from cifar.system.gpus import Gpu, list_gpus


def doctor(request: Request) -> int:
    """Print what the machine, the data and the search are like, and how many trials at once pay. Returns 0.

    Hosts are not measured, which would need the images there.
    """
    planned = plan(request)
    loaded, name = planned.config, planned.data
    dataset = datasets.load(name, planned.size)
    splits = datasets.split(dataset)
    gpus = list_gpus()
    command = loaded.trial_command
    space = dict(start.fitting_space(loaded.search_space, command, len(splits.train)))
    biggest = forecast.largest(space, command)
    place = existing(Path(loaded.experiment_working_directory))
    print(f"machine   {cpu_count()} cores, {', '.join(gpu.name for gpu in gpus) or 'no GPU'}")
    if gpus:
        print(f"MPS       {_mps(gpus)}")
    print(f"data      {name}: {len(splits.train):,} images to train on, {len(splits.val):,} to validate on")
    print(f"chance    {telling_apart(dataset)}")
    print(f"largest   model {biggest.model}, width {biggest.width}, batch_size {biggest.batch_size}")
    print(f"disk      {disk_bytes(loaded) / 2**20:.0f} MB needed, {shutil.disk_usage(place).free / 2**30:.0f} GB free")
    if planned.hosts:
        _print_hosts(planned.hosts, datasets.prepare(name, planned.size))
        return 0
    if (number := forecast.processes_per_trial(command)) > 1:
        print(f"trials of {number} processes each are not measured")
        return 0
    print("at once   seconds per trial   trials per hour   step of the largest   its memory", flush=True)
    measured = []
    with mps.started(gpus) as shared:
        for variables in [{}, shared] if shared else [{}]:
            for throughput in forecast.throughputs(space, command, name, forecast.concurrencies(), variables):
                measured.append(throughput)
                print(_row(throughput) + (" with MPS" if variables else ""), flush=True)
    best = forecast.best(measured)
    most = durations.seconds(loaded.max_trial_duration)
    print(forecast_line(best.cut_off(most), loaded.max_trial_number, durations.seconds(loaded.max_experiment_duration)))
    print(f"--concurrency auto would choose {best.concurrency}; the config has {loaded.trial_concurrency}")
    return 0


def _mps(gpus: list[Gpu]) -> str:
    problem = mps.why_not(gpus)
    return f"none of cifar search's own: {problem}" if problem else "there, for trials that share a GPU"


def _row(throughput: Throughput) -> str:
    return (
        f"{throughput.concurrency:7}   {throughput.trial_seconds:17.0f}   {throughput.trials_per_hour:15.0f}   "
        f"{throughput.largest_step_seconds * 1000:16.0f} ms   {throughput.largest_bytes / 2**30:7.1f} GB"
    )


def _print_hosts(infos: list[HostInfo], images: PreparedImages) -> None:
    lacking = hosts.without_images(infos, images)
    to_copy = f"{images.count_bytes() / 2**20:.0f} MB of images to copy"
    for info in infos:
        print(f"{hosts.summary(info)}, {to_copy if info in lacking else 'images there'}")
    print("cifar search measures how fast they are before it starts there")
