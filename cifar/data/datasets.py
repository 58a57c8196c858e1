"""A data set as trials see it: uint8 images in memory, a fixed split, normalised batches."""

from __future__ import annotations

import functools
import hashlib
import logging
import multiprocessing
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import BaseFileLock
from numpy.typing import NDArray
from torch import Tensor

from cifar.data import cache, holdout, sources
from cifar.data.decoded import Part, Source
from cifar.data.folder import FolderToTest
from cifar.data.sizes import SIZE
from cifar.errors import RequestError
from cifar.system import environment, locks, places
from cifar.system.files import existing, is_directory

logger = logging.getLogger(__name__)

VAL_SHARE = 0.1  # of each class's training images
_CHUNK = 256  # images made ready at once: small batches share the cost, and a core's cache holds them


@dataclass(frozen=True)
class Dataset:
    """Images (N x 3 x size x size, uint8), labels (N, int64), names of the classes, SHA-256 of all three.

    In memory the channels come last, which makes gathering and convolving fastest.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    skipped: int = 0  # files that were left out
    groups: NDArray[np.int64] | None = None  # of near-duplicates, which a split keeps together; None: each alone
    names: tuple[str, ...] = ()  # of a folder's files
    validation: NDArray[np.bool_] | None = None  # mask of a folder's own images to validate on; None: it has none

    def to(self, device: torch.device) -> Dataset:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.images.shape[-1]

    def digests(self) -> Iterator[bytes]:
        """SHA-256 of each image's pixels: exact copies have equal ones."""
        for image in self.images.permute(0, 2, 3, 1).numpy():
            yield hashlib.sha256(image.tobytes()).digest()


@dataclass(frozen=True)
class Splits:
    """Indices of the images to train on and to validate on, and a fingerprint of the choice."""

    train: Tensor
    val: Tensor
    fingerprint: str

    def to(self, device: torch.device) -> Splits:
        return replace(self, train=self.train.to(device), val=self.val.to(device))

    def all_trained_on(self) -> Splits:
        """Splits of which no image is held out; a tenth of the validation images still shows whether it learns."""
        everything = torch.cat([self.train, self.val]).sort().values
        return Splits(everything, self.val[::10], f"{self.fingerprint}, all trained on")


def default_data(asked: str | None = None) -> str:
    """The data that the command line names, else the environment, else CIFAR-10."""
    return asked or os.environ.get(environment.DATA) or "cifar10"


def check(data: str, size: int = SIZE) -> None:
    """RequestError where `data` is not there or not laid out as it must be; nothing is decoded or written."""
    try:
        sources.parse(data, places.cache() / "download", size).key("train")
    except OSError as error:
        raise RequestError(f"data {data!r} cannot be read: {error}") from None


@dataclass(frozen=True)
class PreparedImages:
    """Decoded training images that all trials of a search use: their fingerprint, and where they lie in the cache."""

    fingerprint: str
    cache_path: Path  # absolute, or below the directory of a machine's cache

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.cache_path}"

    @classmethod
    def parse(cls, text: str) -> PreparedImages:
        fingerprint, path = text.split(" ", 1)
        return cls(fingerprint, Path(path))

    def in_another_cache(self) -> PreparedImages:
        """The same images, as they lie in the cache of another machine."""
        return replace(self, cache_path=Path(*self.cache_path.parts[-2:]))

    def count_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.cache_path.iterdir())

    def environment(self, data: str) -> dict[str, str]:
        """In this environment trials find these images, even if somebody changes or removes a folder meanwhile."""
        return {environment.DATA: data, environment.PREPARED: str(self)}


def prepare(data: str, size: int = SIZE) -> PreparedImages:
    """Decode the training images of `data` for trials to come."""
    cached = _fetch(data, "train", size)
    return PreparedImages(cached.fingerprint, cached.cache_path)


def hold(data: str, size: int = SIZE) -> tuple[PreparedImages, BaseFileLock]:
    """prepare(), and a lock: while it is held the images stay, also when somebody reads the folder anew."""
    while True:
        images = prepare(data, size)
        lock = cache.hold(images.cache_path)
        if images.cache_path.is_dir():  # it was not dropped just before
            return images, lock
        locks.release([lock])


def load(data: str, size: int = SIZE) -> Dataset:
    """The training images of `data` with so many pixels a side, or those that a search has prepared.

    They are decoded and cached at the first call. RequestError where they cannot be had.
    """
    prepared = os.environ.get(environment.PREPARED)
    if prepared and data == os.environ.get(environment.DATA):
        images = PreparedImages.parse(prepared)
        cached = _fetch_prepared(data, size, images.fingerprint, places.cache() / images.cache_path)
        if (prepared_size := cached.decoded.images.shape[1]) != size:
            raise RequestError(
                f"this search's images have {prepared_size} pixels a side: a trial cannot have size {size}"
            )
        return _dataset(data, cached)
    return _dataset(data, _fetch(data, "train", size))


def load_test(data: str, size: int = SIZE) -> Dataset:
    """The test images, for a final verdict only: no trial of an experiment may call this."""
    return _dataset(data, _fetch(data, "test", size))


def load_test_folder(folder: str, size: int = SIZE) -> Dataset:
    """A folder's pictures as a further set of test images: those in its test/, else all of them."""
    if not is_directory(folder):
        raise RequestError(f"a further set of test images must be a folder of pictures, got {folder!r}: no such folder")
    return _dataset(folder, _fetch(folder, "test", size, FolderToTest(Path(folder), size)))


def _fetch_prepared(data: str, size: int, fingerprint: str, cache_path: Path) -> cache.Cached:
    if cached := cache.reopen(cache_path, fingerprint):
        return cached
    cached = _fetch(data, "train", size)
    if cached.fingerprint != fingerprint:
        raise RequestError(f"data {data!r} have changed since the search began: its trials would not compare")
    return cached


def _fetch(data: str, part: Part, size: int, source: Source | None = None) -> cache.Cached:
    try:
        source = source or sources.parse(data, places.cache() / "download", size)
        return cache.fetch(source, part)
    except OSError as error:
        place = places.cache()
        free = shutil.disk_usage(existing(place)).free / 2**20
        why = f"{error}; {free:,.0f} MB are free for the cache in {place}"
        raise RequestError(f"data {data!r} cannot be read or cached: {why}") from None


def _dataset(data: str, cached: cache.Cached) -> Dataset:
    decoded = cached.decoded
    if decoded.skipped and multiprocessing.parent_process() is None:  # else that one has said it
        _tell_of_left_out(data, decoded.skipped)
    images, labels = torch.from_numpy(decoded.images).permute(0, 3, 1, 2), torch.from_numpy(decoded.labels)
    facts = decoded.classes, cached.fingerprint, decoded.skipped, decoded.groups, decoded.names, decoded.validation
    return Dataset(data, images, labels, *facts)


@functools.cache
def _tell_of_left_out(data: str, files: int) -> None:
    """Once in a process, which may load the images several times."""
    number = "1 file is" if files == 1 else f"{files} files are"
    logger.warning("%s: %s left out; cifar data %s tells why", data, number, shlex.quote(data))


def split(dataset: Dataset) -> Splits:
    """The split into training and validation images, the same for every trial and restart: a folder's own, else a
    stratified one.
    """
    own = dataset.validation
    chosen = holdout.stratified_holdout(dataset.labels.numpy(), VAL_SHARE, dataset.groups) if own is None else own
    held_out = torch.from_numpy(chosen)
    val = held_out.nonzero().flatten()
    fingerprint = hashlib.sha256(dataset.fingerprint.encode() + val.numpy().tobytes()).hexdigest()
    return Splits((~held_out).nonzero().flatten(), val, fingerprint)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The chance in one epoch, the same in a trial that is continued as in one that was not interrupted."""
    # The generator keeps 32 bits of its seed; a prime spreads seeds and epochs over them.
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)


def normalise(images: Tensor) -> Tensor:
    """uint8 pixels as float32 from -1 to 1: ToTensor and Normalize(0.5, 0.5) in one."""
    return images.float().div_(127.5).sub_(1)


def batches(
    dataset: Dataset, index: Tensor, batch_size: int, gather: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and labels in the order of `index`; the last batch may be smaller.

    `gather` makes a copy of the pixels (N x height x width x 3) at an index, and may change it.
    """
    gather = gather or _copy
    chunk_size = max(1, _CHUNK // batch_size) * batch_size
    pixels = dataset.images.permute(0, 2, 3, 1)
    for chunk in index.split(chunk_size):
        images = normalise(gather(pixels, chunk)).permute(0, 3, 1, 2)
        yield from zip(images.split(batch_size), dataset.labels[chunk].split(batch_size), strict=True)


def _copy(pixels: Tensor, index: Tensor) -> Tensor:
    return pixels.index_select(0, index)  # whole images, 20 times as fast as pixels[index]
