from __future__ import annotations

import socket
from typing import Any

import pytest
from experiments import free_port

from cifar.errors import RequestError
from cifar.system import locks
from cifar.system.ports import LOOPBACK, claim_port


@pytest.mark.parametrize(
    ("known", "leads"),
    [({socket.AF_INET6: "::1"}, "::1"), ({}, "nowhere"), ({socket.AF_INET: "10.0.0.1"}, "10.0.0.1")],
)
def test_a_localhost_that_leads_elsewhere_is_named(
    known: dict[int, str], leads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NNI would start, and its programs wait for each other."""

    def getaddrinfo(name: str, port: object, family: int) -> list[Any]:
        if family not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(family, 0, 0, "", (known[family], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    expected = (
        f"^localhost must lead to 127.0.0.1, as NNI's programs take it to; here it leads to {leads}: see /etc/hosts$"
    )
    with pytest.raises(RequestError, match=expected):
        claim_port(None, LOOPBACK)


def test_of_two_that_want_a_port_one_gets_it() -> None:
    port = free_port()
    got, lock = claim_port(port, LOOPBACK)
    assert got == port
    with pytest.raises(RequestError, match="is in use; choose another with --port"):
        claim_port(port, LOOPBACK)
    locks.release([lock])
    _, again = claim_port(port, LOOPBACK)
    locks.release([again])
