from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from cifar.data import test_log
from cifar.data.datasets import Dataset
from cifar.errors import RequestError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))


def test_each_reading_is_entered_for_the_images_and_for_the_experiment(tiny: Dataset, tmp_path: Path) -> None:
    assert test_log.count(tiny) == "these test images were read 0 times on this machine"
    test_log.append(tiny, "python trial.py", [3], [0.5])
    assert test_log.count(tiny) == "these test images were read once on this machine"
    test_log.append(tiny, "a1b2c", [1, 2], [0.5, 0.25], tmp_path / "test-readings.jsonl")
    assert [reading["trial"] for reading in test_log.read(test_log.of_images(tiny))] == ["python trial.py", "a1b2c"]
    (reading,) = test_log.read(tmp_path / "test-readings.jsonl")
    assert (reading["seeds"], reading["accuracies"]) == ([1, 2], [0.5, 0.25])
    assert reading["data"] == {"name": "tiny", "fingerprint": tiny.fingerprint, "images": 120}
    assert test_log.count(tiny).endswith("2 times on this machine; the more often, the less they are a test")


def _enter(dataset: Dataset, number: int) -> None:
    test_log.append(dataset, str(number), [number], [0.5])


def test_readings_at_the_same_time_are_all_entered(tiny: Dataset) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=_enter, args=(tiny, n)) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(reading["seeds"][0] for reading in test_log.read(test_log.of_images(tiny))) == list(range(8))


def test_where_it_cannot_be_entered_it_says_so(tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("no folder")
    test_log.append(tiny, "python trial.py", [3], [0.5])
    assert "this reading of the test images is not entered in" in caplog.text


def test_a_damaged_log_costs_no_answer(tiny: Dataset) -> None:
    test_log.append(tiny, "python trial.py", [3], [0.5])
    test_log.of_images(tiny).write_text("no json\n")
    assert test_log.count(tiny).startswith("how often these test images were read is not known: ")


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(json.dumps({"when": "now"}) + "\nno json\n")
    with pytest.raises(RequestError, match="log is damaged"):
        test_log.read(tmp_path / "log")
