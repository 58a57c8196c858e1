"""Where the files of an experiment and of its trials lie."""

from __future__ import annotations

from pathlib import Path

# In the directory of a trial, and of a training that `cifar best` repeats:
CHECKPOINT = "checkpoint.pt"
PREDICTIONS = "validation.npz"
# Of a trial alone:
PARAMS = "params.json"
RESULT = "result.json"
STDERR = "trial.stderr"  # NNI's
# Of a repeated training alone:
TRAINING = "training.json"
MODEL = "model.safetensors"
FAILURE = "failed.json"


def database(experiment: Path) -> Path:
    return experiment / "db" / "nni.sqlite"


def logs(experiment: Path) -> Path:
    return experiment / "log"


def manager_log(experiment: Path) -> Path:
    return logs(experiment) / "nnimanager.log"


def tuner_log(experiment: Path) -> Path:
    return logs(experiment) / "dispatcher.log"


def manager_errors(experiment: Path) -> Path:
    """Where NNI's launcher leaves what the manager writes to its standard error."""
    return logs(experiment) / "nnictl_stderr.log"


def search_facts(experiment: Path) -> Path:
    return experiment / "search.json"


def trial_directory(experiment: Path, trial_id: str) -> Path:
    """NNI_OUTPUT_DIR of a local trial."""
    return experiment / "environments" / "local-env" / "trials" / trial_id


def experiment_of(trial: Path) -> Path:
    """The experiment that a trial's directory belongs to."""
    return trial.parents[3]


def tensorboard_directory(experiment: Path, trial_id: str) -> Path:
    """Where the button in NNI's page lets TensorBoard look for a local trial's curves."""
    return experiment / "trials" / trial_id / "output" / "tensorboard"


def models(experiment: Path) -> Path:
    return experiment / "models"


def confirmed(experiment: Path) -> Path:
    """The trainings that `cifar best` repeats."""
    return experiment / "confirmed"


def best_seconds(experiment: Path) -> Path:
    """How long `cifar best` has trained for it so far."""
    return confirmed(experiment) / "seconds.json"


def fit(experiment: Path) -> Path:
    """The time limit of `cifar fit`, and how much of it has been used."""
    return experiment / "fit.json"


def answer(experiment: Path) -> Path:
    return experiment / "best.json"


def best_model(experiment: Path) -> Path:
    return experiment / "best.safetensors"


def test_log(experiment: Path) -> Path:
    return experiment / "test-readings.jsonl"
