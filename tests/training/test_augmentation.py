from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cifar.training.augmentation import Augmentation, fitting
from cifar.training.hparams import Hparams

PIXELS = torch.randint(256, (40, 32, 32, 3), dtype=torch.uint8)
CPU = torch.device("cpu")


def augmented(hparams: Hparams, epoch: int, index: Tensor | None = None) -> Tensor:
    index = torch.arange(len(PIXELS)) if index is None else index
    return Augmentation(hparams, len(PIXELS), epoch, CPU)(PIXELS, index)


def test_half_of_the_images_are_mirrored_and_the_other_half_in_the_next_epoch() -> None:
    first, second, third = (augmented(Hparams(flip=True), epoch) for epoch in (1, 2, 3))
    mirrored = torch.tensor([torch.equal(seen, image.flip(1)) for seen, image in zip(first, PIXELS, strict=True)])
    assert 8 <= mirrored.sum() <= 32
    assert torch.equal(first[~mirrored], PIXELS[~mirrored])
    assert torch.equal(second, first.flip(2))
    assert torch.equal(third, first)


@given(translate=st.integers(0, 31), flip=st.booleans(), epoch=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_each_image_is_cut_from_its_padded_self(translate: int, flip: bool, epoch: int, seed: int) -> None:
    hparams = Hparams(translate=translate, flip=flip, seed=seed)
    augmentation = Augmentation(hparams, len(PIXELS), epoch, CPU)
    number = seed % len(PIXELS)
    image = PIXELS[number].permute(2, 0, 1).float()
    if augmentation.flipped[number]:
        image = image.flip(2)
    padded = F.pad(image[None], (translate,) * 4, "reflect")[0]
    top, left = translate - int(augmentation.down[number]), translate - int(augmentation.right[number])
    expected = padded[:, top : top + 32, left : left + 32].permute(1, 2, 0).to(torch.uint8)
    assert torch.equal(augmentation(PIXELS, torch.tensor([number]))[0], expected)


def test_all_shifts_happen_and_are_even_handed() -> None:
    augmentation = Augmentation(Hparams(translate=2), 50_000, 1, CPU)
    for moves in (augmentation.down, augmentation.right):
        values, counts = moves.unique(return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert counts.min() > 9_500


@pytest.mark.parametrize(("seed", "epoch"), [(1, 1), (0, 2)])
def test_epochs_and_seeds_have_views_of_their_own(seed: int, epoch: int) -> None:
    assert torch.equal(augmented(Hparams(translate=2), 1), augmented(Hparams(translate=2), 1))
    assert not torch.equal(augmented(Hparams(translate=2), 1), augmented(Hparams(translate=2, seed=seed), epoch))


def test_an_image_looks_the_same_wherever_it_stands_in_the_order() -> None:
    hparams = Hparams(translate=2, flip=True, color_jitter=0.3)
    assert torch.equal(augmented(hparams, 1, torch.tensor([7, 3])), augmented(hparams, 1)[[7, 3]])


@given(jitter=st.floats(0.01, 0.99), epoch=st.integers(1, 5), number=st.integers(0, 39))
def test_each_image_has_colours_of_its_own(jitter: float, epoch: int, number: int) -> None:
    """Brightness and contrast of the image, saturation of each pixel, and a tint, one after the other."""
    augmentation = Augmentation(Hparams(color_jitter=jitter, flip=True), len(PIXELS), epoch, CPU)
    plain = Augmentation(Hparams(flip=True), len(PIXELS), epoch, CPU)(PIXELS, torch.tensor([number]))[0].double()
    assert augmentation.factors is not None
    brightness, contrast, saturation, *tint = augmentation.factors[number].tolist()
    assert all(abs(factor - 1) <= jitter + 1e-6 for factor in (brightness, contrast, saturation))
    assert all(abs(factor - 1) <= 0.4 * jitter + 1e-6 for factor in tint)
    lit = (plain.mean() + (plain - plain.mean()) * contrast) * brightness
    grey = lit.mean(2, keepdim=True)
    expected = ((grey + (lit - grey) * saturation) * torch.tensor(tint)).clamp(0, 255)
    seen = augmentation(PIXELS, torch.tensor([number]))[0].double()
    assert (seen - expected).abs().max() <= 0.51
    assert not torch.equal(seen, plain)


def test_colours_change_by_image_and_epoch_and_leave_all_else() -> None:
    jittered, moved = Hparams(color_jitter=0.3, translate=2, flip=True), Hparams(translate=2, flip=True)
    factors = [Augmentation(jittered, 2000, epoch, CPU).factors for epoch in (1, 2)]
    assert factors[0] is not None and factors[1] is not None
    assert not torch.isclose(factors[0], factors[1]).all(1).any()
    assert factors[0].mean(0).tolist() == pytest.approx([1.0] * 6, abs=0.02)
    assert factors[0].aminmax(dim=0).max.tolist() == pytest.approx([1.3] * 3 + [1.12] * 3, abs=0.01)
    with_colours, without = (Augmentation(some, len(PIXELS), 1, CPU) for some in (jittered, moved))
    assert torch.equal(with_colours.down, without.down) and torch.equal(with_colours.flipped, without.flipped)
    grey = PIXELS[..., :1].expand(PIXELS.shape)
    seen = with_colours(grey, torch.arange(len(grey)))
    assert torch.equal(seen[..., 0], seen[..., 1]) and torch.equal(seen[..., 1], seen[..., 2])
    assert not torch.equal(seen, without(grey, torch.arange(len(grey))))


def test_digits_are_never_mirrored() -> None:
    mirrored = Hparams(flip=True, tta_flip=True, translate=2)
    assert fitting(mirrored, "digits") == Hparams(translate=2)
    assert fitting(mirrored, "cifar10") == fitting(mirrored, "pictures") == mirrored
