"""A model file as ONNX, for programs without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar.data.datasets import normalise
from cifar.data.images import how
from cifar.errors import RequestError
from cifar.inference.model_file import SavedModel
from cifar.system.files import new_file


class _FromPixels(nn.Module):
    """The network with what comes before and after it: N x height x width x 3 uint8 pixels in, probabilities out."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(normalise(_resized(pixels.permute(0, 3, 1, 2), self.size)))
        return logits.softmax(1)


def _resized(images: Tensor, size: int) -> Tensor:
    """N x 3 x size x size, as Pillow's bilinear filter makes it: first along the rows, and whole numbers after each."""
    height, width = images.shape[2:]
    narrow = (images.float() @ _shares(width, size).T + 0.5).floor()
    return (_shares(height, size) @ narrow + 0.5).floor()


def _shares(side: int, size: int) -> Tensor:
    """size x side: how much each of the pixels along a side counts in each new one, whose triangle lies over it."""
    scale = torch.ones(()) * side / size
    centres, places = (torch.arange(size) + 0.5) * scale, torch.arange(side) + 0.5
    heights = (1 - (places - centres[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    return heights / heights.sum(1, keepdim=True)


def export(model: SavedModel, path: Path) -> None:
    """Write the model as ONNX: `pixels` in, `probabilities` out, any number of images of any one size.

    Its metadata has the names of the classes, and how a picture becomes pixels.
    """
    try:
        import onnx
    except ImportError:
        raise RequestError("export needs the package onnx: pip install -e '.[export]'") from None
    size = model.hparams.size
    pixels = torch.zeros(2, 2 * size + 1, 3 * size + 1, 3, dtype=torch.uint8)
    free = {0: torch.export.Dim("images"), 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    program = torch.onnx.export(
        _FromPixels(model.network, size).eval(),
        (pixels,),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_shapes={"pixels": free},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"classes": json.dumps(model.classes), "pixels": how(size)})
    onnx.checker.check_model(proto)
    with new_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
