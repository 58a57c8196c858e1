"""What pip installs: the wheel, in a place of its own, in a project's folder that has nothing of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from experiments import ROOT, Search, change_config, nothing_is_left

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the wheel was unpacked into, as pip does."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "cifar", source / "cifar", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(place)]
    subprocess.run([*command, str(source)], check=True, cwd=place)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.fixture
def project(tmp_path: Path, quick_config_path: Path) -> Path:
    """A user's folder: a config, a search space and a trial."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("trial.py", "search_space.json"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(quick_config_path, folder / "config.yml")
    space = {"lr": {"_type": "uniform", "_value": [0.01, 0.02]}}
    command = "python trial.py --epochs 1 --batch-size 16"
    change_config(folder / "config.yml", trialCommand=command, trialCodeDirectory=".", searchSpace=space)
    return folder


def test_the_wheel_has_all_of_the_package(installed: Path) -> None:
    files = subprocess.run(["git", "ls-files", "cifar"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    missing = [name for name in files.split() if not (installed / name).exists()]
    assert missing == []


def test_a_search_by_the_installed_package_runs(installed: Path, project: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(installed)}
    where = [sys.executable, "-c", "import cifar; print(cifar.__file__)"]
    found = subprocess.run(where, env=os.environ | environment, cwd=project, capture_output=True, text=True).stdout
    assert found == f"{installed}/cifar/__init__.py\n"
    doctor = Search(tmp_path, ("doctor", "--data", "digits", "--max-trials", "3"), environment, project)
    assert doctor.wait() == 0, doctor.err
    assert "--concurrency auto would choose" in doctor.out
    search = Search(tmp_path, ("search", "--data", "digits", "--max-trials", "3"), environment, project)
    assert search.wait() == 0, search.err
    assert "3 trials: 3 ok" in search.out
    assert nothing_is_left(tmp_path)
