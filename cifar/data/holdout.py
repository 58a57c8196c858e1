"""Which items are held out of training: the same ones every time, a share of each class."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.2  # of each class, where a source has no test images of its own
_SPLIT_SEED = 0  # never a hyperparameter: every trial must see the same split


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
