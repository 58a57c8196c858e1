"""A search on two machines, with real sshd servers: pairs right, results complete, a lost machine survived."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from experiments import Start, assert_numbered_and_paired, change_config
from machines import MISSING, Machine, two_machines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING, reason="needs root, and Debian's iproute2 and openssh-server"),
]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    with two_machines(tmp_path) as started:
        yield started


@pytest.fixture
def hosts_path(machines: list[Machine], tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump([machine.entry() for machine in machines]))
    return path


def test_a_search_on_two_machines(search: Start, machines: list[Machine], hosts_path: Path, config_path: Path) -> None:
    change_config(config_path, trialConcurrency=4)
    one = search("--data", "digits", "--max-trials", "8", "--hosts", str(hosts_path))
    assert one.wait(300) == 0, one.err
    assert "8 trials: 8 ok" in one.out
    assert_numbered_and_paired(one)
