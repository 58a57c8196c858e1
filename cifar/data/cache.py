"""Decoded images on disk, kept so that every trial maps the same pages and none decodes twice.

One directory per source and part, `<cache>/<source>/<part>-<key>/`, holds images.npy, labels.npy and meta.json,
of a folder groups.npy too, and validation.npy where it has its own validation images.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock
from numpy.typing import NDArray

from cifar.data.decoded import Decoded, Part, Source
from cifar.system import locks, places
from cifar.system.files import new_directory, write_json

logger = logging.getLogger(__name__)


class _Damaged(Exception):
    pass


@dataclass(frozen=True)
class Cached:
    """A part mapped from disk, the SHA-256 of its pixels, labels and class names, and where it lies."""

    decoded: Decoded
    fingerprint: str
    cache_path: Path


def fetch(source: Source, part: Part) -> Cached:
    """Map `part` of `source`, decoding it first where no whole and current copy exists.

    Processes that ask at once wait for the one that decodes.
    """
    home = places.cache() / source.name
    cache_path = home / f"{part}-{source.key(part)}"
    try:
        return _open(cache_path)
    except FileNotFoundError:
        pass
    except _Damaged as damage:
        logger.warning("cache %s is damaged (%s), decoding again", cache_path, damage)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "decoding.lock"):  # one for both parts: CIFAR-10's come out of one download
        try:
            return _open(cache_path)  # another process was faster
        except (FileNotFoundError, _Damaged):
            _store(cache_path, source.decode(part))
            _drop_outdated(cache_path, part)
            return _open(cache_path)


def reopen(cache_path: Path, fingerprint: str) -> Cached | None:
    """What was fetched from this place before, whatever has become of its source; None where it is not there now."""
    try:
        cached = _open(cache_path)
    except (FileNotFoundError, _Damaged):
        return None
    return cached if cached.fingerprint == fingerprint else None


def _store(cache_path: Path, decoded: Decoded) -> None:
    with new_directory(cache_path) as new:
        np.save(new / "images.npy", decoded.images)
        np.save(new / "labels.npy", decoded.labels)
        meta: dict[str, Any] = {"skipped": decoded.skipped, "classes": decoded.classes, "names": decoded.names}
        for name, array in (("groups", decoded.groups), ("validation", decoded.validation)):
            if array is not None:
                np.save(new / f"{name}.npy", array)
                meta[name] = _digest(array)
        write_json(new / "meta.json", {**meta, "fingerprint": _fingerprint(decoded)})


def hold(cache_path: Path) -> BaseFileLock:
    """Keep a part in the cache while the returned lock is held, whatever becomes of its source."""
    return locks.take_share(_share(cache_path))


def _share(cache_path: Path) -> str:
    """The name of these images in locks.py."""
    return f"images.{hashlib.sha256(bytes(cache_path)).hexdigest()[:16]}"


def _drop_outdated(cache_path: Path, part: Part) -> None:
    with locks.choosing():
        for sibling in cache_path.parent.glob(f"{part}-*"):
            if sibling != cache_path and not locks.count_shares(_share(sibling)):
                shutil.rmtree(sibling, ignore_errors=True)  # trials that have it mapped keep their pages


def _open(cache_path: Path) -> Cached:
    if not cache_path.is_dir():
        raise FileNotFoundError(cache_path)
    try:
        meta = json.loads((cache_path / "meta.json").read_bytes())
        images, labels = _map(cache_path / "images.npy"), _map(cache_path / "labels.npy")
        groups, validation = (_optional(cache_path, name, meta.get(name)) for name in ("groups", "validation"))
        names = tuple(meta.get("names", ()))
        decoded = Decoded(images, labels, tuple(meta["classes"]), int(meta["skipped"]), groups, names, validation)
        fingerprint = _fingerprint(decoded)
        if fingerprint != meta["fingerprint"]:
            raise _Damaged("its content does not match its fingerprint")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(error) from None
    return Cached(decoded, fingerprint, cache_path)


def _map(path: Path) -> NDArray[Any]:
    # Copy-on-write: all processes share the file's pages, and torch accepts the array as writable.
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def _optional(cache_path: Path, name: str, digest: str | None) -> NDArray[Any] | None:
    """An array that not every source has; `digest` is None where this one has none."""
    if digest is None:
        return None
    array = _map(cache_path / f"{name}.npy")
    if _digest(array) != digest:
        raise _Damaged(f"its {name} do not match their digest")
    return array


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _fingerprint(decoded: Decoded) -> str:
    digest = hashlib.sha256(json.dumps(decoded.classes).encode())
    arrays: tuple[NDArray[Any], ...] = (decoded.images, decoded.labels)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
