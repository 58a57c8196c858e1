"""Test images that the training images give away: exact copies of them, and pictures that nearly equal them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cifar.data import near_duplicates
from cifar.data.datasets import Dataset
from cifar.data.near_duplicates import Across
from cifar.errors import RequestError
from cifar.system import places
from cifar.system.files import read_json, write_json

_NAMED = 3  # images per finding
_COMPARING = "2"  # raise this when near_duplicates finds others: known comparisons are then made again


def leaks(train: Dataset, test: Dataset) -> Iterator[str]:
    """A sentence for either kind, none where there are none. All digits look alike."""
    pairs = _exact(train, test)
    if len(pairs):
        yield (
            f"{len(pairs)} of the {len(test.labels)} test pictures are among the {_others(train)} too, so the test "
            f"accuracy flatters: {_some(train, test, pairs)}"
        )
    if train.name == "digits":
        return
    found = _near(train, test)
    near = found.pairs[~np.isin(found.pairs[:, 0], pairs[:, 0])]
    if len(near):
        number, first = np.unique(near[:, 0], return_index=True)
        known = "; ciFAIR (Barz and Denzler, 2020) names 286 of CIFAR-10's" if test.name == "cifar10" else ""
        yield (
            f"{len(number)} of the {len(test.labels)} test pictures nearly equal {_others(train)}"
            f"{crowd(found.crowded)}, so the test accuracy flatters{known}: {_some(train, test, near[first])}"
        )


def crowd(images: int) -> str:
    """Of pictures that were not taken for near-duplicates, since too many are alike; "" where there are none."""
    largest = near_duplicates.LARGEST_GROUP
    return f" ({images} more are like more than {largest}, as drawings are, or a film's frames)" if images else ""


def _others(train: Dataset) -> str:
    """On which the last networks train: own pictures to validate on are among them."""
    return "training pictures" if train.validation is None else "pictures to train and validate on"


def _exact(train: Dataset, test: Dataset) -> NDArray[np.int64]:
    """Pairs of numbers of a test image and the first training image with its pixels."""
    first = {digest: number for number, digest in reversed([*enumerate(train.digests())])}
    pairs = [[number, first[digest]] for number, digest in enumerate(test.digests()) if digest in first]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _near(train: Dataset, test: Dataset) -> Across:
    """Likewise of near-duplicates; kept, since comparing tens of thousands of pictures takes half a minute."""
    directory = places.cache() / "compared"
    path = directory / f"{_COMPARING}-{train.fingerprint[:20]}-{test.fingerprint[:20]}.json"
    with contextlib.suppress(RequestError, KeyError, TypeError, ValueError):  # damaged: it is compared again
        if known := read_json(path):
            return Across(np.array(known["pairs"], dtype=np.int64).reshape(-1, 2), int(known["crowded"]))
    found = near_duplicates.across(test.images, train.images)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, {"pairs": found.pairs.tolist(), "crowded": found.crowded})
    return found


def _some(train: Dataset, test: Dataset, pairs: NDArray[np.int64]) -> str:
    named = [f"{_name('test', test, a)} = {_name('train', train, b)}" for a, b in pairs[:_NAMED].tolist()]
    return ", ".join(named) + (" ..." if len(pairs) > _NAMED else "")


def _name(part: str, dataset: Dataset, number: int) -> str:
    names: Sequence[str] = dataset.names
    return names[number] if names else f"{part} picture {number}"
