"""The files that a trial of an experiment leaves beside NNI's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cifar.data.datasets import Dataset, Splits
from cifar.inference import model_file
from cifar.system.files import write_json
from cifar.training.hparams import Hparams
from cifar.trials import layout, nni_client, top_models
from cifar.trials.predictions import save_predictions
from cifar.trials.result import Result
from cifar.trials.run import Trained, restored


def write_params(record: Any) -> None:
    content = {name: record[name] for name in ("parameter_id", "parameters")}
    write_json(nni_client.directory() / layout.PARAMS, content)


def write_result(result: Result, params_are_recorded: bool) -> None:
    content = result.to_json() | {"params_are_recorded": params_are_recorded}
    write_json(nni_client.directory() / layout.RESULT, content)


def save_artifacts(result: Result, trained: Trained | None, hparams: Hparams, dataset: Dataset, splits: Splits) -> None:
    """Save the predictions for the validation images and a good trial's model, and then drop the checkpoint."""
    directory, trial_id = nni_client.directory(), nni_client.trial_id()
    if trained is not None and result.status in ("ok", "stopped_early") and result.metrics and trial_id:
        accuracy = result.metrics["default"]
        save_predictions(directory, trained.predictions.numpy(), dataset.labels[splits.val].numpy())
        top_models.save_top_k(
            layout.experiment_of(directory),
            trial_id,
            accuracy,
            lambda path: model_file.save(path, trained.model, hparams, dataset, {"validation": accuracy}),
        )
    if result.status != "interrupted":  # or it goes on from there
        (directory / layout.CHECKPOINT).unlink(missing_ok=True)


def save_again(result: Result, hparams: Hparams, dataset: Dataset, splits: Splits) -> None:
    """Save what a start that was killed after its report did not come to save: its network is in the checkpoint."""
    checkpoint = nni_client.directory() / layout.CHECKPOINT
    if not checkpoint.exists():
        return
    trained = restored(hparams, dataset, splits, torch.device("cpu"), checkpoint)
    is_whole = trained is not None and len(trained.history) == result.epochs
    save_artifacts(result, trained if is_whole else None, hparams, dataset, splits)


def tensorboard_directory() -> Path:
    """Where NNI's page lets TensorBoard look for this trial's curves."""
    trial_id = nni_client.trial_id()
    assert trial_id is not None
    return layout.tensorboard_directory(layout.experiment_of(nni_client.directory()), trial_id)
