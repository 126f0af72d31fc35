"""Whose turn it is when the engine wakes up."""

import os
import socket

from dhtvpn.dataplane.channel import ControlChannel
from dhtvpn.dataplane.loop import serve
from dhtvpn.dataplane.messages import EraseKeypairs, encode


class Engine:
    """Writes down who had a turn. In the turn of the first datagram a second one comes, and then a command;
    with the second one the control process goes."""

    def __init__(self, control: socket.socket) -> None:
        self.turns: list[str] = []
        self._control = control

    def next_timeout(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None:
        """It has no timers."""

    def handle_command(self, command: object, now: float) -> None:
        self.turns.append("command")

    def socket_readable(self, sock: socket.socket, now: float) -> None:
        self.turns.append(sock.recv(100).decode())
        if self.turns == ["first"]:
            sock.sendto(b"second", sock.getsockname())
            self._control.send(encode(EraseKeypairs(1)))
        else:
            self._control.close()


def test_commands_go_before_datagrams_that_are_ready_too() -> None:
    """Else the first messages under new keys, the Hello among them, are lost now and then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device, writer = os.pipe()
    engine = Engine(theirs)
    with ours, theirs, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.sendto(b"first", receiver.getsockname())
        serve(engine, ControlChannel(ours), device, [receiver])  # type: ignore[arg-type]
    os.close(device)
    os.close(writer)
    assert engine.turns == ["first", "command", "second"]
