"""Pictures that show the same: exact copies, and one shot recoloured, cropped, moved a little or compressed again.

On both sides of a split they make an accuracy flatter. Pixels are compared, first coarsely, then finely where two are
coarsely alike; no network is asked. The thresholds were chosen by CIFAR-10's known pairs (results/near_duplicates.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cifar.data.sizes import SIZE

_COARSE = 8  # pixels a side
_COARSE_ALIKE = 0.7  # correlation from where two pictures are compared finely
_NEAREST = 8  # pictures that each is compared with
_SHIFT = 3  # pixels by which a copy may be moved, each way
# Width of the blur that a picture is compared without, and of the one that it is compared through -> correlation.
_FINE_ALIKE = {(7, 1): 0.75, (11, 3): 0.85}
_CHUNK, _FINE_CHUNK = 1024, 4096
_FLAT = 1e-6  # the variance of a picture without details
LARGEST_GROUP = 30  # pictures: more that hang together are drawings, digits for instance, that all look alike


@dataclass(frozen=True)
class Across:
    """Near-duplicates between two sets of images: pairs of their numbers, and how many of the first set hang together
    with more than are likely to show the same.
    """

    pairs: NDArray[np.int64]
    crowded: int


def across(images: Tensor, others: Tensor) -> Across:
    """What two sets of images (N x 3 x size x size, uint8) have in common."""
    images, others = _small(images), _small(others)
    found = _pairs(images, others, _coarse(images, others))
    numbers = _components(found + np.array([0, len(images)]), len(images) + len(others))
    likely = np.bincount(numbers)[numbers[found[:, 0]]] <= LARGEST_GROUP
    return Across(found[likely], len(np.unique(found[~likely, 0])))


def groups(images: Tensor) -> NDArray[np.int64]:
    """The number of the group of near-duplicates that each image is in; most are alone in theirs."""
    small = _small(images)
    found = _pairs(small, small, _coarse(small, None))
    sizes = np.bincount(numbers := _components(found, len(images)))
    likely = sizes[numbers[found[:, 0]]] <= LARGEST_GROUP
    return _components(np.concatenate([found[likely], _exact(images)]), len(images))


def _small(images: Tensor) -> Tensor:
    """With 32 pixels a side, for which the thresholds were chosen."""
    factor = images.shape[-1] // SIZE
    return images if factor == 1 else F.avg_pool2d(images.float(), factor).round().to(torch.uint8)


def _components(found: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The number of the group that each of so many pictures is in, by pairs that belong together."""
    from scipy.sparse import coo_array  # half a second that trials need not spend
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(found)), (found[:, 0], found[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _exact(images: Tensor) -> NDArray[np.int64]:
    """Each image with the first one that has the same pixels."""
    flat = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()).reshape(len(images), -1)
    digests = [hashlib.sha256(pixels.tobytes()).digest() for pixels in flat]
    first = {digest: number for number, digest in reversed([*enumerate(digests)])}
    return np.array([[number, first[digest]] for number, digest in enumerate(digests)], dtype=np.int64)


def _pairs(images: Tensor, others: Tensor, candidates: Tensor) -> NDArray[np.int64]:
    return torch.cat([_fine(images, others, some) for some in candidates.split(_FINE_CHUNK)]).numpy()


def _coarse(images: Tensor, others: Tensor | None) -> Tensor:
    """Pairs that are worth a finer look: of each image the few most similar, among themselves without others."""
    features = _features(images)
    of_others = features if others is None else _features(others)
    candidates = []
    for start in tqdm(range(0, len(images), _CHUNK), "comparing pictures", leave=False, disable=None):
        alike = features[start : start + _CHUNK] @ of_others.T
        rows = torch.arange(len(alike))
        if others is None:
            alike[rows, rows + start] = -1.0
        best = alike.topk(min(_NEAREST, len(of_others)), dim=1)
        row, column = (best.values >= _COARSE_ALIKE).nonzero(as_tuple=True)
        candidates.append(torch.stack([row + start, best.indices[row, column]], dim=1))
    return torch.cat(candidates)


def _features(images: Tensor) -> Tensor:
    """Small pictures without their mean colour, of length 1."""
    small = [F.adaptive_avg_pool2d(some.float(), _COARSE).flatten(2) for some in images.split(_CHUNK)]
    features = torch.cat(small)
    return F.normalize((features - features.mean(2, keepdim=True)).flatten(1))


def _fine(images: Tensor, others: Tensor, candidates: Tensor) -> Tensor:
    """Those of the pairs whose details are alike, one moved a little over the other."""
    near = torch.ones(len(candidates), dtype=torch.bool)
    for (without, through), least in _FINE_ALIKE.items():
        first = _details(images[candidates[:, 0]], without, through)
        second = _details(others[candidates[:, 1]], without, through)
        near &= _most_alike(first, second) >= least
    return candidates[near]


def _details(images: Tensor, without: int, through: int) -> Tensor:
    grey = images.float().mean(1, keepdim=True)
    return (_blurred(grey, through) - _blurred(grey, without))[:, 0]


def _blurred(images: Tensor, width: int) -> Tensor:
    padded = F.pad(images, (width // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, width, stride=1)


def _most_alike(first: Tensor, second: Tensor) -> Tensor:
    """The highest correlation of the middle of each first picture with a window of the second."""
    side = first.shape[-1] - 2 * _SHIFT
    middle = first[:, _SHIFT : _SHIFT + side, _SHIFT : _SHIFT + side]
    middle = middle - middle.mean((1, 2), keepdim=True)
    spectrum = torch.fft.rfft2(second) * torch.fft.rfft2(middle, s=second.shape[-2:]).conj()
    products = torch.fft.irfft2(spectrum, s=second.shape[-2:])[:, : 2 * _SHIFT + 1, : 2 * _SHIFT + 1]
    mean, square = (F.avg_pool2d(some[:, None], side, stride=1)[:, 0] for some in (second, second**2))
    of_windows = (square - mean**2).clamp(min=_FLAT).sqrt() * side
    of_middles = middle.flatten(1).norm(dim=1).clamp(min=_FLAT)
    correlations: Tensor = products / of_windows / of_middles[:, None, None]
    return correlations.amax((1, 2))
