"""Fixtures: a cache of the tests' own, pictures made on the spot, a synthetic data set, real searches."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nni  # noqa: F401  # all of it, before a test of nni_trial puts a part in its place
import numpy as np
import pytest
import torch
import yaml
from experiments import ROOT, Search, Start, project_config, wait_until_gone
from hypothesis import HealthCheck, settings
from PIL import Image

from cifar.data.datasets import Dataset

MakeFolder = Callable[..., Path]
Record = Callable[..., None]

QUICK = f"{sys.executable} {ROOT / 'tests' / 'quick_trial.py'}"

# A shell ignores interrupts for what it runs in the background, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No time is asserted in a test: on a busy machine that would be a coin's toss.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that the digits are decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def alone(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No experiment around, nothing of the user's read or written, and no threads that wait for each other."""
    torch.set_num_threads(1)
    monkeypatch.setenv("CIFAR_CACHE", str(shared_cache))
    monkeypatch.delenv("CIFAR_DATA", raising=False)
    for name in [name for name in os.environ if name.startswith("NNI_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write pictures of noise: make_folder({"train/cat": 5, "train/dog": 5}) -> the folder that holds them."""

    def make(counts: dict[str, int], name: str = "pictures") -> Path:
        random = np.random.RandomState(0)
        for folder, count in counts.items():
            (tmp_path / name / folder).mkdir(parents=True)
            for number in range(count):
                pixels = random.randint(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / folder / f"{number:03}.png")
        return tmp_path / name

    return make


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Note in the file that $CIFAR_FAULTS names, if it does, how often a test injected its fault, and figures of it."""
    path = os.environ.get("CIFAR_FAULTS")

    def note(times: int, figures: str = "") -> None:
        test: pytest.Function = request.node
        sentence = (test.originalname or test.name).removeprefix("test_").replace("_", " ")
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                group = request.path.stem.removeprefix("test_")
                line = {"group": group, "outcome": sentence, "times": times, "figures": figures}
                file.write(json.dumps(line) + "\n")

    return note


@pytest.fixture
def tiny() -> Dataset:
    """120 synthetic images of 3 classes that differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    noise = torch.randint(0, 60, (120, 3, 32, 32), generator=generator)
    images = (noise + 80 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    return Dataset("tiny", images, labels, ("dark", "grey", "light"), "f" * 64)


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    config = project_config(tmp_path, "python trial.py --epochs 2")
    config["tuner"]["classArgs"]["tpe_args"] = {"n_startup_jobs": 2}
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def quick_config_path(config_path: Path) -> Path:
    """Trials of a second or two, which train nothing."""
    config = yaml.safe_load(config_path.read_text())
    del config["searchSpaceFile"]
    config |= {"trialCommand": QUICK, "searchSpace": {"lr": {"_type": "uniform", "_value": [0.1, 0.9]}}}
    config_path.write_text(yaml.safe_dump(config))
    return config_path


@pytest.fixture
def search(tmp_path: Path, config_path: Path) -> Iterator[Start]:
    """Start `cifar search` with the config at config_path; experiments land in tmp_path / "experiments"."""
    started: list[Search] = []

    def start(*arguments: str, **environment: str) -> Search:
        command = ("search", "--config", str(config_path), *arguments)
        started.append(Search(tmp_path, command, environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()  # its manager notices, and ends all the rest
            one.process.wait()
    wait_until_gone(tmp_path)
