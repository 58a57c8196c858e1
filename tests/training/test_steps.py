"""The fast forms of a training step against plain PyTorch: the same losses and gradients, to rounding."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cifar.training.cpu_step import CpuStep
from cifar.training.cuda_step import CudaGraphStep
from cifar.training.hparams import Hparams
from cifar.training.models import Net, build_model
from cifar.training.optimizers import Adam, Optimizer, Sgd
from cifar.training.plain_step import train_step
from cifar.training.steps import new_step
from cifar.training.train import new_optimizer


class NoOptimizer(Optimizer):
    """Leaves the gradients to be looked at."""

    def _update(self, gradients: list[Tensor]) -> None:
        pass


def some_batch(size: int, classes: int = 10, pixels: int = 32) -> tuple[Tensor, Tensor]:
    images = torch.rand(size, 3, pixels, pixels) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last), torch.randint(classes, (size,))


def new_net(width: int, classes: int = 10, model: str = "net", pixels: int = 32) -> Net:
    torch.manual_seed(width)
    net = build_model(Hparams(model=model, width=width, size=pixels), classes).train()
    assert isinstance(net, Net)
    return net


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


def assert_same_gradients(net: Net, plain: Net, images: Tensor, labels: Tensor) -> None:
    CpuStep(net, NoOptimizer(net.parameters(), 1, 0), 1)(images, labels)
    F.cross_entropy(plain(images), labels).backward()
    assert len(gradients(net)) == len(gradients(plain)) == 10
    for ours, autograds in zip(gradients(net), gradients(plain), strict=True):
        assert (ours - autograds).norm() <= 1e-4 * autograds.norm()


# Widths and sizes on both sides of each limit in cpu_step: 8 and 16 channels, 16 images, large products.
@settings(max_examples=30)
@given(
    width=st.sampled_from([1, 2, 3, 6, 8, 9, 13, 16]),
    size=st.sampled_from([1, 3, 15, 16, 17, 40]),
    micro_batches=st.integers(1, 3),
    classes=st.integers(2, 12),
    pixels=st.sampled_from([32, 64]),
)
def test_the_cpu_step_equals_a_plain_one(width: int, size: int, micro_batches: int, classes: int, pixels: int) -> None:
    net, plain = (new_net(width, classes, pixels=pixels) for _ in range(2))
    images, labels = some_batch(size, classes, pixels)
    loss = CpuStep(net, NoOptimizer(net.parameters(), 1, 0), min(micro_batches, size))(images, labels)
    expected = F.cross_entropy(plain(images), labels)
    expected.backward()
    assert loss.item() / size == pytest.approx(expected.item(), rel=1e-5)
    for ours, autograds in zip(gradients(net), gradients(plain), strict=True):
        assert (ours - autograds).norm() <= 1e-4 * autograds.norm() + 1e-7


def test_the_cpu_step_equals_a_plain_one_for_the_wide_network() -> None:
    net, plain = new_net(64, model="wide"), new_net(64, model="wide")
    images, labels = some_batch(17)
    assert_same_gradients(net, plain, images, labels)


@pytest.mark.parametrize("size", [4, 32])
def test_equal_values_in_a_pooling_window_pass_their_gradient_on_once(size: int) -> None:
    """All pixels equal, all values of a window equal: whichever is chosen, the weights' gradient is the same."""
    net, plain = new_net(6), new_net(6)
    images, labels = torch.ones(size, 3, 32, 32), torch.zeros(size, dtype=torch.long)
    images = images.contiguous(memory_format=torch.channels_last)
    assert_same_gradients(net, plain, images, labels)


@pytest.mark.parametrize("size", [4, 64])
def test_a_hundred_steps_stay_together(size: int) -> None:
    """Fast steps and plain ones, from the same weights over the same batches: their losses differ by rounding alone."""
    hparams = Hparams(batch_size=size, lr=0.01)
    net, plain = new_net(6), new_net(6)
    fast = new_step(net, new_optimizer(net, hparams), hparams)
    slow = partial(train_step, plain, new_optimizer(plain, hparams), hparams)
    assert isinstance(fast, CpuStep)
    for _ in range(100):
        images, labels = some_batch(size)
        assert fast(images, labels).item() == pytest.approx(slow(images, labels).item(), rel=1e-3)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_optimizers_are_pytorchs(weight_decay: float) -> None:
    ours, theirs = new_net(6), new_net(6)
    pairs: list[tuple[Optimizer, torch.optim.Optimizer]] = [
        (
            Sgd(ours.parameters(), 0.01, 0.9, weight_decay),
            torch.optim.SGD(theirs.parameters(), 0.01, 0.9, weight_decay=weight_decay),
        ),
        (
            Sgd(ours.parameters(), 0.01, 0.9, weight_decay, nesterov=True),
            torch.optim.SGD(theirs.parameters(), 0.01, 0.9, weight_decay=weight_decay, nesterov=True),
        ),
        (
            Adam(ours.parameters(), 0.01, weight_decay),
            torch.optim.Adam(theirs.parameters(), 0.01, weight_decay=weight_decay),
        ),
    ]
    for optimizer, expected in pairs:
        for _ in range(3):
            for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                parameter.grad = torch.randn_like(parameter)
                other.grad = parameter.grad.clone()
            optimizer.step()
            expected.step()
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(parameter, other, atol=1e-6)


def test_an_optimizer_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(5)
    for kind in (Sgd, Adam):
        first, again = (nn.Parameter(torch.zeros(5)) for _ in range(2))
        optimizer, other = kind([first], 0.1, 0.9), kind([again], 0.1, 0.9)
        first.grad, again.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        other.load_state_dict(optimizer.state_dict())
        again.data.copy_(first)
        optimizer.step()
        other.step()
        assert torch.equal(first, again)


def test_bfloat16_trains_and_is_no_float32() -> None:
    hparams = Hparams(batch_size=32, lr=0.01)
    images, labels = some_batch(32)
    losses, dtypes = {}, list[torch.dtype]()
    for precision in ("float32", "bfloat16"):
        net = new_net(6)
        net.fc3.register_forward_hook(lambda _, __, logits: dtypes.append(logits.dtype))
        step = new_step(net, new_optimizer(net, hparams), Hparams(batch_size=32, lr=0.01, precision=precision))
        losses[precision] = [step(images, labels).item() for _ in range(5)]
        assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert dtypes == [torch.bfloat16] * 5  # the step in float32 is written out, and calls no module


class Capture:
    """A CUDA graph played on the CPU: what is captured has run, and a replay is what `replayed` makes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, replayed: Callable[[], None]) -> None:
        nothing = SimpleNamespace(wait_stream=lambda _: None)
        replacements = {
            "Stream": lambda: nothing,
            "current_stream": lambda: nothing,
            "stream": lambda _: contextlib.nullcontext(),
            "graph": lambda _: contextlib.nullcontext(),
            "CUDAGraph": lambda: SimpleNamespace(replay=replayed),
        }
        for name, replacement in replacements.items():
            monkeypatch.setattr(torch.cuda, name, replacement)


def captured_step(hparams: Hparams) -> tuple[Any, CudaGraphStep, Any]:
    torch.manual_seed(0)
    net = build_model(hparams, classes=10).train()
    optimizer = new_optimizer(net, hparams)
    return net, CudaGraphStep(partial(train_step, net, optimizer, hparams), net, optimizer), optimizer


@pytest.mark.parametrize("model", ["net", "fast"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("works", [True, False])
def test_a_captured_step_that_captured_nothing_is_not_used(
    model: str, optimizer: str, works: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a second GPU, when the capture looks at the first: its replay does nothing, and PyTorch only warns."""
    hparams = Hparams(model=model, width=6, batch_size=8, lr=0.01, optimizer=optimizer, precision="float32")
    net, fast, _ = captured_step(hparams)
    plain = copy.deepcopy(net)
    slow = partial(train_step, plain, new_optimizer(plain, hparams), hparams)
    replays = 0

    def replay() -> None:
        nonlocal replays
        replays += 1
        if works:
            fast.loss.copy_(fast.step(fast.images, fast.labels))

    Capture(monkeypatch, replay)
    for size in (8, 8, 5, 8):
        batch = some_batch(size)
        assert fast(*batch).item() == pytest.approx(slow(*batch).item(), rel=1e-5)
    torch.testing.assert_close(net.state_dict(), plain.state_dict())
    assert replays == (4 if works else 1)  # the first one proves it
    assert ("does not train as the plain one does" in caplog.text) is not works


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_an_empty_graph_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hparams = Hparams(width=6, batch_size=8, lr=0.01)
    net = build_model(hparams, classes=10).cuda().train()
    fast = new_step(net, new_optimizer(net, hparams), hparams)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: None)
    before = copy.deepcopy(net.state_dict())
    fast(*(tensor.cuda() for tensor in some_batch(8)))
    assert any(not torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("model", "optimizer"), [("net", "sgd"), ("net", "adam"), ("fast", "sgd")])
def test_a_cuda_graph_equals_a_plain_step(model: str, optimizer: str) -> None:
    """The last batch is smaller and takes the plain step; the one after it replays the graph again.

    The learning rate changes from step to step.
    """
    hparams = Hparams(model=model, width=6, batch_size=8, lr=0.01, optimizer=optimizer, precision="float32")
    torch.manual_seed(0)
    net = build_model(hparams, classes=10).cuda().train()
    plain = copy.deepcopy(net)
    optimizers = [new_optimizer(network, hparams) for network in (net, plain)]
    fast = new_step(net, optimizers[0], hparams)
    slow = partial(train_step, plain, optimizers[1], hparams)
    for number, size in enumerate((8, 8, 8, 5, 8, 8), start=1):
        for some in optimizers:
            some.set_lr(0.01 * number)
        images, labels = (tensor.cuda() for tensor in some_batch(size))
        assert fast(images, labels).item() == pytest.approx(slow(images, labels).item(), rel=1e-4)
