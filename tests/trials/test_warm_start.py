"""Trials that a warm process forks, beside trials that import everything themselves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from experiments import ROOT
from fake_manager import Manager, parameters

from cifar.inference import model_file
from cifar.system import environment, processes
from cifar.trials import layout, warm_server, warm_start
from cifar.trials.warm_wire import REFUSED

# Runs one command after another, as NNI's manager would, and ends with its input.
STARTER = """
import json, subprocess, sys
for line in sys.stdin:
    with open(json.loads(line)["output"], "w") as output:
        trial = subprocess.Popen(**json.loads(line)["how"], stdout=output, stderr=output)
    print(trial.pid, flush=True)
    print(trial.wait(), flush=True)
"""
QUICK = ["--data", "digits", "--epochs", "2", "--width", "4"]
LONG = ["--data", "digits", "--epochs", "500", "--width", "4"]


class Experiment:
    """An experiment as its trials see it: a directory, a manager to talk to, and a process that starts them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        params = parameters(3, lr=0.02)
        self.manager = Manager(params, params)
        self.starter = subprocess.Popen(
            [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def trial(self, name: str) -> Path:
        return layout.trial_directory(self.directory, name)

    def start(self, name: str, *arguments: str, script: Path = ROOT / "trial.py", **variables: str) -> psutil.Process:
        """The process that NNI would start for a trial."""
        self.trial(name).mkdir(parents=True)
        variables = {"XDG_CACHE_HOME": str(self.directory / "cache"), "PYTHONPATH": str(ROOT)} | variables
        env = os.environ | self.manager.environment(self.trial(name)) | variables
        how = {"args": [sys.executable, str(script), *arguments], "env": env, "cwd": str(ROOT)}
        assert self.starter.stdin and self.starter.stdout
        print(json.dumps({"how": how, "output": str(self.output(name))}), file=self.starter.stdin, flush=True)
        return psutil.Process(int(self.starter.stdout.readline()))

    def output(self, name: str) -> Path:
        return self.trial(name) / "output"

    def code(self) -> int:
        """The exit code of the process that was started last."""
        assert self.starter.stdout
        return int(self.starter.stdout.readline())

    def run(self, name: str, *arguments: str, **how: Any) -> int:
        self.start(name, *arguments, **how)
        return self.code()

    def warm(self) -> list[psutil.Process]:
        """The warm processes, without the trials that they have forked."""
        found = processes.find(self.directory, "warm")
        return [process for process in found if process.ppid() not in {other.pid for other in found}]

    def forked(self) -> list[psutil.Process]:
        return [child for process in self.warm() for child in process.children()]

    def result(self, name: str) -> Any:
        return json.loads((self.trial(name) / layout.RESULT).read_text())

    def close(self) -> None:
        self.starter.communicate()
        self.manager.server.shutdown()
        self.manager.server.server_close()


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    one = Experiment(tmp_path)
    yield one
    one.close()
    until(lambda: not processes.find(tmp_path, "warm"))


def until(happened: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def started(experiment: Experiment, name: str) -> tuple[psutil.Process, psutil.Process]:
    """A trial that trains: the process that NNI knows, and the forked one."""
    client = experiment.start(name, *LONG)
    until(lambda: (experiment.trial(name) / layout.CHECKPOINT).exists())
    (trial,) = experiment.forked()
    return client, trial


def test_a_warm_trial_ends_with_the_same_bits_as_a_cold_one(experiment: Experiment) -> None:
    ends = []
    for name, variables in (("first", {}), ("second", {}), ("cold", {environment.COLD: "1"})):
        assert experiment.run(name, *QUICK, **variables) == 0
        result = experiment.result(name)
        result["metrics"] = {key: value for key, value in result["metrics"].items() if "second" not in key}
        result = {key: value for key, value in result.items() if key not in ("seconds", "checksum")}
        (model,) = layout.models(experiment.directory).glob("0*")
        tensors = {name: tensor.tolist() for name, tensor in model_file.load(model).network.state_dict().items()}
        ends.append([model.name, tensors, result])
    assert ends[0] == ends[1] == ends[2]
    assert len(experiment.warm()) == 1


def test_the_warm_process_has_one_thread_and_a_socket_for_its_user_alone(experiment: Experiment) -> None:
    experiment.run("first", *QUICK)
    (warm,) = experiment.warm()
    assert warm.num_threads() == 1
    (path,) = experiment.directory.glob("cache/*/claims-*/warm-*.socket")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_warm_process_ends_with_the_manager(experiment: Experiment) -> None:
    experiment.run("first", *QUICK)
    (warm,) = experiment.warm()
    experiment.starter.kill()
    until(lambda: not processes.is_alive(warm))
    assert not list(experiment.directory.glob("cache/*/claims-*/warm-*.socket"))


def test_a_trial_outlives_the_manager_until_its_next_report(experiment: Experiment) -> None:
    _, trial = started(experiment, "first")
    experiment.manager.server.shutdown()
    experiment.manager.server.server_close()
    experiment.starter.kill()
    until(lambda: not processes.is_alive(trial))
    assert experiment.result("first")["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_trial_ends_its_client_by_the_same_signal(experiment: Experiment, number: signal.Signals) -> None:
    _, trial = started(experiment, "first")
    trial.send_signal(number)
    assert experiment.code() == -number


def test_a_killed_client_takes_its_trial_with_it(experiment: Experiment) -> None:
    client, trial = started(experiment, "first")
    client.kill()
    assert experiment.code() == -signal.SIGKILL
    until(lambda: not processes.is_alive(trial), seconds=2)


def test_a_killed_warm_process_takes_trial_and_client_with_it_and_another_one_follows(experiment: Experiment) -> None:
    _, trial = started(experiment, "first")
    experiment.warm()[0].kill()
    assert experiment.code() == -signal.SIGKILL
    until(lambda: not processes.is_alive(trial), seconds=2)
    assert experiment.run("second", *QUICK) == 0
    assert len(experiment.warm()) == 1


def test_a_client_whose_signal_the_warm_process_no_longer_reads_ends_and_does_not_begin_anew(
    experiment: Experiment,
) -> None:
    client, trial = started(experiment, "first")
    (warm,) = experiment.warm()
    warm.suspend()
    client.send_signal(signal.SIGINT)
    time.sleep(0.3)  # it has passed it on by then
    warm.kill()
    assert experiment.code() == -signal.SIGKILL
    until(lambda: not processes.is_alive(trial), seconds=2)
    assert "no warm start" not in experiment.output("first").read_text()


@pytest.mark.parametrize("ended", [1, 2])
def test_a_warm_process_that_ends_before_it_takes_a_trial_is_replaced_once(
    monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    """Its code is outdated, or it cannot import it."""
    theirs, ours = zip(*[socket.socketpair() for _ in range(2)], strict=True)
    left = iter(ours)
    monkeypatch.setattr(warm_start, "_connected", lambda: next(left))
    for number, one in enumerate(theirs):
        one.close() if number < ended else one.sendall(REFUSED)
    with pytest.raises(ConnectionError, match="ended before it took") if ended == 2 else contextlib.nullcontext():
        warm_start._run_warm()
    assert not list(left)
    for one in theirs:
        one.close()


def test_a_stop_reaches_the_trial_which_notes_where_it_stands(experiment: Experiment) -> None:
    client, _ = started(experiment, "first")
    client.send_signal(signal.SIGINT)
    assert experiment.code() == 130
    assert experiment.result("first")["status"] == "interrupted"


def test_exit_code_and_output_are_the_trials(experiment: Experiment) -> None:
    assert experiment.run("first", "--epochs", "x") == 2
    assert "--epochs: invalid int value: 'x'" in experiment.output("first").read_text()


def test_a_change_of_the_code_is_never_missed(experiment: Experiment, tmp_path: Path) -> None:
    script = tmp_path / "trial.py"
    script.write_text((ROOT / "trial.py").read_text())
    assert experiment.run("first", *QUICK, script=script) == 0
    (warm,) = experiment.warm()
    script.write_text((ROOT / "trial.py").read_text().replace("def main(", "raise SystemExit(17)\n\n\ndef main("))
    assert experiment.run("second", *QUICK, script=script) == 17
    until(lambda: not processes.is_alive(warm))


def test_another_environment_gets_another_warm_process(experiment: Experiment) -> None:
    """What libraries read once, when they are imported, must be the trial's own."""
    for name, threads in (("first", "1"), ("second", "2"), ("third", "1")):
        assert experiment.run(name, *QUICK, OMP_NUM_THREADS=threads) == 0
    assert sorted(process.environ()["OMP_NUM_THREADS"] for process in experiment.warm()) == ["1", "2"]


def test_where_no_socket_can_be_the_trial_runs_cold(experiment: Experiment) -> None:
    cache = experiment.directory / "cache"
    cache.mkdir(mode=0o500)
    (cache / "cifar-nni").symlink_to(experiment.directory / "nowhere")
    assert experiment.run("first", "--help") == 0
    assert "no warm start, the trial imports everything itself: " in experiment.output("first").read_text()
    assert not experiment.warm()


def test_a_socket_that_a_killed_process_left_is_removed(experiment: Experiment) -> None:
    experiment.run("first", *QUICK)
    (killed,) = experiment.warm()
    killed.kill()
    killed.wait(30)  # until then it may still hold its socket
    assert experiment.run("second", *QUICK, OMP_NUM_THREADS="1") == 0  # under another name
    assert len(list(experiment.directory.glob("cache/*/claims-*/warm-*.socket"))) == 1


AS_ANOTHER = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
if sys.argv[1] == "serve":
    one.bind(sys.argv[2])
    os.chmod(sys.argv[2], 0o666)
os.setuid(65534)
if sys.argv[1] == "serve":
    one.listen()
    print("ready", flush=True)
    one.accept()
else:
    one.connect(sys.argv[2])
    try:
        one.sendall(b'{"arguments": ["trial.py", "--help"], "environment": {}, "directory": "/"}\\n')
        print(one.recv(1))
    except ConnectionError:
        print(b"")
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


@as_root
def test_a_socket_of_another_user_is_not_trusted(short_path: Path) -> None:
    path = short_path / "warm-0.socket"
    with another_user("serve", path) as another:
        assert another.stdout and another.stdout.readline() == "ready\n"
        with pytest.raises(PermissionError, match=r"warm-0\.socket is another user's"):
            warm_start._try_connect(path)


@as_root
def test_another_user_gets_no_trial(short_path: Path) -> None:
    """Also where the modes of folder and socket, which keep others away, have been changed."""
    path = short_path / "warm-0.socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        manager = subprocess.Popen(["sleep", "60"])
        server = warm_server._Server(path, manager.pid, listener, warm_server._code())
        with another_user("connect", path) as another:
            assert server._accept() is None
            assert another.communicate()[0] == "b''\n"
        assert not server.trials
        manager.kill()
        manager.wait()
        server._retire()
        server.selector.close()


@contextlib.contextmanager
def another_user(does: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", AS_ANOTHER, does, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as another:
        yield another
        another.kill()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder that every user may open, with a path that is short enough for a socket's."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)
