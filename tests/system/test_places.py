from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from cifar.errors import RequestError
from cifar.system import locks, places


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "CIFAR_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_claims_lie_in_a_folder_that_is_the_users_alone(tmp_path: Path) -> None:
    assert places.claims().parent == tmp_path / ".cache" / "cifar-nni"
    assert places.claims().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_claims_that_others_may_open_are_refused(mode: int) -> None:
    places.claims().chmod(mode)
    with pytest.raises(RequestError, match="must be a folder of yours that nobody else may open"):
        locks.try_claim("port-8080")


def test_claims_of_another_account_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    places.claims()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(RequestError, match="must be a folder of yours"):
        places.claims()


def test_a_link_in_the_place_of_claims_is_not_followed(tmp_path: Path) -> None:
    """Another account's link must not have the user's own files locked, and emptied."""
    places.claims().rmdir()
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / "choosing.lock").write_text("precious")
    places._user_cache().joinpath(f"claims-{os.uname().nodename}").symlink_to(victim)
    with pytest.raises(RequestError, match="and no link"):
        locks.try_claim("port-8080")
    assert (victim / "choosing.lock").read_text() == "precious"


def test_a_home_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    with pytest.raises(
        RequestError, match=r"the claims of trials need a folder, and /proc/.* cannot be made: .*set HOME"
    ):
        places.claims()


def test_an_account_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> NoReturn:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for ask in (places.home, places.cache, places.claims):
        with pytest.raises(RequestError, match=r"^this account has no home directory: set HOME to a folder"):
            ask()
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert places.cache() == Path("/elsewhere/cifar-nni")
