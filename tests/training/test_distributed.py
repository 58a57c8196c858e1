"""One training by several processes is the training by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import MakeFolder
from experiments import ROOT, Search, Start, assert_numbered_and_paired, change_config, nothing_is_left

from benchmarks.yardsticks import processes as benchmark
from cifar.data import datasets
from cifar.system import processes
from cifar.training.hparams import Hparams
from cifar.training.models import BatchNorm
from cifar.training.train import new_model, new_optimizer, train

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# A space without steps that are too large for some CPU's rounding: no trial diverges.
SMALL_STEPS: dict[str, object] = {
    "searchSpaceFile": None,
    "searchSpace": json.loads((ROOT / "search_space.json").read_text())
    | {"lr": {"_type": "loguniform", "_value": [0.001, 0.01]}, "momentum": {"_type": "uniform", "_value": [0.5, 0.9]}},
}
ALONE = {"OMP_NUM_THREADS": "1"}  # torchrun says at length that it sets this where nobody has


_NET = Hparams(lr=0.02, batch_size=50, epochs=2, images_per_epoch=210, gradient_accumulation_steps=3)
_FAST = Hparams(model="fast", width=4, batch_size=50, lr=0.1, epochs=2, images_per_epoch=210, precision="float32")


@pytest.mark.parametrize(
    ("hparams", "processes", "tolerance"), [(_NET, 2, 1e-6), (_FAST, 3, 1e-4)], ids=["net", "fast"]
)
def test_several_processes_train_as_one(
    make_folder: MakeFolder, hparams: Hparams, processes: int, tolerance: float
) -> None:
    folder = str(make_folder({"cat": 200, "dog": 200}))  # of noise: where pixels are equal, roundings decide
    dataset = datasets.load(folder)
    model = new_model(hparams, dataset)
    epochs = train(model, new_optimizer(model, hparams), hparams, dataset, datasets.split(dataset))
    expected = [(epoch.metrics.train_loss, epoch.metrics.loss) for epoch in epochs]
    found = zip(*benchmark.losses(hparams, folder, processes), strict=True)
    for losses, expected_losses in zip(found, expected, strict=True):
        assert losses == pytest.approx(expected_losses, rel=tolerance)


def test_the_statistics_of_all_are_those_of_a_batch() -> None:
    alone, together = BatchNorm(8), BatchNorm(8)
    generator = torch.Generator().manual_seed(0)
    images, towards = (torch.randn(17, 8, 3, 3, generator=generator) * 3 + 5 for _ in range(2))
    first, second = (images.clone().requires_grad_() for _ in range(2))
    together.all_reduce = lambda value: value
    outputs = [alone(first), together(second)]
    for output in outputs:
        (output * towards).sum().backward()
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.bias.grad, together.bias.grad)
    torch.testing.assert_close(alone.state_dict(), together.state_dict())


def test_a_trial_of_several_processes_speaks_with_one_voice() -> None:
    run = torchrun(2, "trial.py", "--data", "digits", "--batch-size", "64", "--epochs", "2")
    assert run.returncode == 0, run.stderr
    assert [run.stdout.count(text) for text in ("epoch 1/2", "epoch 2/2", "done: trained", "test accuracy")] == [1] * 4
    wrong = torchrun(2, "trial.py", "--data", "digits", "--width", "0")
    assert wrong.returncode == 1  # torchrun's, for whatever the trial says
    assert wrong.stderr.count("error: width must be an integer from 1 to 1024, got 0") == 1


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    whole = [*TORCHRUN, str(processes), *command]
    return subprocess.run(whole, cwd=ROOT, env=os.environ | ALONE, capture_output=True, text=True, timeout=120)


def test_a_trial_leaves_without_the_interpreters_end_and_all_it_said_is_there() -> None:
    script = (
        "import atexit; from cifar.system.processes import leave; atexit.register(print, 'abort', end='')\n"
        "print('said', end=''); leave(3)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (3, "said", "")


@pytest.mark.slow
def test_a_search_of_trials_of_two_processes(search: Start, config_path: Path, tmp_path: Path) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 3", **SMALL_STEPS)
    one = search("--data", "digits", "--max-trials", "3", "--gpus-per-trial", "2", **ALONE)  # two at once
    assert one.wait() == 0, one.err
    assert "3 trials: 3 ok" in one.out
    assert_numbered_and_paired(one)
    assert {trial.result["processes"] for trial in one.trials() if trial.result} == {2}
    assert nothing_is_left(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGINT, "interrupted after"),
        (signal.SIGKILL, "another process of this trial has ended"),
    ],
)
def test_a_process_that_is_lost_does_not_hang_the_others(tmp_path: Path, number: int, reason: str) -> None:
    """An interrupt reaches torchrun, as from NNI; the kernel kills one process, here the second."""
    output = tmp_path / "output"
    command = [*TORCHRUN, "2", "trial.py", "--data", "digits", "--epochs", "100000"]
    with output.open("w") as file:
        launcher = subprocess.Popen(command, cwd=ROOT, env=os.environ | ALONE, stdout=file, stderr=file)
    while "epoch 2/" not in output.read_text():
        assert launcher.poll() is None, output.read_text()
        time.sleep(0.1)
    workers = [child for child in psutil.Process(launcher.pid).children() if "RANK" in child.environ()]
    second = next(worker for worker in workers if worker.environ()["RANK"] == "1")
    (second if number == signal.SIGKILL else psutil.Process(launcher.pid)).send_signal(number)
    assert launcher.wait(30) != 0
    assert reason in output.read_text()
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
def test_want_of_memory_in_any_process_is_the_trials(tmp_path: Path) -> None:
    (tmp_path / "limited.py").write_text(
        "import json, os, sys, torch\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from cifar.data import datasets\n"
        "from cifar.training import distributed, distributed_step\n"
        "from cifar.training.hparams import Hparams\n"
        "from cifar.trials.run import run_trial\n"
        "with distributed.process_group() as processes:\n"
        "    if not processes.is_main:\n"
        "        def no_memory(*_): raise torch.OutOfMemoryError('2 GB are not to be had')\n"
        "        distributed_step.batch_loss = no_memory\n"
        "    dataset = datasets.load('digits')\n"
        "    splits, cpu = datasets.split(dataset), torch.device('cpu')\n"
        "    result, _ = run_trial(Hparams(batch_size=64), dataset, splits, cpu, print, None, processes)\n"
        "    if processes.is_main:\n"
        "        print(json.dumps([result.status, result.reason]))\n"
        "        os._exit(0)\n"
    )
    run = torchrun(2, str(tmp_path / "limited.py"))
    assert json.loads(run.stdout) == ["out_of_memory", "2 GB are not to be had"], run.stderr


def script(path: Path, *lines: str) -> str:
    """A program of two processes that train together."""
    begin = [
        "import sys, time, torch",
        f"sys.path.insert(0, {str(ROOT)!r})",
        "from cifar.training import distributed",
        "from cifar.trials.launch import NniTrial, recording_errors",
    ]
    path.write_text("\n".join([*begin, *lines]))
    return str(path)


@pytest.mark.slow
def test_the_error_of_any_process_is_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is no reason to start it again, as a kill is."""
    for name, value in {"NNI_TRIAL_JOB_ID": "TRIAL", "NNI_OUTPUT_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    lines = [
        "with distributed.process_group() as processes, recording_errors(NniTrial(processes)):",
        "    if not processes.is_main:",
        "        raise ZeroDivisionError('nothing to divide')",
        "    with processes.naming_lost_peers():",
        "        processes.all_reduce(torch.zeros(1))",
    ]
    assert torchrun(2, script(tmp_path / "failing.py", *lines)).returncode == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("error", "ZeroDivisionError: nothing to divide")


@pytest.mark.slow
@pytest.mark.parametrize("leader", [True, False])
def test_nobody_waits_for_long_for_a_process_that_has_no_memory_left(tmp_path: Path, leader: bool) -> None:
    """NCCL, whose waiting nothing in Python can end, is played by a sleep."""
    lines = [
        "with distributed.process_group() as processes:",
        "    with processes.bounding_waits(lambda reason: print('told:', reason, flush=True)):",
        f"        if processes.is_main is {leader}:",
        "            processes.tell_out_of_memory('2 GB are not to be had')",
        "            distributed.leave(0)",
        "        time.sleep(600)",
    ]
    run = torchrun(2, script(tmp_path / "waiting.py", *lines))
    assert run.returncode == 0, run.stderr
    assert run.stdout == ("" if leader else "told: 2 GB are not to be had\n")


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_process_of_a_trial_starts_the_trial_again(
    search: Start, config_path: Path, tmp_path: Path, rank: str
) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 6", trialConcurrency=1, **SMALL_STEPS)
    one = search("--data", "digits", "--max-trials", "3", "--gpus-per-trial", "2", **ALONE)
    one.wait_until_started(1)
    while not (found := [worker for worker in workers(one) if worker.environ()["RANK"] == rank]):
        assert one.process.poll() is None, one.err
        time.sleep(0.1)
    time.sleep(3)  # in the middle of something
    found[0].kill()
    assert one.wait() == 0, one.err
    assert "3 trials: 3 ok" in one.out
    assert_numbered_and_paired(one)
    log = (one.directory / "log" / "nnimanager.log").read_text()
    assert log.count("killed by a signal to one of its processes from outside, start 2 follows") == 1
    assert nothing_is_left(tmp_path)


def workers(search: Search) -> list[psutil.Process]:
    return [process for process in processes.find(search.directory, "trial") if "RANK" in process.environ()]
