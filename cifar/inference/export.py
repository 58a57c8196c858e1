"""A model file as ONNX, for programs without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar.data.datasets import normalise
from cifar.data.images import SIZE
from cifar.errors import RequestError
from cifar.inference.model_file import SavedModel
from cifar.system.files import new_file


class _FromPixels(nn.Module):
    """The network with what comes before and after it: N x 32 x 32 x 3 uint8 pixels in, probabilities out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(normalise(pixels.permute(0, 3, 1, 2)))
        return logits.softmax(1)


def export(model: SavedModel, path: Path) -> None:
    """Write the model as ONNX: `pixels` in, `probabilities` out, any number of images; class names are its metadata."""
    try:
        import onnx
    except ImportError:
        raise RequestError("export needs the package onnx: pip install -e '.[export]'") from None
    pixels = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        _FromPixels(model.network).eval(),
        (pixels,),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("images")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"classes": json.dumps(model.classes)})
    onnx.checker.check_model(proto)
    with new_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
