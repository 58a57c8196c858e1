from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeFolder

from cifar.data import cache, datasets
from cifar.data.decoded import Decoded, Part
from cifar.errors import RequestError
from cifar.system import locks, places


class CountingSource:
    """A source that notes each decoding in a file, and takes its time."""

    name = "counting"

    def __init__(self, log: Path, key: str = "1") -> None:
        self.log = log
        self._key = key

    def key(self, part: Part) -> str:
        return self._key

    def decode(self, part: Part) -> Decoded:
        with self.log.open("a") as log:
            log.write(f"{part}\n")
        time.sleep(0.2)
        images = np.random.RandomState(0).randint(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        return Decoded(images, np.arange(20, dtype=np.int64) % 2, ("a", "b"), groups=np.arange(20))

    def decodings(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountingSource:
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    return CountingSource(tmp_path / "log")


def cache_path() -> Path:
    return places.cache() / "counting" / "train-1"


def test_images_are_decoded_once_and_mapped_from_then_on(source: CountingSource) -> None:
    first, second = cache.fetch(source, "train"), cache.fetch(source, "train")
    assert source.decodings() == 1
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(second.decoded.images, source.decode("train").images)
    assert str(cache_path() / "images.npy") in Path("/proc/self/maps").read_text()


def _fetch(source: CountingSource) -> str:
    return cache.fetch(source, "train").fingerprint


def test_processes_that_ask_at_once_decode_once(source: CountingSource) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        fingerprints = set(pool.map(_fetch, [source] * 4, chunksize=1))
    assert len(fingerprints) == 1
    assert source.decodings() == 1


def _fetch_and_die(source: CountingSource) -> None:
    source.decode = lambda part: os._exit(9)  # type: ignore[method-assign]
    cache.fetch(source, "train")


def test_a_process_that_dies_while_decoding_leaves_neither_lock_nor_entry(source: CountingSource) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_fetch_and_die, args=(source,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not cache_path().exists()
    assert len(cache.fetch(source, "train").decoded.labels) == 20


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "groups.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["flip a bit", "truncate", "empty", "remove"])
def test_a_damaged_cache_is_never_used(
    source: CountingSource, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = cache.fetch(source, "train").fingerprint
    path = cache_path() / file
    content = bytearray(path.read_bytes())
    if damage == "flip a bit":
        content[-4] ^= 1
    path.write_bytes({"flip a bit": content, "truncate": content[: len(content) // 2]}.get(damage, b""))
    if damage == "remove":
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert cache.fetch(source, "train").fingerprint == whole
    assert source.decodings() == 2
    assert f"cache {cache_path()} is damaged" in caplog.text


def test_a_changed_source_is_decoded_again_and_the_old_images_dropped(source: CountingSource) -> None:
    cache.fetch(source, "train")
    cache.fetch(source, "test")
    cache.fetch(CountingSource(source.log, key="2"), "train")
    names = {path.name for path in (places.cache() / "counting").iterdir() if path.is_dir()}
    assert names == {"train-2", "test-1"}


def test_a_changed_folder_changes_the_fingerprint(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    folder = make_folder({"train/cat": 4, "train/dog": 4, "test/cat": 1, "test/dog": 1})
    before = datasets.load(str(folder))
    (folder / "train/cat/000.png").write_bytes((folder / "train/dog/000.png").read_bytes())
    after = datasets.load(str(folder))
    assert before.fingerprint != after.fingerprint
    assert datasets.split(before).fingerprint != datasets.split(after).fingerprint
    assert before.images[0].ne(after.images[0]).any()  # what was mapped stays as it was


def test_an_unwritable_cache_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_CACHE", "/proc/nowhere")
    with pytest.raises(RequestError, match=r"data 'digits' cannot be read or cached: .*/proc/nowhere"):
        datasets.load("digits")


def test_images_that_somebody_holds_stay_when_their_source_is_read_anew(source: CountingSource) -> None:
    held = cache.hold(cache.fetch(source, "train").cache_path)
    cache.fetch(CountingSource(source.log, key="2"), "train")
    assert cache_path().is_dir()
    locks.release([held])
    cache.fetch(CountingSource(source.log, key="3"), "train")
    assert not cache_path().exists()


def test_a_search_keeps_its_images_though_another_command_reads_the_changed_folder(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    folder = make_folder({"train/cat": 4, "train/dog": 4, "test/cat": 1, "test/dog": 1})
    images, held = datasets.hold(str(folder))
    (folder / "train/cat/more.png").write_bytes((folder / "train/dog/000.png").read_bytes())
    assert len(datasets.load(str(folder)).labels) == 9  # as `cifar data` would
    for name, value in images.environment(str(folder)).items():
        monkeypatch.setenv(name, value)
    assert len(datasets.load(str(folder)).labels) == 8  # as the next trial does
    locks.release([held])
