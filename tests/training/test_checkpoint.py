from __future__ import annotations

import logging
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.hparams import Hparams
from cifar.training.train import EpochMetrics
from cifar.trials.result import Result
from cifar.trials.run import run_trial

HPARAMS = Hparams(lr=0.01, batch_size=8, epochs=4, momentum=0.8)


class Killed(BaseException):
    """As abrupt as a kill: nothing in the code under test catches it."""


def run(dataset: Dataset, hparams: Hparams, path: Path, killed_after: int | None = None) -> tuple[Result, nn.Module]:
    def on_epoch(history: list[EpochMetrics]) -> None:
        if len(history) == killed_after:
            raise Killed

    result, trained = run_trial(hparams, dataset, datasets.split(dataset), torch.device("cpu"), on_epoch, path)
    assert trained is not None
    return result, trained.model


def weights(model: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_a_continued_trial_ends_as_an_uninterrupted_one_bit_for_bit(
    tiny: Dataset, tmp_path: Path, killed_after: int, optimizer: str
) -> None:
    hparams = replace(HPARAMS, optimizer=optimizer)
    whole_result, whole = run(tiny, hparams, tmp_path / "whole.pt")
    with pytest.raises(Killed):
        run(tiny, hparams, tmp_path / "cut.pt", killed_after)
    result, continued = run(tiny, hparams, tmp_path / "cut.pt")
    assert weights(continued) == weights(whole)
    assert result.epochs == 4
    assert result.metrics is not None
    assert whole_result.metrics is not None
    assert result.metrics["default"] == whole_result.metrics["default"]
    assert result.metrics["loss"] == whole_result.metrics["loss"]


def test_only_the_missing_epochs_are_trained(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tiny, HPARAMS, tmp_path / "cut.pt", 3)
    epochs: list[int] = []
    splits = datasets.split(tiny)
    cpu = torch.device("cpu")
    run_trial(HPARAMS, tiny, splits, cpu, lambda history: epochs.append(history[-1].epoch), tmp_path / "cut.pt")
    assert epochs == [4]


def test_another_trials_checkpoint_is_not_continued(
    tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        run(tiny, HPARAMS, tmp_path / "cut.pt", 2)
    other = replace(HPARAMS, lr=0.02)
    with caplog.at_level(logging.WARNING):
        _, model = run(tiny, other, tmp_path / "cut.pt")
    assert "it belongs to other hyperparameters, data or software" in caplog.text
    assert weights(model) == weights(run(tiny, other, tmp_path / "whole.pt")[1])


def stored_bytes(path: Path) -> bytes:
    """Some of the largest tensor's; between the tensors lie bytes that mean nothing."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        return archive.read(largest)[:64]


@pytest.mark.parametrize("damage", ["truncate", "flip a bit", "empty", "foreign"])
def test_a_damaged_checkpoint_means_starting_again(
    tiny: Dataset, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cut.pt"
    with pytest.raises(Killed):
        run(tiny, HPARAMS, path, 2)
    content = bytearray(path.read_bytes())
    content[content.index(stored_bytes(path))] ^= 1
    damaged = {"truncate": content[: len(content) // 2], "flip a bit": content, "empty": b"", "foreign": b"{}"}
    path.write_bytes(bytes(damaged[damage]))
    with caplog.at_level(logging.WARNING):
        _, model = run(tiny, HPARAMS, path)
    assert "training starts from the beginning" in caplog.text
    assert weights(model) == weights(run(tiny, HPARAMS, tmp_path / "whole.pt")[1])
