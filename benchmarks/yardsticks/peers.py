"""Ray Tune and Optuna as their tutorials use them, on given configurations, two trials at a time with a core each.

Each trainer works in each tool: the tutorial's loop, and `cifar`'s. In Ray Tune the loop has eight loader processes, as
PyTorch's tutorial about it teaches, in Optuna the two of the plain tutorial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.shared.tutorial import Tutorial
from cifar.data import datasets
from cifar.training import device
from cifar.training.hparams import Hparams
from cifar.training.train import EpochMetrics
from cifar.trials.run import run_trial

AT_ONCE = 2

Report = Callable[[float, dict[str, Any]], None]  # an epoch's validation accuracy, and what a checkpoint would keep
Trainer = Callable[[Hparams, str, Report], None]
# Which trainer, the data, the configurations and a place to write -> validation accuracies.
Search = Callable[[str, str, list[dict[str, Any]], Path], list[float]]


def train_as_tutorial(hparams: Hparams, data_name: str, report: Report, loaders: int = 2) -> None:
    images = datasets.load(data_name)
    splits = datasets.split(images)
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trial = Tutorial(hparams, images, splits.train, on, loaders)
    for _ in range(hparams.epochs):
        trial.train_epoch()
        state = {"net_state_dict": trial.net.state_dict(), "optimizer_state_dict": trial.optimizer.state_dict()}
        report(trial.accuracy(images, splits.val), state)


def train_as_cifar(hparams: Hparams, data_name: str, report: Report) -> None:
    claim = device.claim(AT_ONCE, f"peers-{os.getppid()}")
    torch.set_num_threads(claim.threads(hparams))
    images = datasets.load(data_name)

    def on_epoch(history: list[EpochMetrics]) -> None:
        report(history[-1].accuracy, {})

    run_trial(hparams, images, datasets.split(images), claim.device, on_epoch)


TRAINERS: dict[str, Trainer] = {"tutorial": train_as_tutorial, "cifar": train_as_cifar}
_TRAINERS_IN_RAY = TRAINERS | {"tutorial": partial(train_as_tutorial, loaders=8)}


def search_with_ray(trainer: str, data_name: str, configurations: list[dict[str, Any]], directory: Path) -> list[float]:
    """Validation accuracies after the last epoch, one per configuration."""
    import ray
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        def report(accuracy: float, state: dict[str, Any]) -> None:
            with tempfile.TemporaryDirectory() as checkpoint_directory:
                torch.save(state, Path(checkpoint_directory) / "data.pt")
                checkpoint = tune.Checkpoint.from_directory(checkpoint_directory)
                tune.report({"accuracy": accuracy}, checkpoint=checkpoint)

        _TRAINERS_IN_RAY[trainer](Hparams.from_params(configurations[config["number"]]), data_name, report)

    ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": torch.cuda.device_count() / AT_ONCE}),
        param_space={"number": tune.grid_search([*range(len(configurations))])},
        run_config=tune.RunConfig(storage_path=str(directory), verbose=0),
    )
    results = {result.config["number"]: result.metrics["accuracy"] for result in tuner.fit()}
    ray.shutdown()
    return [results[number] for number in range(len(configurations))]


def search_with_optuna(
    trainer: str, data_name: str, configurations: list[dict[str, Any]], directory: Path
) -> list[float]:
    """Validation accuracies after the last epoch, one per configuration."""
    import optuna

    study = optuna.create_study(study_name="study", storage=_journal(directory), direction="maximize")
    for number in range(len(configurations)):
        study.enqueue_trial({"number": number})
    (directory / "configurations.json").write_text(json.dumps(configurations))
    worker = [sys.executable, "-m", "benchmarks.yardsticks.peers", "optuna-worker", trainer, data_name, str(directory)]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}  # as Ray Tune sees to by itself
    workers = [subprocess.Popen(worker, env=one_core) for _ in range(AT_ONCE)]
    assert [process.wait() for process in workers] == [0] * AT_ONCE
    results = {trial.params["number"]: trial.values[0] for trial in study.trials}
    return [results[number] for number in range(len(configurations))]


def work_for_optuna(trainer: str, data_name: str, directory: Path) -> None:
    """One of the processes that train what is queued, until nothing is left."""
    import optuna
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    configurations = json.loads((directory / "configurations.json").read_text())

    def objective(trial: optuna.Trial) -> float:
        accuracies = list[float]()

        def report(accuracy: float, state: dict[str, Any]) -> None:
            accuracies.append(accuracy)
            trial.report(accuracy, len(accuracies))

        number = trial.suggest_int("number", 0, len(configurations) - 1)
        TRAINERS[trainer](Hparams.from_params(configurations[number]), data_name, report)
        return accuracies[-1]

    study = optuna.load_study(study_name="study", storage=_journal(directory))
    begun = (TrialState.COMPLETE, TrialState.RUNNING)
    study.optimize(objective, callbacks=[MaxTrialsCallback(len(configurations), states=begun)])


def _journal(directory: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(directory / "journal.log")))


def _main(tool: str, trainer: str, data_name: str, directory: str) -> None:
    if tool == "optuna-worker":
        work_for_optuna(trainer, data_name, Path(directory))
        return
    search = {"ray": search_with_ray, "optuna": search_with_optuna}[tool]
    accuracies = search(trainer, data_name, json.load(sys.stdin), Path(directory))
    (Path(directory) / "accuracies.json").write_text(json.dumps(accuracies))


if __name__ == "__main__":
    _main(*sys.argv[1:])
