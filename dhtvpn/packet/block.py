"""Blocks: a super-packet sealed whole, and cut into datagrams behind its tag (docs/protocol/blocks.md).

One call of the cipher for 64 KB in place of 45: on a path that loses nothing this is most of a train's cost.
A datagram of a block is

    offset  size
    0       16    header of a data message: type 6 or 7, receiver index, counter of the block
    16      2     place of this chunk, from 0
    18      2     number of chunks, 1 to MAX_CHUNKS
    20            the chunk: all but the last of a block are equally long

Numbers here are little-endian, as in all headers of the tunnel. The chunks one after the other are the sealed
plaintext: the segment size (2 bytes), the packet, and padding. Where the segment size is 0 there is a run of
relayed messages instead (mesh.relay_wire).
"""

from struct import Struct
from typing import Final

from dhtvpn.packet import train
from dhtvpn.packet.transport import Layout, layout, stated_length

PLACE: Final = Struct("<HH")
SEGMENT: Final = Struct("<H")
SEGMENT_SIZE: Final = SEGMENT.size
MAX_CHUNKS: Final = 64
"""As many as the kernel sends at once."""

MAX_SEGMENTS: Final = 128
"""Of a super-packet. Whoever delivers it may have to cut it again, a buffer for each: a member must not make
60,000 of one block."""


def shape_of(buffer: bytearray, at: int, size: int, segment: int) -> Layout | None:
    """The headers of the super-packet at ``at``, the first of ``size`` bytes that a block held, padding
    included. None where it is none that may go to the device with this segment size."""
    shape = layout(buffer, at, size)
    if shape is None or buffer[at] & train.PARTIAL or not segment:
        return None
    end = stated_length(buffer, at)
    if not shape.length < end <= size or end - shape.length > MAX_SEGMENTS * segment:
        return None
    return shape


def prepare(buffer: bytearray, at: int, shape: Layout, segment: int, skipped: int) -> tuple[int, int]:
    """Write the virtio header before the super-packet at ``at`` and its lengths and begun checksum anew.

    The first ``skipped`` bytes of its payload, whole segments, are left out. Returns where the packet begins
    and ends.
    """
    end = at + stated_length(buffer, at)
    begin = at + skipped
    if skipped:
        buffer[begin : begin + shape.length] = buffer[at : at + shape.length]
    payload = end - begin - shape.length
    train.join(buffer, begin, shape, skipped=skipped, payload=payload, segment=segment, last=True)
    return begin, end
