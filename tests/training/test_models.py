from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cifar.training.hparams import WIDTHS, Hparams
from cifar.training.models import BatchNorm, ConvGroup, Fast, Net, Whitening, build_model, layer_sizes, parameter_count


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
    assert parameter_count(build_model(Hparams(model=model, width=width), classes=10)) == parameters


def test_net_computes_what_the_tutorials_network_does() -> None:
    net = build_model(Hparams(), classes=10)
    assert isinstance(net, Net)
    tutorial = nn.Sequential(
        *(net.conv1, nn.ReLU(), nn.MaxPool2d(2), net.conv2, nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), net.fc1, nn.ReLU(), net.fc2, nn.ReLU(), net.fc3),
    )
    images = torch.rand(7, 3, 32, 32) * 2 - 1
    assert torch.equal(net(images), tutorial(images))


@pytest.mark.parametrize("model", WIDTHS)
def test_a_network_of_larger_images_answers_them(model: str) -> None:
    network = build_model(Hparams(model=model, width=4, size=64), classes=3).eval()
    assert network(torch.rand(5, 3, 64, 64) * 2 - 1).shape == (5, 3)


@pytest.mark.parametrize("model", WIDTHS)
def test_an_untrained_network_is_as_good_as_guessing(model: str) -> None:
    torch.manual_seed(0)
    logits = build_model(Hparams(model=model), classes=10)(torch.rand(64, 3, 32, 32) * 2 - 1)
    loss = nn.functional.cross_entropy(logits, torch.arange(64) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.05)


@pytest.mark.parametrize(("width", "parameters"), [(64, 1_971_352), (16, 126_520), (1, 775)])
def test_fast_grows_with_the_square_of_its_width(width: int, parameters: int) -> None:
    convolutions = 9 * (24 * width + width**2 + width * 4 * width + 3 * (4 * width) ** 2)
    biases = 24 + 2 * (width + 4 * width + 4 * width)
    assert parameter_count(build_model(Hparams(model="fast", width=width), classes=10)) == parameters
    assert convolutions + biases + 4 * width * 10 == parameters


def test_whitened_patches_are_uncorrelated() -> None:
    """Patches of smooth pictures, whose neighbouring pixels are nearly equal."""
    torch.manual_seed(0)
    coarse = torch.rand(200, 3, 8, 8) * 2 - 1
    images = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    whiten = Whitening()
    whiten.fit(images)
    components = whiten(images)[:, :12].transpose(0, 1).flatten(1)
    products = components @ components.T / components.shape[1]
    strong = products.diag() > 0.9  # the others are weaker than what is added to each
    assert strong.sum() >= 3
    assert (products - products.diag().diag()).abs().max() < 0.05
    assert products.diag().max() < 1.05
    assert torch.equal(whiten(images)[:, 12:], -whiten(images)[:, :12])


def test_a_norms_bias_moves_as_with_64_times_the_learning_rate() -> None:
    ours, plain = BatchNorm(4), nn.BatchNorm2d(4)
    x, weights = torch.randn(8, 4, 5, 5), torch.randn(8, 4, 5, 5)
    for norm, lr in ((ours, 0.01), (plain, 0.64)):
        (norm.train()(x) * weights).sum().backward()
        assert norm.bias.grad is not None
        norm.bias.data -= lr * norm.bias.grad
    torch.testing.assert_close(ours(x), plain(x))


def test_a_norm_ends_with_the_statistics_of_what_it_saw() -> None:
    norm, x = BatchNorm(4).train(), torch.randn(64, 4, 5, 5) * 3 + 2
    for _ in range(30):
        norm(x)
    torch.testing.assert_close(norm.eval()(x), norm.train()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", WIDTHS)
def test_mirrored_networks_see_no_difference_between_left_and_right(model: str) -> None:
    network = build_model(Hparams(model=model, width=4, tta_flip=True), classes=10).eval()
    network.init_whitening(torch.rand(50, 3, 32, 32) * 2 - 1)
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(network(images), network(images.flip(3)))
    network.tta_flip = False
    assert not torch.allclose(network(images), network(images.flip(3)))


def test_fast_takes_its_whitening_from_the_images_it_looks_at() -> None:
    network = build_model(Hparams(model="fast", width=4), classes=10)
    assert isinstance(network, Fast)
    before = network.whiten.weight.clone()
    network.init_whitening(torch.rand(50, 3, 32, 32) * 2 - 1)
    assert not torch.equal(network.whiten.weight, before)
    assert "whiten.weight" in network.state_dict()
    assert not any(parameter is network.whiten.weight for parameter in network.parameters())


def test_only_a_trained_network_mirrors_its_images() -> None:
    network = build_model(Hparams(width=4, tta_flip=True), classes=10)
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    assert torch.equal(network.train()(images), network.logits(images))
    assert not torch.equal(network.eval()(images), network.logits(images))


@pytest.mark.parametrize(("channels_in", "channels_out"), [(3, 5), (5, 3)])
def test_a_groups_convolutions_begin_as_the_identity(channels_in: int, channels_out: int) -> None:
    x, shared = torch.rand(2, channels_in, 8, 8), min(channels_in, channels_out)
    group = ConvGroup(channels_in, channels_out)
    torch.testing.assert_close(group.conv1(x)[:, :shared], x[:, :shared])
