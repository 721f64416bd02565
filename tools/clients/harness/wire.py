"""Kafka's protocol by hand, as far as raw tests need it: frames, non-flexible primitives, a few requests in their oldest versions.

Separate from every client library on purpose: these bytes are what old clients send, and what no client would send.
"""

import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 3, 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP, DESCRIBE_GROUPS, LIST_GROUPS, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS = 11, 12, 13, 14, 15, 16, 18, 19, 20
INIT_PRODUCER_ID = 22

UNSUPPORTED_VERSION = 35


def int8(n):
    return struct.pack(">b", n)


def int16(n):
    return struct.pack(">h", n)


def int32(n):
    return struct.pack(">i", n)


def int64(n):
    return struct.pack(">q", n)


def string(text):
    if text is None:
        return int16(-1)
    raw = text.encode()
    return int16(len(raw)) + raw


def data(raw):
    return int32(-1) if raw is None else int32(len(raw)) + raw


def array(items):
    items = list(items)
    return int32(len(items)) + b"".join(items)


def header(api, version, correlation=1, client="raw"):
    """Request header v1: what every non-flexible version carries."""
    return int16(api) + int16(version) + int32(correlation) + string(client)


class Closed(OSError):
    """The broker closed the connection."""


class Connection:
    """One TCP connection that sends raw frames and reads length-prefixed replies."""

    def __init__(self, port, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, raw):
        self.socket.sendall(raw)

    def frame(self, raw):
        self.send(int32(len(raw)) + raw)

    def exactly(self, count):
        parts = []
        while count > 0:
            part = self.socket.recv(min(count, 1 << 20))
            if not part:
                raise Closed("connection closed")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def reply(self):
        (length,) = struct.unpack(">i", self.exactly(4))
        return Reader(self.exactly(length))

    def ask(self, api, version, body=b"", correlation=1):
        """Sends one request with header v1 and returns its reply behind the correlation id, which it checks."""
        self.frame(header(api, version, correlation) + body)
        reply = self.reply()
        assert reply.int32() == correlation
        return reply

    def closes_within(self, seconds):
        """True if the broker ends the connection in that time; replies before that are read and dropped."""
        self.socket.settimeout(0.2)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
        return False


class Reader:
    """Takes primitives off the front of a reply; running out is an IndexError, so a short reply fails its test."""

    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, count):
        if self.at + count > len(self.raw):
            raise IndexError(f"reply ends at {len(self.raw)}, {count} bytes wanted at {self.at}")
        self.at += count
        return self.raw[self.at - count : self.at]

    def int8(self):
        return struct.unpack(">b", self.take(1))[0]

    def int16(self):
        return struct.unpack(">h", self.take(2))[0]

    def int32(self):
        return struct.unpack(">i", self.take(4))[0]

    def int64(self):
        return struct.unpack(">q", self.take(8))[0]

    def string(self):
        length = self.int16()
        return None if length < 0 else self.take(length).decode()

    def data(self):
        length = self.int32()
        return None if length < 0 else self.take(length)

    def array(self, item):
        return [item() for _ in range(self.int32())]

    def left(self):
        return len(self.raw) - self.at


def api_versions(port, timeout=5):
    """{api key: (lowest, highest version)} by ApiVersions v0, which every broker since 0.10 answers."""
    with Connection(port, timeout) as connection:
        reply = connection.ask(API_VERSIONS, 0)
        error = reply.int16()
        if error != 0:
            raise OSError(f"ApiVersions v0 answered error {error}")
        return {key: (low, high) for key, low, high in reply.array(lambda: (reply.int16(), reply.int16(), reply.int16()))}
