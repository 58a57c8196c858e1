from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.data.images import to_pixels
from cifar.inference import model_file
from cifar.inference.export import _resized, export
from cifar.inference.predict import predict
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
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(tiny.classes)
    assert "resized to 32 x 32, bilinear with antialiasing" in told["pixels"]
    for width, height in ((31, 33), (200, 45), (1, 1)):  # it makes pictures of any size as small as `predict` does
        picture = np.random.RandomState(width).randint(0, 256, (height, width, 3), dtype=np.uint8)
        (probabilities,) = session.run(["probabilities"], {"pixels": picture[None]})
        Image.fromarray(picture).save(tmp_path / "picture.png")
        (prediction,) = predict(model, [tmp_path / "picture.png"], top=3)
        told_by_predict = dict(prediction.classes)
        assert np.allclose(probabilities[0], [told_by_predict[name] for name in tiny.classes], atol=0.01)


@pytest.mark.parametrize("size", [(32, 32), (33, 31), (5, 9), (500, 375), (3, 700), (97, 1024)])
@pytest.mark.parametrize("side", [32, 64])
def test_the_exported_resizing_is_pillows(size: tuple[int, int], side: int) -> None:
    picture = np.random.RandomState(0).randint(0, 256, (*size, 3), dtype=np.uint8)
    resized = _resized(torch.from_numpy(picture).permute(2, 0, 1)[None], side)[0].permute(1, 2, 0).numpy()
    assert np.abs(resized - to_pixels(Image.fromarray(picture), side).astype(int)).max() <= 1
