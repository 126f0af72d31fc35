"""Seals a super-packet as a train: in the buffer where the device has put it, without copying a piece.

The pieces lie side by side behind the headers. Each is sealed together with the headers before it: those are
written over the end of the piece before, which has been sealed by then.
"""

from collections.abc import Iterator
from typing import Final

from dhtvpn.dataplane.block_sender import BlockSender
from dhtvpn.dataplane.sockets import MAX_RUN_BYTES, MAX_RUN_DATAGRAMS
from dhtvpn.packet.train import last_head, segment_head
from dhtvpn.packet.transport import Layout
from dhtvpn.wireguard.constants import PADDING_UNIT
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, OVERHEAD, Session

MAX_SHAPES: Final = 16  # ours: pairs of header length and segment size whose slices are kept

_Slices = list[tuple[memoryview, memoryview, memoryview]]


class TrainSender:
    """Works on ``buffer``, in which super-packets begin at ``at``."""

    def __init__(self, buffer: bytearray, at: int) -> None:
        self.buffer = buffer
        self.blocks = BlockSender(buffer, at)
        """Seals the same super-packets whole."""
        self._view = memoryview(buffer)
        self._at = at
        self._run = bytearray(MAX_RUN_BYTES)
        self._run_view = memoryview(self._run)
        self._slices: dict[tuple[int, int], _Slices] = {}

    def runs(
        self, session: Session, message_type: int, shape: Layout, size: int, segment: int
    ) -> Iterator[tuple[memoryview, int]]:
        """Runs of datagrams for the super-packet of ``size`` bytes, each with the length of its datagrams,
        the last of which may be shorter. A run is gone when the next one is asked for.

        Nothing where the session is used up.
        """
        buffer, view, at, run = self.buffer, self._view, self._at, self._run
        head_length = shape.length
        payload = size - head_length
        pieces = -(-payload // segment)
        first = session.reserve(pieces)
        if first is None:
            return
        rest = payload - (pieces - 1) * segment
        end_head = last_head(buffer, at, shape, payload - rest, rest)
        head = segment_head(buffer, at, shape, first)
        seal, index = session.seal_into[message_type], session.remote_index
        stride = segment + head_length + OVERHEAD
        slices = self._slices_for(head_length, segment)
        pack_header, pack_nonce = HEADER.pack_into, NONCE.pack
        counter, last = first, first + pieces - 1
        while counter <= last:
            offset = 0
            for head_slot, plaintext, sealed in slices:
                if counter == last:
                    break
                head_slot[:] = head
                pack_header(run, offset, message_type, index, counter)
                seal(pack_nonce(counter), plaintext, None, sealed)
                offset += stride
                counter += 1
            else:
                # a full run, and more to come: move what is left to where the slices are
                yield self._run_view[:offset], stride
                left = bytes(view[at + head_length + len(slices) * segment : at + size])
                view[at + head_length : at + head_length + len(left)] = left
                size = head_length + len(left)
                continue
            start = at + (offset // stride) * segment
            end = start + head_length + rest
            buffer[start : start + head_length] = end_head
            padded = min(-(-(end - start) // PADDING_UNIT) * PADDING_UNIT, head_length + segment)
            buffer[end : start + padded] = bytes(start + padded - end)
            pack_header(run, offset, message_type, index, counter)
            sealed_end = offset + padded + OVERHEAD
            seal(
                pack_nonce(counter),
                view[start : start + padded],
                None,
                self._run_view[offset + HEADER_SIZE : sealed_end],
            )
            counter += 1
            yield self._run_view[:sealed_end], stride

    def _slices_for(self, head_length: int, segment: int) -> _Slices:
        """For every piece of a run: where its headers go, its plaintext, and where it is sealed to."""
        key = head_length, segment
        slices = self._slices.get(key)
        if slices is None:
            stride = segment + head_length + OVERHEAD
            slices = []
            for piece in range(min(MAX_RUN_DATAGRAMS, MAX_RUN_BYTES // stride)):
                start, offset = self._at + piece * segment, piece * stride
                slices.append(
                    (
                        self._view[start : start + head_length],
                        self._view[start : start + head_length + segment],
                        self._run_view[offset + HEADER_SIZE : offset + stride],
                    )
                )
            if len(self._slices) >= MAX_SHAPES:
                self._slices.clear()
            self._slices[key] = slices
        return slices
