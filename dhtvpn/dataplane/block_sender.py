"""Seals a super-packet, or a run of relayed messages, as one block and cuts what comes out into a run of
datagrams (packet.block)."""

from typing import Final

from dhtvpn.dataplane.sockets import MAX_RUN_BYTES
from dhtvpn.packet.block import MAX_CHUNKS, MAX_SEGMENTS, PLACE, SEGMENT, SEGMENT_SIZE
from dhtvpn.wireguard.constants import BLOCK, PADDING_UNIT, TAG_SIZE
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, Session

CHUNK_AT: Final = HEADER_SIZE + PLACE.size
"""Bytes in front of the chunk in each datagram: 20."""

MAX_SHAPES: Final = 16  # ours: pairs of chunk length and number whose slices are kept


class BlockSealer:
    """Seals plaintexts, and returns datagrams side by side, all but the last ``stride`` bytes long; None
    where they do not fit into one run, or the session is used up. ``message_type`` is the one of data
    messages."""

    def __init__(self) -> None:
        self._sealed = memoryview(bytearray(MAX_RUN_BYTES))
        self._parts: dict[tuple[int, int], list[bytes | memoryview]] = {}

    def fits(self, size: int, stride: int) -> bool:
        """Whether a plaintext of ``size`` bytes goes into one run."""
        length = size + TAG_SIZE
        count = -(-length // (stride - CHUNK_AT))
        return count <= MAX_CHUNKS and length + count * CHUNK_AT <= MAX_RUN_BYTES

    def seal(
        self, session: Session, message_type: int, plaintext: bytes | memoryview, stride: int
    ) -> bytes | None:
        """The block with this plaintext."""
        if not self.fits(len(plaintext), stride):
            return None
        counter = session.reserve(1)
        if counter is None:
            return None
        chunk, length = stride - CHUNK_AT, len(plaintext) + TAG_SIZE
        count = -(-length // chunk)
        kind = message_type + BLOCK
        header = HEADER.pack(kind, session.remote_index, counter)
        session.seal_into[kind](NONCE.pack(counter), plaintext, header, self._sealed[:length])
        parts = self._parts_for(chunk, count)
        parts[::3] = [header] * count
        parts[-1] = self._sealed[(count - 1) * chunk : length]
        return b"".join(parts)

    def _parts_for(self, chunk: int, count: int) -> list[bytes | memoryview]:
        """For every datagram: a place for its header, its place and the slice that it carries."""
        key = chunk, count
        parts = self._parts.get(key)
        if parts is None:
            parts = []
            for place in range(count):
                parts += [b"", PLACE.pack(place, count), self._sealed[place * chunk : (place + 1) * chunk]]
            if len(self._parts) >= MAX_SHAPES:
                self._parts.clear()
            self._parts[key] = parts
        return parts


class BlockSender:
    """Works on ``buffer``, in which super-packets begin at ``at``, with room for padding behind them."""

    def __init__(self, buffer: bytearray, at: int) -> None:
        self._buffer, self._view, self._at = buffer, memoryview(buffer), at
        self._sealer = BlockSealer()

    def run(self, session: Session, message_type: int, size: int, segment: int, stride: int) -> bytes | None:
        """The datagrams of the super-packet of ``size`` bytes, as :class:`BlockSealer` gives them. None also
        where it has more than MAX_SEGMENTS segments. The bytes before and behind it are overwritten."""
        buffer, at = self._buffer, self._at
        start = at - SEGMENT_SIZE
        padded = -(-(SEGMENT_SIZE + size) // PADDING_UNIT) * PADDING_UNIT
        if size > MAX_SEGMENTS * segment or not self._sealer.fits(padded, stride):
            return None
        SEGMENT.pack_into(buffer, start, segment)
        end = start + padded
        buffer[at + size : end] = bytes(end - at - size)
        return self._sealer.seal(session, message_type, self._view[start:end], stride)
