from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.training.hparams import Hparams
from cifar.training.train import new_model

HPARAMS = Hparams(width=8, lr=0.02, seed=5)


@pytest.fixture
def saved(tiny: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    model_file.save(path, new_model(HPARAMS, tiny), HPARAMS, tiny, {"validation": 0.5})
    return path


def test_a_model_comes_back_as_it_was(saved: Path, tiny: Dataset) -> None:
    model = model_file.load(saved)
    assert model.hparams == HPARAMS
    assert model.classes == tiny.classes
    assert model.accuracy == {"validation": 0.5}
    assert model.facts["data"]["fingerprint"] == tiny.fingerprint
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(model.network(images), new_model(HPARAMS, tiny).eval()(images))


def stored_bytes(path: Path) -> bytes:
    """Some of the largest tensor's; between the tensors lie bytes that mean nothing."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        return archive.read(largest)[:64]


@pytest.mark.parametrize("damage", ["truncate", "flip a bit", "empty", "foreign", "another's tensors"])
def test_a_damaged_or_foreign_file_is_refused(saved: Path, damage: str) -> None:
    content = bytearray(saved.read_bytes())
    content[content.index(stored_bytes(saved))] ^= 1
    damaged = {"truncate": content[: len(content) // 2], "flip a bit": content, "empty": b"", "foreign": b"{}"}
    if damage == "another's tensors":
        torch.save({"weights": torch.zeros(3)}, saved)
    else:
        saved.write_bytes(bytes(damaged[damage]))
    with pytest.raises(RequestError, match="no model file"):
        model_file.load(saved)


def test_a_file_of_another_shape_is_refused(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    content["hparams"]["width"] = 16
    torch.save(content, saved)
    with pytest.raises(RequestError, match="cannot use"):
        model_file.load(saved)


def test_a_file_of_version_0_1_is_read(saved: Path) -> None:
    """It calls four of the hyperparameters otherwise."""
    content = torch.load(saved, weights_only=True)
    former = {"gradient_accumulation_steps": "accumulate", "lookahead_decay": "average"}
    former |= {"tta_flip": "mirrored", "translate": "shift"}
    content["hparams"] = {former.get(name, name): value for name, value in content["hparams"].items()}
    torch.save(content, saved)
    assert model_file.load(saved).hparams == HPARAMS


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    torch.save({"format": "cifar model 1", "weights": Malice(tmp_path / "made")}, tmp_path / "model.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malice(tmp_path / "made")))
    for name in ("model.pt", "plain.pt"):
        with pytest.raises(RequestError, match="no model file"):
            model_file.load(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nowhere\.pt"):
        model_file.load(tmp_path / "nowhere.pt")


def test_a_users_folder_does_not_travel_with_the_model(tiny: Dataset, tmp_path: Path) -> None:
    there = replace(tiny, name="/home/somebody/pictures")
    model_file.save(tmp_path / "model.pt", new_model(HPARAMS, there), HPARAMS, there, {})
    assert model_file.load(tmp_path / "model.pt").facts["data"]["name"] == "pictures"
    assert b"somebody" not in (tmp_path / "model.pt").read_bytes()


@pytest.mark.parametrize("change", [{"mean": 0.0}, {"image_size": 64}, {"weights": "nan"}])
def test_a_model_that_would_answer_nonsense_is_refused(tiny: Dataset, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "model.pt"
    model_file.save(path, new_model(HPARAMS, tiny), HPARAMS, tiny, {})
    content = torch.load(path, weights_only=True)
    if "weights" in change:
        change = {"weights": {name: tensor * float("nan") for name, tensor in content["weights"].items()}}
    torch.save(content | change, path)
    with pytest.raises(RequestError, match="this version cannot use"):
        model_file.load(path)
