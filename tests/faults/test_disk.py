"""Disks that are full or read-only, and files that are damaged: named, and never a wrong number."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_experiments
import numpy as np
import pytest
import torch
from conftest import MakeFolder, Record
from experiments import Start, assert_numbered_and_paired, assert_resumes, change_config, nothing_is_left

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.system.files import write_json
from cifar.training.hparams import Hparams
from cifar.trials import layout, store
from cifar.trials.predictions import load_predictions, save_predictions
from cifar.trials.run import run_trial

MOUNTING = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """To the last byte."""
    path = directory / "others"
    with path.open("wb", buffering=0) as file:
        for block in (2**20, 2**12, 1):
            try:
                while file.write(bytes(block)):
                    pass
            except OSError:
                continue
    return path


@MOUNTING
@pytest.mark.slow
def test_a_disk_that_is_full_to_the_last_byte_costs_no_result(
    search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 6")
    with mounted(tmp_path / "experiments", "size=240m") as disk:
        one = search("--data", "digits", "--max-trials", "8")
        for ended in (1, 3, 5):
            one.wait_until_ended(ended)
            others = fill(disk)
            assert one.wait(60) == 1, one.err
            assert "the disk is full: 0 MB are left for " in one.err
            assert nothing_is_left(tmp_path)
            others.unlink()
            one = search("--resume", one.id)
        assert one.wait() == 0, one.err
        assert "8 trials: 8 ok" in one.out
        assert_numbered_and_paired(one)
    record(3)


@MOUNTING
def test_a_checkpoint_that_does_not_fit_is_done_without(
    tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, record: Record
) -> None:
    hparams, splits, cpu = Hparams(epochs=2, width=48), datasets.split(tiny), torch.device("cpu")
    with mounted(tmp_path / "small", "size=1m") as disk:
        result, _ = run_trial(hparams, tiny, splits, cpu, lambda history: None, disk / "checkpoint.pt")
        assert list(disk.iterdir()) == []  # not half of one either
    assert (result.status, result.epochs) == ("ok", 2)
    assert "checkpoint.pt cannot be written: " in caplog.text
    record(2)


@MOUNTING
def test_a_cache_that_does_not_fit_is_refused_and_leaves_nothing(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    folder = make_folder({"cat": 200, "dog": 200})
    with mounted(tmp_path / "small", "size=512k") as disk:
        monkeypatch.setenv("CIFAR_CACHE", str(disk))
        with pytest.raises(RequestError, match=r"cannot be read or cached: .*; 0 MB are free for the cache in "):
            datasets.load(str(folder))
        assert [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size] == []
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    assert len(datasets.load(str(folder)).labels) == 320
    record(1)


@MOUNTING
def test_read_only_folders_are_refused_before_anything_starts(
    search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    with mounted(tmp_path / "experiments", "ro"):
        one = search("--data", "digits")
        assert one.wait() == 2
        assert one.err == f"error: the experiment's files cannot be written: no permission in {one.experiments}\n"
    with mounted(tmp_path / "cache", "ro"):
        one = search("--data", "digits", CIFAR_CACHE=str(tmp_path / "cache"))
        assert one.wait() == 2
        assert "error: data 'digits' cannot be read or cached: " in one.err
        assert "Read-only file system" in one.err
    assert not one.experiments.exists() or list(one.experiments.iterdir()) == []
    record(2)


@MOUNTING
@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_search_before_anything_is_lost(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    with mounted(tmp_path / "experiments", "size=96m") as disk:
        one = search("--data", "digits", "--max-trials", "12", CIFAR_TEST_SECONDS="1")
        one.wait_until_ended(2)
        (disk / "others").write_bytes(bytes(80 * 2**20))
        assert one.wait(40) == 1, one.err
        assert "the disk is full: " in one.err
        assert nothing_is_left(tmp_path)
        refused = search("--resume", one.id)
        assert refused.wait() == 2
        assert "error: no disk space: the search needs " in refused.err
        (disk / "others").unlink()
        assert_resumes(search("--resume", one.id), trials=12)
    record(1)


def damaged(content: bytes) -> Iterator[bytes]:
    """Cut off anywhere, one bit changed anywhere, nothing at all, and not what it should be."""
    chance = random.Random(0)
    for _ in range(40):
        yield content[: chance.randrange(len(content))]
        place = chance.randrange(len(content))
        yield content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    yield from (b"", b"{}", b"null", b"\0" * len(content), content + content)


def test_a_damaged_file_of_a_trial_is_named_and_never_another_number(tmp_path: Path, record: Record) -> None:
    experiment = fake_experiments.make(tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.7}])
    trial = layout.trial_directory(experiment, "trial1")
    for path in (trial / "result.json", trial / "params.json"):
        write_json(path, json.loads(path.read_text()))  # as trials do, with a checksum
    truth = store.read_trials(experiment)
    for path in (trial / "result.json", trial / "params.json"):
        whole = path.read_bytes()
        for content in damaged(whole):
            path.write_bytes(content)
            first, second = store.read_trials(experiment)
            assert first == truth[0]
            if second.result is None:
                assert "its files cannot be read, damaged " in second.last_words
            else:
                assert (second.params, second.status, second.accuracy) == (truth[1].params, "ok", 0.7)
        path.write_bytes(whole)
    record(170)


def test_a_damaged_database_is_named_and_never_another_result(tmp_path: Path, record: Record) -> None:
    experiment = fake_experiments.make(tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.7}])
    truth = {trial.id: trial for trial in store.read_trials(experiment)}
    path = experiment / "db" / "nni.sqlite"
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        try:
            trials = store.read_trials(experiment)
            store.read_curves(experiment), store.read_config(experiment), store.read_seconds(experiment)
        except RequestError as error:
            assert "nni.sqlite is damaged" in str(error)
            continue
        for trial in trials:  # what counts comes from the trials' own files
            assert trial == truth[trial.id]
    record(85)


def test_damaged_answers_to_the_validation_images_count_as_none(tmp_path: Path, record: Record) -> None:
    labels = np.arange(1000) % 10
    save_predictions(tmp_path, np.roll(labels, 1), labels)
    (path,) = tmp_path.iterdir()
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        read = load_predictions(tmp_path)
        assert read is None or (np.array_equal(read.labels, labels) and not read.correct.any())
    record(85)


WRONG = [
    {"metrics": {"default": 1.7}},
    {"metrics": {"default": math.nan}},
    {"metrics": {"default": 0.5, "parameters": "many"}},
    {"metrics": [0.5]},
    {"data": {"val_images": 0}},
    {"data": None},
    {"seconds": math.inf},
    {"epochs": -1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_result_that_no_trial_can_have_is_named(tmp_path: Path, wrong: dict[str, object], record: Record) -> None:
    experiment = fake_experiments.make(tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.7}])
    path = layout.trial_directory(experiment, "trial1") / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    assert_unreadable(experiment)
    record(1)


def test_a_result_that_is_no_file_or_nested_without_end_is_named(tmp_path: Path, record: Record) -> None:
    experiment = fake_experiments.make(tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.7}])
    path = layout.trial_directory(experiment, "trial1") / "result.json"
    path.write_text('{"a":' * 100_000)
    assert_unreadable(experiment)
    path.unlink()
    path.mkdir()
    assert_unreadable(experiment)
    record(2)


def assert_unreadable(experiment: Path) -> None:
    first, second = store.read_trials(experiment)
    assert (first.accuracy, second.accuracy) == (0.5, None)
    assert "its files cannot be read, damaged " in second.last_words
