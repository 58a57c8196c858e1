from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.training.hparams import Hparams
from cifar.training.train import new_model

HPARAMS = Hparams(width=8, lr=0.02, seed=5)


@pytest.fixture
def saved(tiny: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
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


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the facts and tensors (`weights`) in a model file, with a checksum that fits them."""
    content = change(model_file._read(path))
    tensors = content.pop("weights")
    text = json.dumps(content)
    save_file(tensors, path, {"cifar": text, "checksum": model_file._checksum(text, tensors)})


def write_former(path: Path, content: dict[str, Any]) -> None:
    """Write a model file as version 0.1 did, which called four of the hyperparameters otherwise."""
    former = {"gradient_accumulation_steps": "accumulate", "lookahead_decay": "average"}
    former |= {"tta_flip": "mirrored", "translate": "shift"}
    hparams = {former.get(name, name): value for name, value in content["hparams"].items()}
    torch.save(content | {"format": "cifar model 1", "hparams": hparams}, path)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", ["truncate", "a bit of a tensor", "a bit of a fact", "empty", "foreign"])
def test_a_damaged_or_foreign_file_is_refused(saved: Path, damage: str) -> None:
    content = saved.read_bytes()
    damaged = {
        "truncate": content[: len(content) // 2],
        "a bit of a tensor": flipped(content, len(content) - 100),
        "a bit of a fact": flipped(content, content.index(b"0.02")),  # the learning rate
        "empty": b"",
        "foreign": b"{}",
    }
    saved.write_bytes(damaged[damage])
    with pytest.raises(RequestError, match="no model file"):
        model_file.load(saved)


@given(place=st.integers(0), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_wrong_bit_changes_a_model_unnoticed(saved: Path, tmp_path: Path, place: int, bit: int) -> None:
    content = bytearray(saved.read_bytes())
    content[place % len(content)] ^= 1 << bit
    (tmp_path / "wrong").write_bytes(content)
    try:
        read = model_file.load(tmp_path / "wrong")
    except RequestError:
        return
    right = model_file.load(saved)  # the bit had no meaning, like those that fill the header up
    assert (read.hparams, read.classes, read.accuracy, read.facts) == (
        right.hparams,
        right.classes,
        right.accuracy,
        right.facts,
    )
    for tensor, expected in zip(read.network.state_dict().values(), right.network.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected)


def test_another_programs_safetensors_are_refused(saved: Path) -> None:
    save_file({"layer": torch.zeros(3)}, saved)
    with pytest.raises(RequestError, match="no model file"):
        model_file.load(saved)


def test_a_file_of_another_shape_is_refused(saved: Path) -> None:
    rewrite(saved, lambda content: content | {"hparams": content["hparams"] | {"width": 16}})
    with pytest.raises(RequestError, match="cannot use"):
        model_file.load(saved)


def test_a_file_of_version_0_1_is_read(saved: Path, tmp_path: Path) -> None:
    write_former(tmp_path / "best.pt", model_file._read(saved))
    former, model = model_file.load(tmp_path / "best.pt"), model_file.load(saved)
    assert former.hparams == model.hparams == HPARAMS
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(former.network(images), model.network(images))


def test_a_damaged_file_of_version_0_1_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    write_former(path, model_file._read(saved))
    with zipfile.ZipFile(path) as archive:  # between the tensors lie bytes that mean nothing
        largest = archive.read(max(archive.infolist(), key=lambda info: info.file_size))
    path.write_bytes(flipped(path.read_bytes(), path.read_bytes().index(largest[:64])))
    with pytest.raises(RequestError, match="no model file"):
        model_file.load(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(RequestError, match="no model file of this project"):
        model_file.load(path)


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
    model_file.save(tmp_path / "model.safetensors", new_model(HPARAMS, there), HPARAMS, there, {})
    assert model_file.load(tmp_path / "model.safetensors").facts["data"]["name"] == "pictures"
    assert b"somebody" not in (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("change", [{"mean": 0.0}, {"image_size": 64}, {"weights": "nan"}])
def test_a_model_that_would_answer_nonsense_is_refused(tiny: Dataset, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "model.safetensors"
    model_file.save(path, new_model(HPARAMS, tiny), HPARAMS, tiny, {})
    if "weights" in change:
        tensors = model_file._read(path)["weights"]
        change = {"weights": {name: tensor * float("nan") for name, tensor in tensors.items()}}
    rewrite(path, lambda content: content | change)
    with pytest.raises(RequestError, match="this version cannot use"):
        model_file.load(path)
