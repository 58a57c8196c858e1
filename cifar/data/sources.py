"""Where images come from: CIFAR-10's archive, scikit-learn's digits, or a folder of pictures."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
from PIL import Image

from cifar.data.decoded import DECODING, Decoded, Part, Source
from cifar.data.folder import Folder
from cifar.data.folder_advice import ARCHIVES
from cifar.data.holdout import TEST_SHARE, stratified_holdout
from cifar.data.images import to_pixels
from cifar.data.sizes import SIZE
from cifar.errors import RequestError
from cifar.system.files import is_directory


def parse(data: str, download_directory: Path, size: int = SIZE) -> Source:
    """The source that `--data` names, in images of so many pixels a side; RequestError where it names none."""
    if data and (folder := folder_of(data, size)):
        return folder
    if data in ("cifar10", "digits") and size != SIZE:
        raise RequestError(f"--size {size} needs a folder of pictures: the images of {data} have {SIZE} pixels a side")
    if data == "cifar10":
        return Cifar10(download_directory)
    if data == "digits":
        return Digits()
    if Path(data).is_file() and Path(data).suffix.lower() in ARCHIVES:
        raise RequestError(f"{data} is an archive: unpack it, and name the folder")
    raise RequestError(f"data must be cifar10, digits or a folder of pictures, got {data!r}: no such folder")


def folder_of(data: str, size: int = SIZE) -> Folder | None:
    """The folder of pictures that `--data` names; None where it names something else."""
    return Folder(Path(data), size) if data not in ("cifar10", "digits") and is_directory(data) else None


def absolute(data: str) -> str:
    """A name of these data that is right in every directory."""
    return data if data in ("cifar10", "digits") else str(Path(data).resolve())


class Cifar10:
    """The official archive through torchvision, downloaded once, its checksum verified."""

    name = "cifar10"
    classes = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def key(self, part: Part) -> str:
        return DECODING  # the archive never changes

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
        return DECODING

    def decode(self, part: Part) -> Decoded:
        from sklearn.datasets import load_digits  # takes a second, and is needed only until the cache exists

        digits = load_digits()
        labels = digits.target.astype(np.int64)
        chosen = stratified_holdout(labels, TEST_SHARE) == (part == "test")
        pixels = (digits.images[chosen] * (255 / 16)).round().astype(np.uint8)
        images = np.stack([to_pixels(Image.fromarray(image)) for image in pixels])
        return Decoded(images, labels[chosen], tuple(str(name) for name in digits.target_names))
