"""A folder of pictures as a source of images."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cifar.data import folder_layout, near_duplicates
from cifar.data.decoded import DECODING, Decoded, Part
from cifar.data.folder_layout import Layout, LeftOut, Picture
from cifar.data.holdout import TEST_SHARE, stratified_holdout
from cifar.data.images import DecodedFile, decode_files, reads_heic
from cifar.data.sizes import SIZE
from cifar.errors import RequestError
from cifar.system.files import is_directory

logger = logging.getLogger(__name__)

_NAMED = 3  # files of a reason
_READING = f"{DECODING}, with groups, validation images and deep colours"


class Folder:
    """The pictures of a folder as folder_layout reads it.

    Without pictures to test on, a share of each class is held out; with pictures to validate on, they are among the
    training images, and marked.
    """

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        self.directory, self.size = directory.resolve(), size
        path_hash = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:8]
        self.name = f"folder-{re.sub(r'[^A-Za-z0-9_-]+', '-', self.directory.name)[:100]}-{path_hash}"
        self.name += f"-{size}" if size != SIZE else ""

    @cached_property
    def layout(self) -> Layout:
        return folder_layout.read(self.directory)

    def key(self, part: Part) -> str:
        listing = hashlib.sha256(f"{_READING}, {self.size}, {reads_heic()}, {self._unused(part)}".encode())
        for picture in self.pictures(part):
            stat = picture.path.stat()
            facts = (
                self.layout.classes[picture.label], picture.share, self._name(picture), stat.st_size, stat.st_mtime_ns,
                stat.st_ctime_ns,
            )  # fmt: skip
            listing.update(os.fsencode("\0".join(map(str, facts)) + "\0"))
        return listing.hexdigest()[:16]

    def pictures(self, part: Part) -> list[Picture]:
        """Those among which the pictures of `part` are."""
        if part == "test" and not self._holds_out_tests:
            return self.layout.of("test")
        return self.layout.of("train", "val")

    @property
    def _holds_out_tests(self) -> bool:
        return "test" not in self.layout.shares

    def decode(self, part: Part) -> Decoded:
        """The images of `part`; of a folder without test images, those in it that are held out for it or left over."""
        files, classes = self.pictures(part), self.layout.classes
        found = _decode([file.path for file in files], self.size, f"decoding {self.directory.name}/{part}")
        known = part == "test" and self._holds_out_tests  # they are counted among those to train on
        if not known:
            _warn_of_broken(found)
        decoded = [file.pixels for file in found]
        readable = [file for file, image in zip(files, decoded, strict=True) if image is not None]
        labels = np.asarray([file.label for file in readable], dtype=np.int64)
        to_validate = np.asarray([file.share == "val" for file in readable], dtype=np.bool_)
        if not readable or (not to_validate.any() and "val" in (file.share for file in files)):
            why = next((str(file.error) for file in found if file.error), "there are none")
            raise RequestError(f"{self.directory} has no readable {'val' if readable else part} images: {why}")
        if part == "train":
            self._refuse_small_classes(labels, to_validate, ["test"] if self._holds_out_tests else [])
        images = np.stack([image for image in decoded if image is not None])
        groups = self._groups(images, readable)
        chosen = np.flatnonzero(self._chosen(part, labels, groups, to_validate))
        if part == "train":
            self._refuse_small_classes(labels[chosen], to_validate[chosen])
        names = tuple(self._name(readable[number]) for number in chosen)
        skipped = 0 if known else len(files) - len(readable) + self._unused(part)
        return Decoded(
            images[chosen], labels[chosen], classes, skipped, groups[chosen], names,
            to_validate[chosen] if to_validate.any() else None,
        )  # fmt: skip

    def _unused(self, part: Part) -> int:
        return sum(some.files for some in self.layout.left_out) if part == "train" else 0

    def _groups(self, images: NDArray[np.uint8], files: Sequence[Picture]) -> NDArray[np.int64]:
        """Of near-duplicates, by the smallest size: so the same pictures are held out in every size."""
        if self.size != SIZE:
            small = _decode([file.path for file in files], SIZE, f"comparing {self.directory.name}")
            images = np.stack([file.pixels for file in small if file.pixels is not None])
        return near_duplicates.groups(torch.from_numpy(images).permute(0, 3, 1, 2))

    def _name(self, picture: Picture) -> str:
        return str(picture.path.relative_to(self.directory))

    def why_left_out(self) -> list[str]:
        """A sentence for each reason and folder."""
        together = defaultdict[tuple[str, Path], list[LeftOut]](list)
        for some in self.layout.left_out:
            folder = some.path if is_directory(some.path) and not some.path.is_symlink() else some.path.parent
            together[some.reason, folder].append(some)
        return [self._sentence(reason, folder, some) for (reason, folder), some in together.items()]

    def _sentence(self, reason: str, folder: Path, left_out: Sequence[LeftOut]) -> str:
        number = sum(some.files for some in left_out)
        place = folder.relative_to(self.directory)
        if len(left_out) == 1 and number <= 1:
            return f"left out, {reason}: {left_out[0].path.relative_to(self.directory)}"
        return f"left out, {reason}: {number} files in {place if str(place) != '.' else 'the folder itself'}"

    def _refuse_small_classes(
        self, labels: NDArray[np.int64], to_validate: NDArray[np.bool_], further_uses: Sequence[str] = ()
    ) -> None:
        """Name all classes that have too few: one to train on, without others one to validate on, and further ones."""
        uses = ["train", *([] if to_validate.any() else ["validate"]), *further_uses]
        counts = np.bincount(labels[~to_validate], minlength=len(self.layout.classes))
        few = [
            f"{name!r} has {count}"
            for name, count in zip(self.layout.classes, counts, strict=True)
            if count < len(uses)
        ]
        if few:
            needed = ", ".join(f"one to {use} on" for use in uses)
            raise RequestError(
                f"classes in {self.directory} have too few readable training images: {', '.join(few)}; "
                f"at least {len(uses)} are needed in each, {needed}"
            )

    def _chosen(
        self, part: Part, labels: NDArray[np.int64], groups: NDArray[np.int64], to_validate: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Mask of the pictures that belong to `part`; a test picture is never one of the folder's to validate on."""
        everything = np.ones_like(labels, dtype=np.bool_)
        if not self._holds_out_tests:
            return everything
        held_out = np.zeros_like(everything)
        held_out[~to_validate] = stratified_holdout(labels[~to_validate], TEST_SHARE, groups[~to_validate])
        return held_out if part == "test" else ~held_out


class FolderToTest(Folder):
    """A folder to test on alone: its pictures to test on, else all that it has."""

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        super().__init__(directory, size)
        self.name += "-all"

    @cached_property
    def layout(self) -> Layout:
        return folder_layout.read(self.directory, to_test=True)

    def _chosen(
        self, part: Part, labels: NDArray[np.int64], groups: NDArray[np.int64], to_validate: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        return np.ones_like(labels, dtype=np.bool_)


def _decode(paths: list[Path], size: int, title: str) -> list[DecodedFile]:
    decoded = list(tqdm(decode_files(paths, size), title, len(paths), disable=None, unit=" images"))
    for file in decoded:
        if file.error and isinstance(file.error, OSError) and file.error.errno is not None:
            raise file.error  # the disk's or the system's, not the file's: caching without it would make it last
    return decoded


def _warn_of_broken(files: Sequence[DecodedFile]) -> None:
    """A line for each reason: a telephone's hundreds of pictures may lack the same package."""
    by_reason = defaultdict[str, list[Path]](list)
    for file in files:
        if file.error:
            by_reason[str(file.error)].append(file.path)
    for reason, paths in by_reason.items():
        named = ", ".join(map(str, paths[:_NAMED])) + (" ..." if len(paths) > _NAMED else "")
        logger.warning("skipped %d of %d files, no readable images: %s (%s)", len(paths), len(files), named, reason)
