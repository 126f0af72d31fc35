"""Wait for the control process, the device and the sockets, and let each have a bounded turn."""

import select
import socket
import time
from collections.abc import Sequence

from dhtvpn.dataplane.channel import ControlChannel
from dhtvpn.dataplane.engine import Engine
from dhtvpn.errors import SystemRefusedError


def serve(engine: Engine, channel: ControlChannel, device: int, sockets: Sequence[socket.socket]) -> None:
    """Run ``engine`` until the control process closes its end. ``device`` is the TUN device's descriptor.

    Every wake-up gives each ready source one batch, so none waits for more than one batch of each other; the
    control process has the first turn.
    Raises SystemRefusedError when the device is gone, DecodeError for a command that is none.
    """
    control, by_descriptor = channel.fileno(), {sock.fileno(): sock for sock in sockets}
    with select.epoll() as epoll:
        for descriptor in (control, device, *by_descriptor):
            epoll.register(descriptor, select.EPOLLIN)
        watching_writes = False
        while True:
            if channel.blocked != watching_writes:
                watching_writes = channel.blocked
                epoll.modify(control, select.EPOLLIN | (select.EPOLLOUT if watching_writes else 0))
            ready = dict(epoll.poll(_wait_s(engine)))
            now = time.monotonic()
            # First: new keys are here before the datagrams that only they open.
            if ready.pop(control, 0) and not _control_ready(engine, channel, now):
                return
            for descriptor, happened in ready.items():
                if descriptor == device:
                    if happened & select.EPOLLERR:
                        raise SystemRefusedError("the network interface was removed by somebody else")
                    engine.device_readable(now)
                else:
                    engine.socket_readable(by_descriptor[descriptor], now)
            engine.handle_timeout(now)


def _control_ready(engine: Engine, channel: ControlChannel, now: float) -> bool:
    """Carry out commands and send what waits; False when the control process is gone."""
    commands = channel.receive()
    if commands is None:
        return False
    for command in commands:
        engine.handle_command(command, now)
    channel.flush()
    return True


def _wait_s(engine: Engine) -> float:
    timeout = engine.next_timeout()
    return -1.0 if timeout is None else max(0.0, timeout - time.monotonic())
