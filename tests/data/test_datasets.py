from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeFolder
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cifar.data import datasets, holdout, near_duplicates
from cifar.data.datasets import Dataset
from cifar.errors import RequestError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.sampled_from([0.1, 0.2, 0.5]))
def test_holdout_takes_its_share_of_each_class(labels: list[int], share: float) -> None:
    array = np.asarray(labels, dtype=np.int64)
    held_out = holdout.stratified_holdout(array, share)
    for label in set(labels):
        members = array == label
        assert (held_out & members).sum() == max(1, round(share * int(members.sum())))


def test_the_split_never_changes() -> None:
    """The validation images of old results must be those of new ones: these indices are for ever."""
    held_out = holdout.stratified_holdout(np.arange(60, dtype=np.int64) % 3, 0.1)
    assert np.flatnonzero(held_out).tolist() == [3, 4, 5, 54, 55, 56]


def test_split_is_disjoint_complete_stratified_and_repeatable(tiny: Dataset) -> None:
    splits = datasets.split(tiny)
    together = torch.cat([splits.train, splits.val])
    assert torch.equal(together.sort().values, torch.arange(120))
    assert tiny.labels[splits.val].bincount().tolist() == [4, 4, 4]
    assert datasets.split(tiny).fingerprint == splits.fingerprint


def test_where_all_images_are_trained_on_a_few_of_them_are_looked_at(tiny: Dataset) -> None:
    splits = datasets.split(tiny)
    everything = splits.all_trained_on()
    assert torch.equal(everything.train, torch.arange(len(tiny.labels)))
    assert everything.val.tolist() == [splits.val[0], splits.val[10]]
    assert everything.fingerprint != splits.fingerprint


def test_batches_follow_the_index_and_normalise(tiny: Dataset) -> None:
    index = torch.randperm(120)[:101]
    images, labels = zip(*datasets.batches(tiny, index, batch_size=8), strict=True)
    assert [len(some) for some in labels] == [8] * 12 + [5]
    assert torch.equal(torch.cat(labels), tiny.labels[index])
    expected = (tiny.images[index].double() / 255 - 0.5) / 0.5
    torch.testing.assert_close(torch.cat(images).double(), expected, rtol=0, atol=1e-6)


def test_black_and_white_become_minus_one_and_one() -> None:
    assert datasets.normalise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_digits_come_whole_and_without_overlap() -> None:
    train, test = datasets.load("digits"), datasets.load_test("digits")
    assert train.images.shape[1:] == (3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.classes == tuple("0123456789")
    assert len(train.labels) + len(test.labels) == 1797
    rows = {bytes(image.numpy()) for image in train.images}
    assert sum(bytes(image.numpy()) in rows for image in test.images) == 0


def test_loading_opens_no_test_image(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Decoding included: a trial may be the first to want the images."""
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    folder = make_folder({f"{part}/{name}": 4 for part in ("train", "test") for name in "ab"})
    opened: list[str] = []

    def note(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and isinstance(args[0], str | os.PathLike):
            opened.append(os.fspath(args[0]))

    sys.addaudithook(note)  # cannot be removed, but only appends to a list that ends with the test
    datasets.load(str(folder))
    assert any("/train/" in path for path in opened)
    assert not [path for path in opened if "/test/" in path]
    datasets.load_test(str(folder))
    assert [path for path in opened if "/test/" in path]


def test_unknown_data_names_the_choices() -> None:
    with pytest.raises(RequestError, match="data must be cifar10, digits or a folder of pictures, got 'mnist'"):
        datasets.load("mnist")


real_images = os.environ.get("CIFAR_IMAGES", "")


@pytest.mark.slow
@pytest.mark.skipif(not real_images, reason="CIFAR_IMAGES names no folder with CIFAR-10's 60,000 pictures")
def test_the_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = datasets.load(real_images), datasets.load_test(real_images)
    assert (len(train.labels), len(test.labels), len(train.classes)) == (50_000, 10_000, 10)
    splits = datasets.split(train)
    assert train.labels[splits.val].bincount().tolist() == [500] * 10
    mean = datasets.normalise(train.images[splits.val]).mean().item()
    assert mean == pytest.approx(-0.05, abs=0.03)  # CIFAR-10's channel means are 0.49, 0.48 and 0.45


@given(st.data())
def test_a_holdout_keeps_groups_together_and_leaves_each_class_some(data: st.DataObject) -> None:
    labels = np.asarray(data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=60)), dtype=np.int64)
    groups = np.asarray(data.draw(st.lists(st.integers(0, 20), min_size=len(labels), max_size=len(labels))))
    held_out = holdout.stratified_holdout(labels, 0.2, groups)
    for label in np.unique(labels):
        members = labels == label
        if members.sum() > 1:
            assert 0 < held_out[members].sum() < members.sum()
    torn = [group for group in np.unique(groups) if len(set(held_out[groups == group])) > 1]
    for group in torn:  # only where a class would have had none on one side
        assert any(held_out[labels == label].sum() == 1 for label in labels[groups == group])


def test_without_groups_of_several_the_holdout_is_the_plain_one() -> None:
    labels = np.arange(500, dtype=np.int64) % 7
    plain = holdout.stratified_holdout(labels, 0.1)
    assert np.array_equal(plain, holdout.stratified_holdout(labels, 0.1, np.arange(500)))
    assert plain.sum() == 7 * 7


def test_larger_images_are_kept_beside_small_ones(make_folder: MakeFolder) -> None:
    folder = str(make_folder({"cat": 10, "dog": 10}))
    small, large = datasets.load(folder), datasets.load(folder, 64)
    assert (small.size, large.size) == (32, 64)
    places = [datasets.prepare(folder, size).cache_path for size in (32, 64)]
    assert all(place.is_dir() for place in places)
    assert small.fingerprint != large.fingerprint
    assert small.groups is not None and large.groups is not None
    assert np.array_equal(small.groups, large.groups)
    assert small.names == large.names
    assert datasets.load_test(folder).names == datasets.load_test(folder, 64).names
    assert datasets.load_test(folder, 64).size == 64


def test_only_pictures_become_larger(monkeypatch: pytest.MonkeyPatch, make_folder: MakeFolder) -> None:
    with pytest.raises(RequestError, match="--size 64 needs a folder of pictures: the images of digits have 32 pixels"):
        datasets.load("digits", 64)
    folder = str(make_folder({"cat": 10, "dog": 10}))
    for name, value in datasets.prepare(folder).environment(folder).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match="this search's images have 32 pixels a side: a trial cannot have size 64"):
        datasets.load(folder, 64)


def test_near_duplicates_are_looked_for_in_small_images(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, plain = list[int](), near_duplicates.groups

    def noted(images: torch.Tensor) -> NDArray[np.int64]:
        sizes.append(images.shape[-1])
        return plain(images)

    monkeypatch.setattr(near_duplicates, "groups", noted)
    datasets.load(str(make_folder({"cat": 10, "dog": 10})), 64)
    assert sizes == [32]
