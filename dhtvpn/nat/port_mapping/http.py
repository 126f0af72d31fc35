"""HTTP/1.1 requests to a gateway, and its answer read under caps as it comes (RFC 9112). Pure.

No redirect is followed, no second request goes over a connection, and nothing is read past the caps: the
gateway of a strange network is as hostile as any host.
"""

from collections.abc import Mapping
from typing import Final

from dhtvpn.errors import DecodeError

MAX_HEAD: Final = 8192
"""Octets of status line and header fields, ours."""
MAX_BODY: Final = 65536
"""Octets, ours; that of ``strict_xml``."""

_END: Final = b"\r\n\r\n"
_MAX_CHUNK_LINE: Final = 128


def request(host: str, path: str, port: int, fields: Mapping[str, str], body: bytes | None = None) -> bytes:
    """A GET, or with ``body`` a POST, after which the connection ends."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    lines += ["User-Agent: dhtvpn UPnP/1.1", "Connection: close"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("ascii") + _END + (body or b"")


class Response:
    """An answer as it comes in: :meth:`feed` until it is ``complete``, or :meth:`end` at the end."""

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.body = b""
        self._waiting = bytearray()
        self._length: int | None = None
        self._chunked = False
        self._chunks = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what has come. Raises DecodeError: http_size, http_format."""
        if self.complete:
            return
        self._waiting += data
        if not self.status and not self._read_head():
            return
        if self._chunked:
            self._read_chunks()
            return
        if len(self._waiting) > MAX_BODY:
            raise DecodeError("http_size")
        if self._length is not None and len(self._waiting) >= self._length:
            self._finish(bytes(self._waiting[: self._length]))

    def end(self) -> None:
        """The gateway closed the connection. Raises DecodeError("http_format") where something is missing."""
        if self.complete:
            return
        if not self.status or self._chunked or self._length is not None:
            raise DecodeError("http_format", "cut off")
        self._finish(bytes(self._waiting))

    def _finish(self, body: bytes) -> None:
        self.body, self.complete = body, True
        self._waiting.clear()

    def _read_head(self) -> bool:
        """True once status and header fields are there."""
        end = self._waiting.find(_END)
        if end > MAX_HEAD or (end < 0 and len(self._waiting) > MAX_HEAD):
            raise DecodeError("http_size", "head")
        if end < 0:
            return False
        first, *rest = bytes(self._waiting[:end]).split(b"\r\n")
        del self._waiting[: end + len(_END)]
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not _is_number(words[1], 3):
            raise DecodeError("http_format", "status line")
        self.status = int(words[1])
        if self.status < 200:
            raise DecodeError("http_format", "status")
        fields = {name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in rest)}
        self._chunked = b"chunked" in fields.get(b"transfer-encoding", b"").lower()
        length = fields.get(b"content-length")
        if length is not None and not self._chunked:
            if not _is_number(length, 12):
                raise DecodeError("http_format", "length")
            self._length = int(length)
            if self._length > MAX_BODY:
                raise DecodeError("http_size")
        return True

    def _read_chunks(self) -> None:
        """Section 7.1; trailer fields are not waited for."""
        at = 0
        while (line_end := self._waiting.find(b"\r\n", at)) >= 0:
            size_text = bytes(self._waiting[at:line_end]).partition(b";")[0].strip()
            if not 0 < len(size_text) <= 8 or size_text.strip(b"0123456789abcdefABCDEF"):
                raise DecodeError("http_format", "chunk")
            size, begin = int(size_text, 16), line_end + 2
            if len(self._chunks) + size > MAX_BODY:
                raise DecodeError("http_size")
            if size == 0:
                self._finish(bytes(self._chunks))
                return
            if len(self._waiting) < begin + size + 2:
                break
            if self._waiting[begin + size : begin + size + 2] != b"\r\n":
                raise DecodeError("http_format", "chunk")
            self._chunks += self._waiting[begin : begin + size]
            at = begin + size + 2
        del self._waiting[:at]
        if line_end < 0 and len(self._waiting) > _MAX_CHUNK_LINE:
            raise DecodeError("http_format", "chunk")


def _is_number(text: bytes, digits: int) -> bool:
    return 0 < len(text) <= digits and text.isdigit()
