"""Parts of a data set by the names that people give them."""

from __future__ import annotations

import re
from typing import Literal

Share = Literal["train", "val", "test"]

_SHARES: dict[str, Share] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "tests", "testing"), "test"),
}  # fmt: skip
_BESIDE_SHARES = {"set", "images", "imgs", "data", "split", "seg"}  # as in training_set


def share_of(name: str) -> Share | None:
    """Which part a folder of this name holds: train, Training_Set, val2017, seg_test."""
    words = {word for word in re.split(r"[^a-z]+", name.casefold()) if word} - _BESIDE_SHARES
    return _SHARES.get(words.pop()) if len(words) == 1 else None
