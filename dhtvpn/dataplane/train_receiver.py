"""Opens a train where it has arrived, and puts its pieces side by side without copying them.

The pieces are opened from the last to the first, each to where it belongs: its headers then lie over the end
of the piece before, which is opened next and overwrites them. What comes out is the super-packet, behind one
set of headers. A piece that is missing, not authentic or out of place only splits it in two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag

from dhtvpn.drops import Drops
from dhtvpn.packet import virtio
from dhtvpn.packet.train import ends, is_partial, join, place
from dhtvpn.packet.transport import Layout, layout, stated_length
from dhtvpn.wireguard.transport import HEADER, HEADER_SIZE, NONCE, OVERHEAD, Session

MAX_SHAPES: Final = 16  # ours: lengths of datagrams and headers whose slices are kept

_AT: Final = virtio.SIZE
_Slices = list[tuple[memoryview, memoryview]]


@dataclass(slots=True)
class _Run:
    """The messages of one session and type in what one recvmsg gave."""

    session: Session
    kind: int
    start: int
    end: int
    """Where they stand in the buffer."""
    stride: int
    """Bytes of each; the last may be shorter."""
    count: int
    first: bytes
    """The plaintext of the message at position 0."""
    shape: Layout
    first_counter: int
    place: int
    """The place of position 0 in its train."""
    segment: int
    """Payload bytes of each piece."""


class TrainReceiver:
    """Works on ``datagrams``, the buffer that recvmsg fills.

    ``deliver`` gets (buffer, start, end): a super-packet with its virtio header. ``deliver_single`` gets the
    plaintext of a message that is no piece of the train around it.
    """

    def __init__(
        self,
        datagrams: bytearray,
        drops: Drops,
        deliver: Callable[[bytearray, int, int], None],
        deliver_single: Callable[[bytes], None],
        is_to_drop: Callable[[], bool],
    ) -> None:
        self._datagrams = datagrams
        self._view = memoryview(datagrams)
        self._drops = drops
        self._deliver = deliver
        self._deliver_single = deliver_single
        self._is_to_drop = is_to_drop
        # Every piece ends where its datagram did or before, and the first starts at _AT.
        self._plain = bytearray(_AT + len(datagrams))
        self._plain_view = memoryview(self._plain)
        self._slices: dict[tuple[int, int, int], _Slices] = {}

    def open_run(self, session: Session, first: bytes, start: int, end: int, stride: int) -> int:
        """Open the run from ``start`` to ``end``, of datagrams of ``stride`` bytes, the last maybe shorter.

        ``first`` is the plaintext of its first message, a SEGMENT, opened and accepted already. Returns where
        the messages end that are dealt with: one of another session or type is not.
        """
        shape = layout(first, 0, len(first))
        if shape is None or shape.length >= len(first) or start + stride > end:
            self._drops.count("dataplane", "bad_segment")
            return start + stride
        kind, _, counter = HEADER.unpack_from(self._datagrams, start)
        count = self._count_of_session(start, end, stride)
        run = _Run(
            session=session,
            kind=kind,
            start=start,
            end=min(end, start + count * stride),
            stride=stride,
            count=count,
            first=first,
            shape=shape,
            first_counter=counter,
            place=place(first, shape, counter),
            segment=len(first) - shape.length,
        )
        members, singles = self._open_backwards(run)
        self._deliver_forwards(run, members, singles)
        return run.end

    def _count_of_session(self, start: int, end: int, stride: int) -> int:
        """How many messages from ``start`` on carry the same type and receiver index."""
        prefix, startswith = bytes(self._view[start : start + 8]), self._datagrams.startswith
        count, at = 1, start + stride
        while at + OVERHEAD <= end and startswith(prefix, at):
            at += stride
            count += 1
        return count

    def _open_backwards(self, run: _Run) -> tuple[list[int], dict[int, tuple[int, bytes]]]:
        """Open all but the first message. Returns the positions of the run's pieces, last first, and for the
        others that are authentic their counter and plaintext by position."""
        datagrams, stride, end, segment = self._datagrams, run.stride, run.end, run.segment
        unpack, pack, open_into = HEADER.unpack_from, NONCE.pack, run.session.open_into[run.kind]
        startswith, head = self._plain.startswith, run.first[: run.shape.length]
        slices = self._slices_for(run.start, stride, segment)
        members: list[int] = []
        singles: dict[int, tuple[int, bytes]] = {}
        at, expected = run.start + run.count * stride, run.first_counter + run.count
        for position in range(run.count - 1, 0, -1):
            at -= stride
            expected -= 1
            counter = unpack(datagrams, at)[2]
            if at + stride <= end:
                sealed, plaintext = slices[position]
            else:
                sealed = self._view[at + HEADER_SIZE : end]
                place_at = _AT + position * segment
                plaintext = self._plain_view[place_at : place_at + end - at - OVERHEAD]
            try:
                open_into(pack(counter), sealed, None, plaintext)
            except InvalidTag:
                self._drops.count("dataplane", "data_tag")
                continue
            if counter == expected and startswith(head, _AT + position * segment) and at + stride <= end:
                members.append(position)
            else:
                singles[position] = counter, bytes(plaintext)
        return members, singles

    def _deliver_forwards(self, run: _Run, members: list[int], singles: dict[int, tuple[int, bytes]]) -> None:
        """Hand over what was opened, first to last; nothing that came before is handed over again."""
        self._plain[_AT : _AT + len(run.first)] = run.first  # the headers of piece 1 lay over its end
        for begin, end in _ranges([*members, 0]):
            for position in sorted(position for position in singles if position < begin):
                self._single(run, *singles.pop(position))
            for accepted_begin, accepted_end in self._accept(run, begin, end):
                rest = self._end_piece(run, accepted_end, singles)
                self._deliver_pieces(run, accepted_begin, accepted_end, rest)
        for position in sorted(singles):
            self._single(run, *singles[position])

    def _accept(self, run: _Run, begin: int, end: int) -> list[tuple[int, int]]:
        """Tell the replay window of these pieces; returns the ranges of those that are new."""
        replay, unknown = run.session.replay, max(begin, 1)  # position 0 was accepted before
        if unknown == end or replay.accept_run(run.first_counter + unknown, end - unknown):
            return [(begin, end)]
        fresh = [p for p in range(end - 1, unknown - 1, -1) if replay.accept(run.first_counter + p)]
        self._drops.count("dataplane", "data_replay", end - unknown - len(fresh))
        return _ranges([*fresh, 0] if begin == 0 else fresh)

    def _end_piece(self, run: _Run, position: int, singles: dict[int, tuple[int, bytes]]) -> int:
        """The payload bytes of the train's last piece, if that stands at ``position``; 0 otherwise."""
        counter, plaintext = singles.get(position, (-1, b""))
        length = run.shape.length
        if counter != run.first_counter + position or not is_partial(plaintext) or len(plaintext) <= length:
            return 0
        rest, done = stated_length(plaintext) - length, (run.place + position) * run.segment
        if not 0 < rest <= min(run.segment, len(plaintext) - length):
            return 0
        if not ends(run.first[:length], plaintext[:length], run.shape, done, rest):
            return 0
        if not run.session.replay.accept(counter):
            return 0
        del singles[position]
        return rest

    def _deliver_pieces(self, run: _Run, begin: int, end: int, rest: int) -> None:
        if end - begin > 1 and self._is_to_drop():
            begin += 1
        at, length = _AT + begin * run.segment, run.shape.length
        payload = (end - begin) * run.segment + rest
        if begin:
            self._plain[at : at + length] = run.first[:length]
        join(
            self._plain,
            at,
            run.shape,
            skipped=(run.place + begin) * run.segment,
            payload=payload,
            segment=run.segment,
            last=rest > 0,
        )
        self._deliver(self._plain, at - _AT, at + length + payload)

    def _single(self, run: _Run, counter: int, plaintext: bytes) -> None:
        if run.session.replay.accept(counter):
            self._deliver_single(plaintext)
        else:
            self._drops.count("dataplane", "data_replay")

    def _slices_for(self, start: int, stride: int, segment: int) -> _Slices:
        """For every whole datagram that can stand in a run: what is sealed in it, and where it is opened."""
        key = start, stride, segment
        slices = self._slices.get(key)
        if slices is None:
            slices = []
            for position in range((len(self._datagrams) - start) // stride):
                at, place_at = start + position * stride, _AT + position * segment
                slices.append(
                    (
                        self._view[at + HEADER_SIZE : at + stride],
                        self._plain_view[place_at : place_at + stride - OVERHEAD],
                    )
                )
            if len(self._slices) >= MAX_SHAPES:
                self._slices.clear()
            self._slices[key] = slices
        return slices


def _ranges(descending: list[int]) -> list[tuple[int, int]]:
    """Neighbours among positions, given from the last to the first, as (begin, end) from the first on."""
    if descending and descending[0] - descending[-1] == len(descending) - 1:
        return [(descending[-1], descending[0] + 1)]
    ranges: list[tuple[int, int]] = []
    for position in reversed(descending):
        if ranges and ranges[-1][1] == position:
            ranges[-1] = ranges[-1][0], position + 1
        else:
            ranges.append((position, position + 1))
    return ranges
