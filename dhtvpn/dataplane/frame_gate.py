"""Control frames that arrive: at most so many go on to the control process, and Blocks frames stay here."""

from collections.abc import Callable
from typing import Final

from dhtvpn.dataplane.messages import MAX_FRAME, ControlFrame, Event
from dhtvpn.dataplane.peers import Peer
from dhtvpn.dataplane.sockets import RawAddress
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.frames import KIND_BLOCKS, Blocks, decode

FRAMES_PER_S: Final = 200.0
"""Control frames of one second from all peers, ours: they cost the control process."""
FRAMES_BURST: Final = 200


class FrameGate:
    """For all peers of one engine. Time comes in as ``now``, seconds."""

    def __init__(self, drops: Drops, emit: Callable[[Event], None]) -> None:
        self._drops, self._emit = drops, emit
        self._tokens = float(FRAMES_BURST)
        self._at = 0.0

    def received(self, peer: Peer, plaintext: bytes, source: RawAddress, now: float) -> None:
        """A frame of ``peer``, with its padding, which came from ``source``."""
        if len(plaintext) > MAX_FRAME:
            self._drops.count("dataplane", "frame_size")
            return
        elapsed = max(0.0, now - self._at)
        self._at = now
        self._tokens = min(float(FRAMES_BURST), self._tokens + elapsed * FRAMES_PER_S)
        if self._tokens < 1.0:
            self._drops.count("dataplane", "frame_rate")
            return
        self._tokens -= 1.0
        if plaintext[0] == KIND_BLOCKS:
            self._blocks(peer, plaintext)
        else:
            self._emit(ControlFrame(peer.number, plaintext, Endpoint.from_socket(source)))

    def _blocks(self, peer: Peer, plaintext: bytes) -> None:
        """The peer says whether it wants blocks: the engines settle that, in a round trip."""
        try:
            frame = decode(plaintext)
        except DecodeError as error:
            self._drops.count("dataplane", error.reason)
            return
        peer.blocks_wanted = peer.blocks and isinstance(frame, Blocks) and frame.wanted
