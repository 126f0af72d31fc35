"""The engine's end of the socket pair to the control process.

Sending never blocks: what the kernel does not take waits here, up to a cap, and of what is over the cap
nothing is kept but a count. Receiving in small batches keeps a burst of commands from starving packets.
"""

import socket
from collections import deque
from typing import Final

from dhtvpn.dataplane.messages import MAX_MESSAGE, Command, ControlFrame, Event, Ready, decode_command, encode
from dhtvpn.drops import Drops

MAX_WAITING: Final = 4096  # events, ours: minutes of them
MAX_WAITING_FRAMES: Final = 512  # control frames stop earlier, so that a peer cannot displace events
COMMAND_BATCH: Final = 64  # commands per wake-up


class ControlChannel:
    """Commands in, events out. ``drops`` is the engine's, once there is one."""

    def __init__(self, sock: socket.socket) -> None:
        self.drops = Drops()
        self._sock = sock
        self._waiting: deque[bytes] = deque()
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def blocked(self) -> bool:
        """Whether something waits until the socket is writable."""
        return bool(self._waiting)

    def send(self, event: Event | Ready) -> None:
        """Send an event now or as soon as the socket takes it."""
        waiting = len(self._waiting)
        if waiting >= MAX_WAITING or (waiting >= MAX_WAITING_FRAMES and isinstance(event, ControlFrame)):
            self.drops.count("dataplane", "control_busy")
            return
        self._waiting.append(encode(event))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        try:
            while self._waiting:
                self._sock.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._waiting.clear()  # the other end is gone; receive() will say so

    def receive(self) -> list[Command] | None:
        """Commands that have come; None when the control process has closed its end.

        Raises DecodeError for bytes that are no command: the two processes do not fit together.
        """
        commands: list[Command] = []
        for _ in range(COMMAND_BATCH):
            try:
                data = self._sock.recv(MAX_MESSAGE)
            except BlockingIOError:
                break
            except OSError:
                return None
            if not data:
                return None
            commands.append(decode_command(data))
        return commands
