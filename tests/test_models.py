from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cifar.models import build_model, layer_sizes, parameter_count


@pytest.mark.parametrize(
    ("model", "width", "sizes", "parameters"),
    [
        ("net", 6, (6, 16, 120, 84), 62_006),
        ("wide", 64, (64, 128, 1024, 512), 4_017_546),
        ("lenet", 16, (16, 32, 120, 84), 121_182),
        ("net", 1, (1, 3, 20, 14), 2_118),
        ("net", 12, (12, 32, 240, 168), 244_962),
    ],
)
def test_sizes_and_parameter_counts(model: str, width: int, sizes: tuple[int, int, int, int], parameters: int) -> None:
    assert layer_sizes(model, width) == sizes
    assert parameter_count(build_model(model, width, classes=10)) == parameters


def test_net_computes_what_the_tutorials_network_does() -> None:
    net = build_model("net", 6, classes=10)
    tutorial = nn.Sequential(
        *(net.conv1, nn.ReLU(), nn.MaxPool2d(2), net.conv2, nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), net.fc1, nn.ReLU(), net.fc2, nn.ReLU(), net.fc3),
    )
    images = torch.rand(7, 3, 32, 32) * 2 - 1
    assert torch.equal(net(images), tutorial(images))


def test_an_untrained_network_is_as_good_as_guessing() -> None:
    torch.manual_seed(0)
    logits = build_model("net", 6, classes=10)(torch.rand(64, 3, 32, 32) * 2 - 1)
    loss = nn.functional.cross_entropy(logits, torch.arange(64) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.05)
