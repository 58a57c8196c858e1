"""A trained network in one file that says all that is needed to use it: parameters, classes, what it was trained on."""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from cifar import __version__
from cifar.data.datasets import Dataset
from cifar.data.images import how
from cifar.errors import RequestError
from cifar.system.files import new_file, read_tensors
from cifar.training.hparams import Hparams
from cifar.training.models import build_model

_FORMAT = "cifar model 2"
_FORMER_FORMAT = "cifar model 1"  # version 0.1 wrote it with torch.save
_INPUT = {"mean": 0.5, "standard_deviation": 0.5}


@dataclass(frozen=True)
class SavedModel:
    """`accuracy` has what was measured, as fractions; pixels are scaled to -1 to 1 before the network sees them."""

    network: nn.Module
    hparams: Hparams
    classes: tuple[str, ...]
    accuracy: dict[str, float]
    facts: dict[str, Any]  # data, its fingerprints, versions


def save(path: Path, network: nn.Module, hparams: Hparams, dataset: Dataset, accuracy: dict[str, float]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    facts = {
        "format": _FORMAT,
        "hparams": asdict(hparams),
        "classes": list(dataset.classes),
        **_INPUT,
        "image_size": hparams.size,
        "pixels": how(hparams.size),
        "accuracy": accuracy,
        # A folder's place on somebody's disk is nobody else's business.
        "data": {"name": Path(dataset.name).name, "fingerprint": dataset.fingerprint},
        "versions": {"python": platform.python_version(), "cifar-nni": __version__}
        | {name: version(name) for name in ("torch", "numpy")},
    }
    text = json.dumps(facts)
    with new_file(path) as temporary:
        # "pt" tells other readers of safetensors that torch wrote the tensors. The format has no checksum of its own.
        save_file(tensors, temporary, {"format": "pt", "cifar": text, "checksum": _checksum(text, tensors)})


def description(model: SavedModel) -> str:
    """What it is, what it was trained on and how good it was, in lines."""
    hparams, data = model.hparams, model.facts["data"]["name"]
    measured = (f"{name.replace('_', ' ')} {value:.1%}" for name, value in model.accuracy.items())
    return "\n".join(
        [
            f"a model: network {hparams.model} of width {hparams.width}, {len(model.classes)} classes: "
            f"{', '.join(model.classes)}",
            f"trained on {data}, {hparams.epochs} epochs; {hparams.size} x {hparams.size} pixels",
            f"pictures become pixels: {model.facts['pixels']}",
            *measured,
        ]
    )


def load(path: Path) -> SavedModel:
    """The model in a file, on the CPU; RequestError where the file is damaged or foreign. It can hold no code."""
    content = _read(path)
    try:
        hparams = Hparams.from_params(content["hparams"])
        network = build_model(hparams, len(content["classes"]))
        network.load_state_dict(content["weights"])
        _check(content, network, hparams.size)
        facts = {name: content[name] for name in ("data", "versions", "image_size")} | {"pixels": how(hparams.size)}
        return SavedModel(network.eval(), hparams, tuple(content["classes"]), content["accuracy"], facts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{path} is a model that this version cannot use: {' '.join(str(error).split())}") from None


def _read(path: Path) -> dict[str, Any]:
    """The facts, and the tensors as `weights`."""
    try:
        with path.open("rb") as file:
            is_former = zipfile.is_zipfile(file)
        content = read_tensors(path) if is_former else _read_safetensors(path)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from None
    except Exception as error:  # a damaged file raises nearly anything
        raise RequestError(f"{path} is no model file, or a damaged one ({type(error).__name__})") from None
    expected = _FORMER_FORMAT if is_former else _FORMAT
    if not isinstance(content, dict) or content.get("format") != expected:
        raise RequestError(f"{path} is no model file of this project: its format is not {expected!r}")
    return content


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    if metadata["checksum"] != _checksum(metadata["cifar"], tensors):
        raise ValueError("its content does not match its checksum")
    facts: dict[str, Any] = json.loads(metadata["cifar"])
    return facts | {"weights": tensors}


def _checksum(text: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check(content: dict[str, Any], network: nn.Module, size: int) -> None:
    """ValueError where the network would answer, but not what it was trained to."""
    expected = {**_INPUT, "image_size": size}
    images = {name: content[name] for name in expected}
    if images != expected:
        raise ValueError(f"its images are {images}, this version's {expected}")
    if (pixels := content.get("pixels", how(size))) != how(size):
        raise ValueError(f"its pictures become pixels otherwise ({pixels}) than this version makes them ({how(size)})")
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise ValueError("its parameters are not finite")
