"""trial.py as a person runs it, and as NNI does: a manager's side of the conversation played by a local server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeFolder
from experiments import ROOT
from fake_manager import Manager, parameters

from cifar.inference import model_file
from cifar.inference.predict import predict
from cifar.system.files import read_json
from cifar.training.hparams import Hparams
from cifar.trials import layout, nni_client, top_models
from cifar.trials.launch import recording_errors
from cifar.trials.nni_client import ManagerGone
from cifar.trials.nni_trial import NniTrial
from cifar.trials.predictions import load_predictions
from cifar.trials.result import Result

QUICK = ["--data", "digits", "--epochs", "2", "--batch_size", "32", "--lr", "0.05"]


def trial(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::UserWarning", str(ROOT / "trial.py"), *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def test_alone_it_trains_and_prints_the_accuracy_of_each_class() -> None:
    run = trial(*QUICK)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("epoch 1/2  train loss ")
    assert lines[0].endswith(" images/s")
    assert lines[2] == "done: trained 2 epochs"
    assert lines[3].startswith("test accuracy ")
    assert [line.split()[0] for line in lines[4:14]] == list("0123456789")
    assert lines[14].startswith("these test images were read ")
    said, first, second = run.stderr.splitlines()[1:]
    assert (said, first.split(" #")[0].split()) == (
        "next:",
        ["python", "trial.py", "--data", "digits", "--save", "my.safetensors"],
    )
    assert second.startswith("  cifar fit --data digits --time-limit 30m  ")


def test_alone_it_leaves_the_test_images_unread_where_it_is_to(tmp_path: Path) -> None:
    run = trial(*QUICK, "--no-test", CIFAR_CACHE=str(tmp_path))
    assert run.stdout.splitlines()[-1] == "done: trained 2 epochs"
    assert not list(tmp_path.glob("test-readings/*"))
    trial(*QUICK, CIFAR_CACHE=str(tmp_path))
    assert len(list(tmp_path.glob("test-readings/*.jsonl"))) == 1


def test_data_comes_from_the_environment_when_not_named() -> None:
    run = trial(*QUICK[2:], CIFAR_DATA="digits")
    assert "of 359 images" in run.stdout


def test_help_shows_every_hyperparameter() -> None:
    text = trial("--help").stdout
    assert all(f"--{name.replace('_', '-')}" in text for name in asdict(Hparams()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "0"], "error: width must be an integer from 1 to 1024, got 0"),
        (["--data", "nowhere"], "error: data must be cifar10, digits or a folder of pictures, got 'nowhere'"),
        (["--lr", "nan"], "error: lr must be a number above 0, got nan"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--momentun", "0.5"], "error: there is no option --momentun; did you mean --momentum?"),
        (["--colour", "3"], "error: there is no option --colour; --help lists them"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    run = trial(*arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


@pytest.fixture
def managers() -> Iterator[list[Manager]]:
    started: list[Manager] = []
    yield started
    for manager in started:
        manager.server.shutdown()
        manager.server.server_close()


def read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    assert content is not None
    return content


def test_under_nni_the_recorded_parameters_are_used_and_reported(managers: list[Manager], tmp_path: Path) -> None:
    manager = Manager(handed=parameters(3, width=2.0, lr=0.5), recorded=parameters(4, width=4.0, lr=0.04))
    managers.append(manager)
    run = trial(*QUICK, "--width", "9", **manager.environment(tmp_path), CIFAR_CACHE=str(tmp_path / "cache"))
    assert run.returncode == 0, run.stderr
    assert not [*tmp_path.glob("cache/digits/test-*")]  # the test images were not even decoded
    assert "NNI handed out another trial's parameters" in run.stderr
    assert read(tmp_path / "params.json") == {
        "parameter_id": 4,
        "parameters": {"width": 4.0, "lr": 0.04},
    }
    result = read(tmp_path / "result.json")
    assert (result["status"], result["params_are_recorded"]) == ("ok", True)
    hparams = result["hparams"]  # NNI wins over the command line, the command line over the defaults
    assert (hparams["width"], hparams["lr"], hparams["batch_size"], hparams["momentum"]) == (4, 0.04, 32, 0.9)
    assert {metric["parameter_id"] for metric in manager.metrics} == {4}
    assert len(manager.values("PERIODICAL")) == 2
    (final,) = manager.values("FINAL")
    assert final == result["metrics"]
    assert final["default"] == manager.values("PERIODICAL")[-1]["default"]
    assert "test accuracy" not in run.stdout


def test_a_repeat_tells_its_seed_with_each_epoch_and_no_other_trial_does(
    managers: list[Manager], tmp_path: Path
) -> None:
    """By which this project's assessor knows it."""
    for name, params in (("repeat", parameters(1, seed=5002)), ("first", parameters(2, width=4.0))):
        managers.append(Manager(params, params))
        (tmp_path / name).mkdir()
        assert trial(*QUICK, **managers[-1].environment(tmp_path / name)).returncode == 0
    told = [[epoch.get("seed") for epoch in manager.values("PERIODICAL")] for manager in managers]
    assert told == [[5002, 5002], [None, None]]


def test_parameters_that_are_on_no_record_are_flagged(managers: list[Manager], tmp_path: Path) -> None:
    manager = Manager(handed=parameters(3, width=2.0), recorded=None)
    managers.append(manager)
    run = trial(*QUICK, **manager.environment(tmp_path))
    assert "NNI's record of this trial could not be read" in run.stderr
    assert read(tmp_path / "result.json")["params_are_recorded"] is False
    assert read(tmp_path / "params.json")["parameters"] == {"width": 2.0}


def test_a_diverged_trial_succeeds_with_chance_accuracy(managers: list[Manager], tmp_path: Path) -> None:
    manager = Manager(*[parameters(0, lr=1e30)] * 2)
    managers.append(manager)
    assert trial(*QUICK, **manager.environment(tmp_path)).returncode == 0
    assert read(tmp_path / "result.json")["status"] == "diverged"
    assert [final["default"] for final in manager.values("FINAL")] == [0.1]


def test_wrong_parameters_from_nni_leave_a_result_and_no_metric(managers: list[Manager], tmp_path: Path) -> None:
    manager = Manager(*[parameters(0, width=-1.0)] * 2)
    managers.append(manager)
    assert trial(*QUICK, **manager.environment(tmp_path)).returncode == 2
    result = read(tmp_path / "result.json")
    assert result["status"] == "error"
    assert "width must be an integer from 1 to 1024, got -1" in result["reason"]
    assert manager.metrics == []


def test_a_wrong_command_line_leaves_a_result(tmp_path: Path, managers: list[Manager]) -> None:
    managers.append(Manager(*[parameters(0)] * 2))
    assert trial("--epochs", "x", **managers[0].environment(tmp_path)).returncode == 2
    assert read(tmp_path / "result.json")["status"] == "error"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_only_finite_numbers_are_reported(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "TRIAL")
    with pytest.raises(ValueError, match=r"metric loss is .*; only finite numbers may be reported"):
        NniTrial().report_epoch(1, {"default": 0.5, "loss": value})


def test_a_trial_that_has_finished_is_not_trained_again(managers: list[Manager], tmp_path: Path) -> None:
    """The manager may die after the final result, and before it notes the end: resumed, it starts the trial again."""
    managers.append(Manager(*[parameters(0, lr=0.05)] * 2))
    environment = managers[0].environment(tmp_path)
    assert trial(*QUICK, **environment).returncode == 0
    before = read(tmp_path / "result.json")
    managers[0].metrics.clear()
    assert trial(*QUICK, **environment).returncode == 0
    assert [metric["type"] for metric in managers[0].metrics] == ["FINAL"]  # for a tuner that has not heard of it
    assert managers[0].values("FINAL") == [before["metrics"]]
    assert read(tmp_path / "result.json") == before


def test_a_manager_that_is_gone_leaves_an_interrupted_trial(managers: list[Manager], tmp_path: Path) -> None:
    managers.append(Manager(*[parameters(0)] * 2))
    managers[0].server.shutdown()
    managers[0].server.server_close()
    run = trial(*QUICK, **managers.pop().environment(tmp_path))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert read(tmp_path / "result.json")["status"] == "interrupted"


def test_a_manager_that_goes_before_it_says_how_many_trials_run_at_once_leaves_an_interrupted_trial(
    managers: list[Manager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself the trial would take all cores for its own, and round otherwise than those of the other starts."""
    managers.append(Manager(*[parameters(0)] * 2))
    for name, value in managers[0].environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    nni = NniTrial()
    assert nni.concurrency() == 2
    monkeypatch.setattr("cifar.trials.nni_trial._ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(nni_client, "ask", lambda path: None)
    with pytest.raises(ManagerGone):
        nni.concurrency()


@pytest.mark.parametrize("last", [False, True])
def test_a_stop_in_answer_to_the_last_epoch_costs_no_result(
    last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "TRIAL")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(layout.trial_directory(tmp_path, "TRIAL")))
    monkeypatch.setattr(nni_client, "send", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        with contextlib.nullcontext() if last else pytest.raises(KeyboardInterrupt):
            NniTrial().report_epoch(1, {"default": 0.5}, last=last)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_trial_imports_of_nni_only_what_it_uses() -> None:
    program = """
import sys
from cifar.trials import nni_client
trial = nni_client.module()
assert trial is nni_client.module()
for name in ("get_next_parameter", "report_intermediate_result", "report_final_result"):
    assert callable(getattr(trial, name))
print([name for name in ("pandas", "scipy.stats") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr


def test_a_finished_trial_leaves_what_a_kill_after_its_report_kept_it_from(
    managers: list[Manager], tmp_path: Path
) -> None:
    experiment = tmp_path / "experiment"
    output = layout.trial_directory(experiment, "TRIAL")
    output.mkdir(parents=True)
    managers.append(Manager(*[parameters(0, lr=0.05)] * 2))
    environment = managers[0].environment(output)
    killed = "import os; from cifar.trials import artifacts; artifacts.save_artifacts = lambda *_: os._exit(9)"
    command = [sys.executable, "-c", f"{killed}; import trial; trial.launch(trial.main)", *QUICK]
    assert subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode == 9
    before = read(output / "result.json")
    assert managers[0].values("FINAL") == [before["metrics"]]  # told before anything else is left
    assert (output / "checkpoint.pt").exists()
    assert not (output / "validation.npz").exists()
    managers[0].metrics.clear()
    assert trial(*QUICK, **environment).returncode == 0
    assert managers[0].values("PERIODICAL") == []  # nothing is trained again
    assert read(output / "result.json") == before
    (model,) = top_models.best(experiment)
    accuracy = before["metrics"]["default"]
    assert model.name == f"{accuracy:.6f}-TRIAL.safetensors"
    predictions = load_predictions(output)
    assert predictions is not None
    assert float(predictions.correct.mean()) == pytest.approx(accuracy)
    assert not (output / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("ago", "limit", "reason"),
    [(100, "60s", "stopped by maxTrialDuration, 60s, after 2 epochs"), (5, "60s", "stopped after 2 epochs")],
)
def test_a_stop_says_who_stopped_the_trial(ago: int, limit: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "check-status": {"status": "RUNNING"},
        "trial-jobs/TRIAL": {"startTime": 1000 * (time.time() - ago)},
        "experiment": {"params": {"maxTrialDuration": limit}},
    }
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "TRIAL")
    monkeypatch.setattr(nni_client, "ask", lambda path, _: answers[path])
    previous = signal.getsignal(signal.SIGINT)
    try:
        final = NniTrial().final_status(Result("interrupted", "interrupted after 2 epochs", {"default": 0.5}, 2))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert (final.status, final.reason) == ("stopped_early", reason)


def test_a_stop_before_training_says_who_stopped_the_trial_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "check-status": {"status": "RUNNING"},
        "trial-jobs/TRIAL": {"startTime": 1000 * (time.time() - 10)},
        "experiment": {"params": {"maxTrialDuration": "5s"}},
    }
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "TRIAL")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(nni_client, "ask", lambda path, _: answers[path])
    previous = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), recording_errors(NniTrial()):
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, previous)
    result = read(tmp_path / "result.json")
    assert (result["status"], result["reason"]) == (
        "interrupted",
        "stopped by maxTrialDuration, 5s, before training",
    )


def test_alone_a_trial_that_comes_to_nothing_fails() -> None:
    run = trial(*QUICK[:-2], "--lr", "1e30")
    assert run.returncode == 1
    assert "diverged: training loss is" in run.stdout


@pytest.mark.parametrize("command", [["trial.py", *QUICK], ["trial.py", "--help"], ["-m", "cifar", "search", "--help"]])
def test_a_reader_that_leaves_ends_a_command_without_a_word(command: list[str]) -> None:
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout and run.stderr
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == (0 if "--help" in command else 1)


def test_without_a_home_a_trial_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "import os, sys; sys.argv = ['trial.py', '--data', 'digits']; os.environ.pop('HOME', 0); import pwd\n"
    nobody += "def absent(_): raise KeyError\npwd.getpwuid = absent\n"
    for name in ("CIFAR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", f"{nobody}import trial; trial.launch(trial.main)"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == "error: this account has no home directory: set HOME to a folder that you may write in\n"


@pytest.mark.parametrize("model", ["net", "fast"])
def test_larger_pictures_go_all_the_way(make_folder: MakeFolder, tmp_path: Path, model: str) -> None:
    folder = make_folder({"cat": 30, "dog": 30})
    size = ["--data", str(folder), "--size", "64"]
    kept = tmp_path / "kept.pt"
    options = ["--model", model, "--width", "4", "--epochs", "1", "--batch-size", "8", "--save", str(kept)]
    run = trial(*size, *options)
    assert run.returncode == 0, run.stderr
    assert "test accuracy " in run.stdout
    assert f"model of epoch 1: {kept}" in run.stdout
    saved = model_file.load(kept)
    assert (saved.hparams.size, saved.classes) == (64, ("cat", "dog"))
    (prediction,) = predict(saved, [folder / "cat" / "000.png"], top=1)
    assert prediction.error == ""
    assert f"{kept} exists; --force replaces it" in trial(*size, "--save", str(kept)).stderr
    assert "size must be one of 32, 64, got 48" in trial(*size[:2], "--size", "48").stderr


def test_an_interrupted_training_keeps_its_last_whole_epoch(tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    command = [sys.executable, str(ROOT / "trial.py"), *QUICK, "--epochs", "100000", "--save", str(kept)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1/100000")
    process.send_signal(signal.SIGINT)
    *_, last = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 130
    epoch = int(last.removeprefix("model of epoch ").removesuffix(f": {kept}"))
    assert epoch >= 1
    assert model_file.load(kept).accuracy["validation"] > 0
