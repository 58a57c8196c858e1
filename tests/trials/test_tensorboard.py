from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar.trials import tensorboard


def test_tensorboard_finds_the_curves(tmp_path: Path) -> None:
    for epoch in (1, 2):
        tensorboard.add_epoch(tmp_path, epoch, {"default": epoch / 10, "loss": 1.0})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["accuracy", "loss"]
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("accuracy")] == [(1, 0.1), (2, 0.2)]


def test_without_tensorboard_a_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    tensorboard.add_epoch(tmp_path, 1, {"default": 0.1})
    assert list(tmp_path.iterdir()) == []


def test_a_tensorboard_that_does_not_work_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import fails
    for epoch in (1, 2):
        tensorboard.add_epoch(tmp_path, epoch, {"default": 0.1})
    assert list(tmp_path.iterdir()) == []
    assert caplog.text.count("no curves for TensorBoard, which does not work here: ModuleNotFoundError") == 1
