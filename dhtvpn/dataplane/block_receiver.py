"""Puts the chunks of blocks together and opens them (packet.block).

Nearly always one recvmsg brings a whole block, in order: it is then opened on trust, since the tag says
whether it was. Otherwise its chunks are kept until all are there. Nobody who does not know one of our
receiver indices gets that far, and what he can fill is bounded.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from dhtvpn.dataplane.block_sender import CHUNK_AT
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.relay_wire import RelayRun, run_in
from dhtvpn.packet import virtio
from dhtvpn.packet.block import MAX_CHUNKS, PLACE, SEGMENT, SEGMENT_SIZE, prepare, shape_of
from dhtvpn.packet.transport import stated_length
from dhtvpn.wireguard.constants import TAG_SIZE, TYPE_BLOCK, TYPE_BLOCK_AES
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, Session

MAX_BLOCK: Final = 1 << 16
"""Bytes of a sealed block."""

MAX_KEPT: Final = 8
"""Blocks, of all peers, that wait for chunks: half a megabyte at most. The oldest makes room."""

MAX_SHAPES: Final = 16  # ours: strides whose slices are kept

_AT: Final = virtio.SIZE
_TYPES: Final = frozenset((TYPE_BLOCK, TYPE_BLOCK_AES))
_LEAST: Final = SEGMENT_SIZE + TAG_SIZE


class Head(NamedTuple):
    """What stands in front of a chunk, none of it authentic yet."""

    kind: int
    receiver: int
    counter: int
    place: int
    chunks: int


@dataclass(slots=True)
class _Kept:
    """A block that waits for chunks."""

    head: Head
    """Of its first chunk, with place 0."""
    chunks: dict[int, bytes] = field(default_factory=dict)
    octets: int = 0
    congested: bool = False


class BlockReceiver:
    """Works on ``datagrams``, the buffer that recvmsg fills; opens into one of its own."""

    def __init__(self, datagrams: memoryview, drops: Drops) -> None:
        self._view = datagrams
        self._drops = drops
        self.buffer = bytearray(_AT + MAX_BLOCK)
        self._plain = memoryview(self.buffer)[_AT - SEGMENT_SIZE :]
        self._slices: dict[int, list[memoryview]] = {}
        self.congested = False
        """Whether a chunk of the block that was opened had met congestion on the way (ECN)."""
        self._kept: OrderedDict[tuple[int, int], _Kept] = OrderedDict()

    def head(self, start: int, end: int) -> Head | None:
        """What the datagram from ``start`` to ``end`` says of itself; None where that cannot be."""
        if end - start <= CHUNK_AT:
            return None
        kind, index, counter = HEADER.unpack_from(self._view, start)
        place, chunks = PLACE.unpack_from(self._view, start + HEADER_SIZE)
        if kind not in _TYPES or not place < chunks <= MAX_CHUNKS:
            return None
        return Head(kind, index, counter, place, chunks)

    def open_run(self, session: Session, head: Head, start: int, size: int, stride: int) -> int:
        """The plaintext's length of the block that begins at ``start`` and of which all datagrams, ``stride``
        bytes long but for the last, stand before ``size``; 0 where they do not, or it is not authentic."""
        end = start + head.chunks * stride
        if head.place or end - stride >= size:
            return 0
        end = min(end, size)
        if start:
            slices = [self._view[at + CHUNK_AT : at + stride] for at in range(start, end, stride)]
        else:
            slices = self._slices_for(stride)[: head.chunks]
        slices[-1] = self._view[start + (head.chunks - 1) * stride + CHUNK_AT : end]
        self.congested = False
        return self._open(session, head, b"".join(slices))

    def add(self, session: Session, head: Head, chunk: bytes, *, congested: bool) -> int:
        """Keep ``chunk``, which came behind ``head``. The plaintext's length of the block where it was the
        last one that was missing, 0 otherwise. Raises DecodeError "data_tag"."""
        key, first = (head.receiver, head.counter), head._replace(place=0)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(first)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
                self._drops.count("dataplane", "block_incomplete")
        if kept.head != first or head.place in kept.chunks or kept.octets + len(chunk) > MAX_BLOCK:
            self._drops.count("dataplane", "block_chunk")
            return 0
        kept.chunks[head.place] = chunk
        kept.octets += len(chunk)
        kept.congested |= congested
        if len(kept.chunks) < head.chunks:
            return 0
        del self._kept[key]
        self.congested = kept.congested
        length = self._open(session, head, b"".join(kept.chunks[place] for place in range(head.chunks)))
        if not length:
            raise DecodeError("data_tag")
        return length

    def give_up_before(self, index: int, counter: int) -> bool:
        """Forget the blocks of a session that are still incomplete although one that was sent later is not.
        Whether there were any."""
        if not self._kept:
            return False
        overtaken = [key for key in self._kept if key[0] == index and key[1] < counter]
        for key in overtaken:
            del self._kept[key]
        if overtaken:
            self._drops.count("dataplane", "block_incomplete", len(overtaken))
        return bool(overtaken)

    def relayed(self, length: int) -> RelayRun | None:
        """The relayed messages in the block that was opened, until the next one is; None where it holds a
        super-packet. Raises DecodeError("relay_length", "relay_hops")."""
        return None if SEGMENT.unpack_from(self._plain)[0] else run_in(self._plain[:length])

    def super_packet(
        self, length: int, is_to_drop: Callable[[bytearray, int], bool]
    ) -> tuple[int, int] | None:
        """Make a super-packet of the block that was opened, with its virtio header, and tell where it begins
        (with that) and ends; None where the block holds none. ``is_to_drop`` is asked with the packet's place
        whether one of several segments is to go: then the first one does."""
        segment = SEGMENT.unpack_from(self._plain)[0]
        shape = shape_of(self.buffer, _AT, length - SEGMENT_SIZE, segment)
        if shape is None:
            return None
        several = stated_length(self.buffer, _AT) - shape.length > segment
        skipped = segment if several and is_to_drop(self.buffer, _AT) else 0
        begin, end = prepare(self.buffer, _AT, shape, segment, skipped)
        return begin - _AT, end

    def _open(self, session: Session, head: Head, sealed: bytes) -> int:
        length = len(sealed) - TAG_SIZE
        if not _LEAST <= len(sealed) <= MAX_BLOCK:
            return 0
        associated = HEADER.pack(head.kind, head.receiver, head.counter)
        try:
            session.open_into[head.kind](NONCE.pack(head.counter), sealed, associated, self._plain[:length])
        except InvalidTag:
            return 0
        return length

    def _slices_for(self, stride: int) -> list[memoryview]:
        """The chunks in a run that begins at the buffer's start."""
        slices = self._slices.get(stride)
        if slices is None:
            ends = range(stride, len(self._view) + 1, stride)
            slices = [self._view[end - stride + CHUNK_AT : end] for end in ends]
            if len(self._slices) >= MAX_SHAPES:
                self._slices.clear()
            self._slices[stride] = slices
        return slices
