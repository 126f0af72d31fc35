"""The engine's end of the socket pair: never blocks, keeps order, is capped."""

import errno
import os

import pytest

from dhtvpn.dataplane import channel
from dhtvpn.dataplane.channel import ControlChannel
from dhtvpn.dataplane.messages import (
    ControlFrame,
    NeedHandshake,
    RemovePeer,
    decode_event,
    encode,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError


class FakeSocket:
    def __init__(self) -> None:
        self.full = False
        self.sent: list[bytes] = []
        self.incoming: list[bytes] = []
        self.error: int | None = None

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def send(self, data: bytes) -> int:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        if self.full:
            raise BlockingIOError
        self.sent.append(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        if not self.incoming:
            raise BlockingIOError
        return self.incoming.pop(0)


@pytest.fixture
def sock() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
def made(sock: FakeSocket) -> ControlChannel:
    return ControlChannel(sock)  # type: ignore[arg-type]


def test_events_wait_in_order_until_the_socket_takes_them(made: ControlChannel, sock: FakeSocket) -> None:
    sock.full = True
    for peer in range(3):
        made.send(NeedHandshake(peer))
    assert made.blocked and sock.sent == []
    sock.full = False
    made.flush()
    assert not made.blocked
    assert [decode_event(data) for data in sock.sent] == [NeedHandshake(peer) for peer in range(3)]


def test_frames_give_way_before_events(
    made: ControlChannel, sock: FakeSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "MAX_WAITING_FRAMES", 1)
    monkeypatch.setattr(channel, "MAX_WAITING", 3)
    sock.full = True
    frame = ControlFrame(1, b"\x01", Endpoint("192.0.2.1", 1))
    for event in (frame, frame, NeedHandshake(1), NeedHandshake(2), NeedHandshake(3)):
        made.send(event)
    assert made.drops.as_dict() == {"dataplane.control_busy": 2}
    sock.full = False
    made.flush()
    assert [decode_event(data) for data in sock.sent] == [frame, NeedHandshake(1), NeedHandshake(2)]


def test_commands_come_in_batches(made: ControlChannel, sock: FakeSocket) -> None:
    sock.incoming = [encode(RemovePeer(n)) for n in range(channel.COMMAND_BATCH + 1)]
    first, second = made.receive(), made.receive()
    assert first is not None and len(first) == channel.COMMAND_BATCH
    assert second == [RemovePeer(channel.COMMAND_BATCH)]
    assert made.receive() == []


def test_the_end_of_the_control_process_is_seen(made: ControlChannel, sock: FakeSocket) -> None:
    sock.incoming = [b""]
    assert made.receive() is None
    sock.error = errno.ECONNRESET
    assert made.receive() is None
    made.send(NeedHandshake(1))  # nobody is there any more: no error, nothing kept
    assert not made.blocked


def test_what_is_no_command_ends_it(made: ControlChannel, sock: FakeSocket) -> None:
    sock.incoming = [encode(NeedHandshake(1))]
    with pytest.raises(DecodeError, match="kind"):
        made.receive()
