"""The real download code, against a local server that has the official archive's format in miniature."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from cifar.data import datasets
from cifar.errors import RequestError

PER_BATCH = 20
ARCHIVE = "cifar-10-python.tar.gz"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def batch(seed: int) -> dict[str, object]:
    pixels = np.random.RandomState(seed).randint(0, 256, (PER_BATCH, 3072), dtype=np.uint8)
    return {"data": pixels, "labels": [number % 10 for number in range(PER_BATCH)]}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive in miniature, and torchvision told its checksums."""
    folder = tmp_path / "made" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        (folder / name).write_bytes(pickle.dumps(batch(seed)))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "automobile"]}))
    path = tmp_path / "made" / ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(path))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(folder / name)] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    return path


@pytest.fixture
def requests(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server for the archive; the list fills with what is asked of it."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.command)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(archive.parent)))
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{ARCHIVE}")
    yield asked
    server.shutdown()
    server.server_close()


def test_the_archive_is_downloaded_once_and_decoded(requests: list[str]) -> None:
    train = datasets.load("cifar10")
    asked_once = len(requests)
    test = datasets.load_test("cifar10")
    assert len(requests) == asked_once > 0
    assert (len(train.labels), len(test.labels)) == (5 * PER_BATCH, PER_BATCH)
    assert train.classes == ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    first = np.asarray(batch(0)["data"]).reshape(PER_BATCH, 3, 32, 32)
    assert np.array_equal(train.images[:PER_BATCH].numpy(), first)


def test_a_wrong_checksum_is_refused(requests: list[str], archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(RequestError, match=r"could not be downloaded \(File not found or corrupted.\)"):
        datasets.load("cifar10")


def test_an_interrupted_download_is_done_again(requests: list[str], archive: Path, tmp_path: Path) -> None:
    partial_file = tmp_path / "cache" / "download" / ARCHIVE
    partial_file.parent.mkdir(parents=True)
    partial_file.write_bytes(archive.read_bytes()[:100])
    assert len(datasets.load("cifar10").labels) == 5 * PER_BATCH


def test_a_download_that_the_server_breaks_off_is_refused_and_done_again(
    requests: list[str], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SimpleHTTPRequestHandler, "copyfile", lambda _, file, to: to.write(file.read(1000)))
        with pytest.raises(RequestError, match="could not be downloaded"):
            datasets.load("cifar10")
        assert (tmp_path / "cache" / "download" / ARCHIVE).stat().st_size == 1000
    assert len(datasets.load("cifar10").labels) == 5 * PER_BATCH


def test_without_a_network_one_sentence_says_what_to_do(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nothing-listens-here")
    with pytest.raises(RequestError) as refusal:
        datasets.load("cifar10")
    message = str(refusal.value)
    assert f"put {ARCHIVE} (md5 {CIFAR10.tgz_md5}) into {tmp_path}/cache/download" in message
    assert "--data digits or --data FOLDER" in message
    (tmp_path / "cache" / "download" / ARCHIVE).write_bytes(archive.read_bytes())
    assert len(datasets.load("cifar10").labels) == 5 * PER_BATCH
