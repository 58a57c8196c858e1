"""What every source of images gives: pixels and labels in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "test"]

DECODING = "2"  # raise this when the decoding changes: cached images are then decoded again


@dataclass(frozen=True)
class Decoded:
    """One part of a data set in memory: N x size x size x 3 uint8 RGB, N labels, and the names of the classes.

    Of a folder there are `groups`, the numbers of N groups of near-duplicates, and `names`, the files; `validation` is
    a mask of its own validation images, None where it has none. Of other sources there are none of these.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    skipped: int = 0  # files that were left out
    groups: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    validation: NDArray[np.bool_] | None = None


class Source(Protocol):
    """A data set that can be decoded, part by part."""

    name: str  # also the name of its cache directory

    def key(self, part: Part) -> str:
        """Changes whenever the files that `part` is decoded from do."""

    def decode(self, part: Part) -> Decoded:
        """All images of `part`; RequestError where the source is missing or unfit."""
