"""The GPUs are those of a simulated driver; the claims and the processes that hold them are real."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from experiments import ROOT

from cifar.errors import RequestError
from cifar.system import gpus, locks, places
from cifar.system.gpus import Gpu
from cifar.training import device
from cifar.training.distributed import Processes
from cifar.training.hparams import Hparams

T = TypeVar("T")

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a driver's NVML that has as many GPUs as the environment says."""
    library = tmp_path_factory.mktemp("driver") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml.c")
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(library), str(source)]
    try:
        subprocess.run(command, check=True)
    except OSError:
        pytest.skip("needs a C compiler")
    return library.parent


@pytest.fixture(autouse=True)
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims apart from those of whatever else runs on this machine, which has 16 cores and no GPU."""
    monkeypatch.setattr(places, "claims", lambda: tmp_path)
    monkeypatch.setattr(device, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    for name in ("CUDA_VISIBLE_DEVICES", "CIFAR_VISIBLE_GPUS"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever a test does
        monkeypatch.delenv(name)


def hold(simulated: tuple[Path, int] | None, concurrency: int, experiment: str | None, connection: Connection) -> None:
    """A trial: claim a device and cores, say which CUDA shows and how many, and keep them until told to end."""
    if simulated:
        ctypes.CDLL(str(simulated[0] / "libnvidia-ml.so.1"))  # the next to ask for it by its name gets this one
        os.environ["SIMULATED_GPUS"] = str(simulated[1])
    claim = device.claim(concurrency, experiment)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    facts = (str(claim.device), torch.cuda._device_count_nvml() if simulated else 0, torch.cuda.is_initialized())
    connection.send((seen, facts, claim.threads(Hparams(batch_size=1000))))
    connection.recv()


class Trials:
    """Processes that each hold a claim."""

    def __init__(self) -> None:
        self.running: list[tuple[BaseProcess, Connection, int]] = []
        self.simulated: tuple[Path, int] | None = None

    def start(self, concurrency: int = 1, experiment: str | None = None) -> tuple[int, int]:
        """Returns the driver's number of its GPU, and how many threads it may use."""
        here, there = multiprocessing.Pipe()
        arguments = (self.simulated, concurrency, experiment, there)
        process = multiprocessing.get_context("fork").Process(target=hold, args=arguments, daemon=True)
        process.start()
        seen, facts, threads = here.recv()
        if self.simulated:
            assert facts == ("cuda:0", 1, False)  # by PyTorch's own count, one, and CUDA still sleeps
        else:
            assert facts == ("cpu", 0, False)
        number = [uuid(number) for number in range(8)].index(seen) if seen else -1
        self.running.append((process, here, number))
        return number, threads

    def kill(self, number: int) -> None:
        process, connection, _ = self.running.pop(number)
        process.kill()
        process.join()
        connection.close()

    def load(self, count: int) -> list[int]:
        counts = Counter(number for _, _, number in self.running)
        return [counts[number] for number in range(count)]


def uuid(number: int, instance: int = 0) -> str:
    """As nvml.c makes it; instances of a divided GPU count from 1."""
    if instance:
        return f"MIG-{number:08x}-0000-0000-0000-{instance:012x}"
    return f"GPU-{number + 0xA0:08x}-0000-0000-0000-000000000000"


@pytest.fixture
def trials() -> Iterator[Trials]:
    started = Trials()
    yield started
    while started.running:
        started.kill(0)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_trials_that_come_and_go_never_share_a_gpu_while_another_is_free(
    trials: Trials, driver: Path, count: int
) -> None:
    trials.simulated = driver, count
    choose = random.Random(0)
    for _ in range(30):
        if trials.running and choose.random() < 0.45:
            trials.kill(choose.randrange(len(trials.running)))
            continue
        before = trials.load(count)
        index, _ = trials.start(experiment=choose.choice(["one", "other"]))
        assert before[index] == min(before)


def test_the_claim_of_a_killed_trial_is_free_at_once(trials: Trials, driver: Path) -> None:
    trials.simulated = driver, 2
    assert [trials.start()[0], trials.start()[0]] == [0, 1]
    trials.kill(1)
    assert trials.start()[0] == 1


def test_among_equals_the_gpu_with_the_least_memory_in_use_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [Gpu("a", "", 5_000), Gpu("b", "", 100), Gpu("c", "", 300)]
    monkeypatch.setattr(device, "list_gpus", lambda: few)
    taken = []
    held = [device.claim(1)]
    for _ in range(4):
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
        held.append(device.claim(1))
    assert taken == ["b", "c", "a", "b"]


CHOICES = {
    None: [uuid(0), uuid(1, 1), uuid(1, 2), uuid(2)],  # of a divided GPU its parts
    "": [],
    "2,0": [uuid(2), uuid(0)],
    " 0 , 2 ": [uuid(0), uuid(2)],
    "1": [uuid(1, 1), uuid(1, 2)],
    "2,7,0": [uuid(2)],  # nothing after one that is not there
    "-1": [],
    "0,0": [],
    uuid(2): [uuid(2)],
    "GPU-000000a2": [uuid(2)],  # the beginning is enough
    "GPU-000000a": [],  # unless several have it
    uuid(1, 2): [uuid(1, 2)],
    f"{uuid(1, 2)},{uuid(0)}": [uuid(1, 2), uuid(0)],
    "nonsense": [],
}


def find(simulated: Path, environments: list[dict[str, str]], connection: Connection) -> None:
    """What a process finds in each environment: three GPUs, the second divided."""
    ctypes.CDLL(str(simulated / "libnvidia-ml.so.1"))
    os.environ |= {"SIMULATED_GPUS": "1 mig2 1", "SIMULATED_MIG": "1"}
    before = dict(os.environ)
    for environment in environments:
        os.environ.clear()
        os.environ.update(before | environment)
        try:
            connection.send([gpu.uuid for gpu in gpus.list_gpus()])
        except RequestError as error:
            connection.send(str(error))


def found(driver: Path, environments: list[dict[str, str]]) -> list[Any]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=find, args=(driver, environments, there))
    process.start()
    answers = [here.recv() for _ in environments]
    process.join()
    return answers


def test_the_users_choice_of_gpus_is_kept_to(driver: Path) -> None:
    environments = [{} if visible is None else {"CUDA_VISIBLE_DEVICES": visible} for visible in CHOICES]
    assert dict(zip(CHOICES, found(driver, environments), strict=True)) == CHOICES


def test_a_number_that_could_mean_two_gpus_is_refused(driver: Path) -> None:
    different = {"SIMULATED_OTHER": "2", "CUDA_VISIBLE_DEVICES": "0"}
    refused, in_order = found(driver, [different, different | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}])
    assert refused.startswith("CUDA_VISIBLE_DEVICES=0 is ambiguous on a machine with different GPUs")
    assert in_order == [uuid(0)]


@pytest.mark.parametrize(("users", "expected"), [("2,0", [uuid(2), uuid(0)]), ("all", CHOICES[None]), ("", [])])
def test_a_process_may_choose_among_the_users_gpus_though_its_parent_chose_one(
    driver: Path, users: str, expected: list[str]
) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": uuid(2), "CIFAR_VISIBLE_GPUS": users}
    assert found(driver, [environment]) == [expected]


def test_a_process_that_has_chosen_leaves_the_choice_to_those_that_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    gpus.show_only(Gpu("GPU-x", "", 0))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CIFAR_VISIBLE_GPUS"]) == ("GPU-x", "1,0")
    gpus.show_only(Gpu("GPU-y", "", 0))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CIFAR_VISIBLE_GPUS"]) == ("GPU-y", "1,0")


def test_a_choice_that_comes_too_late_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="CUDA is awake"):
        gpus.show_only(Gpu("GPU-x", "", 0))


def test_each_process_of_a_training_has_a_gpu_or_the_trial_none(monkeypatch: pytest.MonkeyPatch) -> None:
    four = [Gpu(f"uuid-{number}", "", 0) for number in range(4)]
    monkeypatch.setattr(device, "list_gpus", lambda: four)

    class Two(Processes):
        def broadcast(self, ask: Callable[[], T]) -> T:
            return ask()

        def connect(self, device: torch.device) -> None:
            pass

    for rank, expected in ((0, ["uuid-0", "uuid-2", "uuid-0"]), (1, ["uuid-1", "uuid-3", "uuid-1"])):
        held, seen = [], []
        for _ in range(3):
            held.append(device.claim(1, processes=Two(rank, 2)))
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert seen == expected
        del held
    del four[1:]
    with pytest.raises(RequestError, match="2 processes need a GPU each, and this machine shows 1"):
        device.claim(1, processes=Two(0, 2))


def test_the_trials_of_one_experiment_use_the_cores_once(trials: Trials) -> None:
    assert [trials.start(4, "one")[1] for _ in range(4)] == [4, 4, 4, 4]  # also the first, who is alone as yet
    assert device.claim(99, "crowded").threads(Hparams(batch_size=1000)) == 1


def test_a_small_batch_gets_no_more_threads_than_it_can_feed() -> None:
    assert [device.claim(1).threads(Hparams(batch_size=size)) for size in (4, 16, 64, 1000)] == [1, 1, 4, 16]
    assert device.claim(1).threads(Hparams(batch_size=64, gradient_accumulation_steps=4)) == 1


def test_experiments_side_by_side_share_the_cores_fairly(trials: Trials) -> None:
    assert [trials.start(2, "one")[1] for _ in range(2)] == [8, 8]
    assert [trials.start(2, "other")[1] for _ in range(2)] == [4, 4]  # 4 trials in all
    trials.kill(0)
    assert trials.start(2, "one")[1] == 4
    for _ in range(2):
        trials.kill(1)  # those of the other experiment
    assert trials.start(2, "one")[1] == 8


def test_the_dead_leave_no_claims_behind(trials: Trials, tmp_path: Path) -> None:
    for _ in range(3):
        trials.start(2, "one")
    while trials.running:
        trials.kill(0)
    with locks.choosing():
        assert locks.count_shares("cores") == 0
    assert list(tmp_path.glob("cores.*")) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_is_claimed_and_alone_seen() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import torch; from cifar.training import device; "
        "claim = device.claim(1); print(claim.device, torch.cuda.device_count(), torch.zeros(1, device=claim.device))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.startswith("cuda:0 1 tensor"), run.stderr
