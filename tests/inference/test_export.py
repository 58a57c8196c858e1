from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.inference import model_file
from cifar.inference.export import export
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train


@pytest.mark.parametrize("network", ["net", "lenet", "fast"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_gives_what_pytorch_gives(tiny: Dataset, tmp_path: Path, network: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    hparams = Hparams(model=network, width=8, seed=3, epochs=1)
    trained = new_model(hparams, tiny)
    [*train(trained, new_optimizer(trained, hparams), hparams, tiny, datasets.split(tiny))]
    model_file.save(tmp_path / "model.safetensors", trained, hparams, tiny, {})
    model = model_file.load(tmp_path / "model.safetensors")
    export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for images in (tiny.images[:1], tiny.images[:50]):
        pixels = images.permute(0, 2, 3, 1).numpy()
        (probabilities,) = session.run(["probabilities"], {"pixels": pixels})
        with torch.inference_mode():
            expected = model.network(datasets.normalise(images)).softmax(1).numpy()
        assert np.allclose(probabilities, expected, atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(tiny.classes)
