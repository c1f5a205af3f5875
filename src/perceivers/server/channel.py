"""Messages between the server and a decoding process, each handed over before a deadline.

`multiprocessing.Connection` waits without one: a process that stops within a message would block its thread for ever.
"""

import socket
import struct
import time
from multiprocessing.connection import wait
from typing import Self

_LENGTH = struct.Struct(">Q")
_PIECE = 2**20
_SHORTEST = 0.001  # seconds; 0 would make the socket non-blocking


class Channel:
    """One end of a connection that carries messages of bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a new connection."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Send a message before a deadline by `time.monotonic`.

        Raises:
            OSError: If the other end is closed; TimeoutError after the deadline. Only `close` may follow.
        """
        self._set_timeout(deadline)
        self.connection.sendall(_LENGTH.pack(len(message)))
        self._set_timeout(deadline)
        self.connection.sendall(message)  # the timeout is for the whole message

    def receive(self, deadline: float | None = None, most: int | None = None) -> bytes:
        """Return the next message, received before a deadline.

        Args:
            deadline: By `time.monotonic`. None: none.
            most: Bytes of the largest message. None: any.

        Raises:
            EOFError: If the other end is closed.
            OSError: If the connection is broken; TimeoutError after the deadline. Only `close` may follow.
            ValueError: If the message is larger.
        """
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size, deadline))
        if most is not None and length > most:
            raise ValueError(f"Expected a message of at most {most:,} bytes, got {length:,}.")
        return self._receive(length, deadline)

    def has_message(self, deadline: float) -> bool:
        """Wait until a message begins or the other end is closed. Return False if none does before the deadline."""
        return bool(wait([self.connection], max(deadline - time.monotonic(), 0)))

    def close(self) -> None:
        """Close this end."""
        self.connection.close()

    def _receive(self, count: int, deadline: float | None) -> bytes:
        found = bytearray()
        while len(found) < count:
            self._set_timeout(deadline)
            piece = self.connection.recv(min(count - len(found), _PIECE))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def _set_timeout(self, deadline: float | None) -> None:
        seconds = None if deadline is None else max(deadline - time.monotonic(), _SHORTEST)
        self.connection.settimeout(seconds)
