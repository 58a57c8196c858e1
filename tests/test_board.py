from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar import board
from cifar.data import Dataset
from cifar.hparams import Hparams
from cifar.train import new_model


def test_tensorboard_finds_curves_and_graph(tiny: Dataset, tmp_path: Path) -> None:
    for epoch in (1, 2):
        board.add_epoch(tmp_path, epoch, {"default": epoch / 10, "loss": 1.0})
    board.add_graph(tmp_path, new_model(Hparams(), tiny))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["accuracy", "loss"]
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("accuracy")] == [(1, 0.1), (2, 0.2)]
    assert "conv1" in str(events.Graph())


def test_without_tensorboard_a_trial_goes_on(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    board.add_epoch(tmp_path, 1, {"default": 0.1})
    board.add_graph(tmp_path, new_model(Hparams(), tiny))
    assert list(tmp_path.iterdir()) == []
