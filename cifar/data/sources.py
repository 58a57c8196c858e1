"""Where images come from: CIFAR-10's archive, scikit-learn's digits, or a folder of pictures."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cifar.data import near_duplicates
from cifar.data.images import decode_files, to_pixels
from cifar.errors import RequestError
from cifar.system.files import is_directory

logger = logging.getLogger(__name__)

Part = Literal["train", "test"]

_DECODING = "2"  # raise this when the decoding changes: cached images are then decoded again
_FOLDER_DECODING = f"{_DECODING}, with groups"
TEST_SHARE = 0.2  # of each class, where a source has no test images of its own
_SPLIT_SEED = 0  # never a hyperparameter: every trial must see the same split


@dataclass(frozen=True)
class Decoded:
    """One part of a data set in memory: N x 32 x 32 x 3 uint8 RGB, N labels, and the names of the classes.

    `groups` are the numbers of N groups of near-duplicates, and `names` the files, of a folder; else there are none.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    skipped: int = 0  # files that were no readable images
    groups: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()


class Source(Protocol):
    """A data set that can be decoded, part by part."""

    name: str  # also the name of its cache directory

    def key(self, part: Part) -> str:
        """Changes whenever the files that `part` is decoded from do."""

    def decode(self, part: Part) -> Decoded:
        """All images of `part`; RequestError where the source is missing or unfit."""


def parse(data: str, download_directory: Path) -> Source:
    """The source that `--data` names; RequestError where it names none."""
    if data == "cifar10":
        return Cifar10(download_directory)
    if data == "digits":
        return Digits()
    if data and is_directory(data):
        return Folder(Path(data))
    raise RequestError(f"data must be cifar10, digits or a folder of pictures, got {data!r}: no such folder")


def absolute(data: str) -> str:
    """A name of these data that is right in every directory."""
    return data if data in ("cifar10", "digits") else str(Path(data).resolve())


def stratified_holdout(
    labels: NDArray[np.int64], share: float, groups: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Mask of the held-out items: `share` of each class, at least one, chosen the same way every time.

    Items of a group stay together, unless it is all that a class has.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    in_company = np.bincount(groups)[groups] > 1
    held_out, left = np.zeros(len(labels), dtype=np.bool_), Counter(dict(enumerate(np.bincount(labels).tolist())))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # RandomState, not Generator: numpy promises that its stream never changes.
        order = members[np.random.RandomState(_SPLIT_SEED).permutation(len(members))]
        wanted = max(1, round(share * len(members)))
        if not in_company.any():  # most data: each trial asks, and need not go through them one by one
            held_out[order[:wanted]] = True
            continue
        for item in order.tolist():
            if len(members) - left[label] >= wanted:
                break
            together = np.flatnonzero(groups == groups[item]) if in_company[item] else [item]
            taken = Counter(labels[together].tolist()) if in_company[item] else {label: 1}
            if not held_out[item] and all(number < left[one] for one, number in taken.items()):
                held_out[together] = True
                left.subtract(taken)
        if not held_out[members].any():
            held_out[order[0]] = True
    return held_out


class Cifar10:
    """The official archive through torchvision, downloaded once, its checksum verified."""

    name = "cifar10"
    classes = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def key(self, part: Part) -> str:
        return _DECODING  # the archive never changes

    def decode(self, part: Part) -> Decoded:
        from torchvision.datasets import CIFAR10  # slow to import, and needed only until the cache exists

        self.directory.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(60)  # a silent network must not hang a whole search
        try:
            archive = CIFAR10(str(self.directory), train=part == "train", download=True)
        except (URLError, OSError, RuntimeError) as error:
            raise RequestError(
                f"CIFAR-10 could not be downloaded ({error}); put {CIFAR10.filename} (md5 {CIFAR10.tgz_md5}) "
                f"into {self.directory}, or choose --data digits or --data FOLDER"
            ) from None
        finally:
            socket.setdefaulttimeout(None)
        return Decoded(archive.data, np.asarray(archive.targets, dtype=np.int64), self.classes)


class Digits:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, enlarged to 32 x 32 x 3: real images, no download."""

    name = "digits"

    def key(self, part: Part) -> str:
        return _DECODING

    def decode(self, part: Part) -> Decoded:
        from sklearn.datasets import load_digits  # takes a second, and is needed only until the cache exists

        digits = load_digits()
        labels = digits.target.astype(np.int64)
        chosen = stratified_holdout(labels, TEST_SHARE) == (part == "test")
        pixels = (digits.images[chosen] * (255 / 16)).round().astype(np.uint8)
        images = np.stack([to_pixels(Image.fromarray(image)) for image in pixels])
        return Decoded(images, labels[chosen], tuple(str(name) for name in digits.target_names))


class Folder:
    """Pictures in class folders: DIR/train/<class>/* with or without DIR/test/<class>/*, or DIR/<class>/*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        path_hash = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:8]
        self.name = f"folder-{re.sub(r'[^A-Za-z0-9_-]+', '-', self.directory.name)[:100]}-{path_hash}"

    def key(self, part: Part) -> str:
        listing = hashlib.sha256(_FOLDER_DECODING.encode())
        for name in self._classes():
            for entry in _visible_files(self._root(part) / name):
                stat = entry.stat()
                facts = (name, entry.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                listing.update(os.fsencode("\0".join(map(str, facts)) + "\0"))
        return listing.hexdigest()[:16]

    def decode(self, part: Part) -> Decoded:
        """The images of `part`; of a folder without test images, those in it that are held out for it or left over."""
        files, classes = self._files(part), self._classes()
        skipped = self._warn_of_strangers(part)
        decoded = _decode([path for path, _ in files], f"decoding {self.directory.name}/{part}")
        readable = [file for file, image in zip(files, decoded, strict=True) if image is not None]
        labels = np.asarray([label for _, label in readable], dtype=np.int64)
        if part == "train":
            self._refuse_small_classes(labels)
        if not readable:
            raise RequestError(f"{self._root(part)} has no readable {part} images")
        images = np.stack([image for image in decoded if image is not None])
        groups = near_duplicates.groups(torch.from_numpy(images).permute(0, 3, 1, 2))
        chosen = np.flatnonzero(self._chosen(part, labels, groups))
        if part == "train":
            self._refuse_small_classes(labels[chosen])
        names = tuple(str(readable[number][0].relative_to(self.directory)) for number in chosen)
        skipped += len(files) - len(readable)
        return Decoded(images[chosen], labels[chosen], classes, skipped, groups[chosen], names)

    def _warn_of_strangers(self, part: Part) -> int:
        """Name the entries of class folders that are no files: folders, links to nowhere. Returns their number."""
        strangers = [
            entry.path for name in self._classes() for entry in _visible(self._root(part) / name) if not _is_file(entry)
        ]
        for path in strangers:
            logger.warning("skipped, not a file: %s", path)
        return len(strangers)

    def _refuse_small_classes(self, labels: NDArray[np.int64]) -> None:
        classes = self._classes()
        for name, count in zip(classes, np.bincount(labels, minlength=len(classes)), strict=True):
            if count < 2:
                raise RequestError(
                    f"class {name!r} in {self.directory} has {count} readable training images; "
                    "at least 2 are needed, one to train on and one to validate on"
                )

    def _root(self, part: Part) -> Path:
        if (self.directory / "train").is_dir():
            return self.directory / (part if (self.directory / "test").is_dir() else "train")
        return self.directory

    def _classes(self) -> tuple[str, ...]:
        classes = _class_folders(self._root("train"))
        if len(classes) < 2:
            raise RequestError(
                f"{self._root('train')} must hold at least 2 class folders, has {len(classes)}: {list(classes)}"
            )
        unknown = set(_class_folders(self._root("test"))) - set(classes)
        if unknown:
            raise RequestError(f"{self._root('test')} has classes that train/ lacks: {sorted(unknown)}")
        if not any(_visible_files(self._root("test") / name) for name in classes):
            raise RequestError(f"{self._root('test')} has no files in its class folders")  # said before training
        return classes

    def files(self) -> list[Path]:
        """All pictures of both parts."""
        parts: tuple[Part, ...] = ("train",) if self._is_one_part() else ("train", "test")
        return [path for part in parts for path, _ in self._files(part)]

    def _files(self, part: Part) -> list[tuple[Path, int]]:
        """(path, label) of each picture in the folders of `part`, in a fixed order."""
        return [
            (Path(entry.path), label)
            for label, name in enumerate(self._classes())
            for entry in _visible_files(self._root(part) / name)
        ]

    def _is_one_part(self) -> bool:
        return self._root("train") == self._root("test")

    def _chosen(self, part: Part, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask of the pictures in its folders that belong to `part`."""
        if not self._is_one_part():
            return np.ones_like(labels, dtype=np.bool_)
        held_out = stratified_holdout(labels, TEST_SHARE, groups)
        return held_out if part == "test" else ~held_out


class FolderToTest(Folder):
    """A folder to test on alone: the pictures of DIR/test, else all in the class folders."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.name += "-all"

    def _chosen(self, part: Part, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.ones_like(labels, dtype=np.bool_)


def _class_folders(root: Path) -> tuple[str, ...]:
    return tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    if not is_directory(folder):
        return []
    return sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)


def _visible_files(folder: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in _visible(folder) if _is_file(entry)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _decode(paths: list[Path], title: str) -> list[NDArray[np.uint8] | None]:
    """Pixels of each file, None for files that are no readable images; these are named."""
    decoded = list(tqdm(decode_files(paths), title, len(paths), disable=None, unit=" images"))
    for file in decoded:
        if file.error and isinstance(file.error, OSError) and file.error.errno is not None:
            raise file.error  # the disk's or the system's, not the file's: caching without it would make it last
        if file.error:
            logger.warning("skipped, not a readable image: %s (%s)", file.path, file.error)
    broken = sum(file.error is not None for file in decoded)
    if broken:
        logger.warning("skipped %d of %d files", broken, len(paths))
    return [file.pixels for file in decoded]
