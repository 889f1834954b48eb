"""Frames as runtime/worker/frame.go describes them."""

import json
import struct
import threading

HEADER = struct.Struct(">II")
encode_head = json.JSONEncoder(separators=(",", ":"), default=str).encode  # ASCII only: a head is strict JSON


class TooLarge(Exception):
    """A frame would be larger than the runtime takes."""


class Connection:
    """The socket to the runtime: one thread reads, any thread writes."""

    def __init__(self, sock, limit=256 << 20):
        self._sock = sock
        self._reader = sock.makefile("rb", buffering=1 << 16)
        self._lock = threading.Lock()
        self.limit = limit

    def close(self):
        self._reader.close()
        self._sock.close()

    def read(self):
        """Returns (head, parts), or None when the runtime closed the socket."""
        header = self._reader.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        size, head_size = HEADER.unpack(header)
        body = self._reader.read(size - 4)
        if len(body) < size - 4:
            return None
        head = json.loads(body[:head_size])
        parts, at = {}, head_size
        for name, length in head.pop("parts", None) or ():
            parts[name] = body[at : at + length]
            at += length
        return head, parts

    def write(self, head, parts=()):
        """parts are (name, bytes)."""
        if parts:
            head["parts"] = [(name, len(data)) for name, data in parts]
        text = encode_head(head).encode("ascii")
        size = len(text) + sum(len(data) for _, data in parts)
        if size > self.limit:
            raise TooLarge(f"{size} bytes do not fit a message of at most {self.limit}")
        frame = b"".join((HEADER.pack(size + 4, len(text)), text, *(data for _, data in parts)))
        with self._lock:
            self._sock.sendall(frame)
