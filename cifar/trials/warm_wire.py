"""What a trial's client and the warm process of its experiment say to each other, over a socket of this machine.

The client sends a Request. The warm process answers with one of the bytes below. Of a trial that it has accepted it
gets signals, a byte each, and tells the end in a line: the exit code, or a signal's number with a minus before it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

ACCEPTED = b"a"
OUTDATED = b"o"  # the code has changed since the warm process imported it
REFUSED = b"r"


class Request(NamedTuple):
    """A trial to run: its command line, environment and directory, and its standard input, output and error."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str
    files: Sequence[int] = (0, 1, 2)

    def send(self, connection: socket.socket) -> None:
        content = {"arguments": self.arguments, "environment": self.environment, "directory": self.directory}
        message = json.dumps(content).encode() + b"\n"
        sent = socket.send_fds(connection, [message], self.files)
        connection.sendall(message[sent:])

    @classmethod
    def receive(cls, connection: socket.socket) -> Request:
        """OSError, ValueError or TypeError where the other end sends none."""
        message, files, _, _ = socket.recv_fds(connection, 2**16, 3)
        while not message.endswith(b"\n"):
            more = connection.recv(2**16)
            if not more:
                raise ConnectionError
            message += more
        return cls(**json.loads(message), files=files)

    def become(self) -> None:
        """Make this process the one that the client would have been."""
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv[:] = self.arguments


def user_of(connection: socket.socket) -> int:
    """The user of the process at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
