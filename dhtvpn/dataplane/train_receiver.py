"""Opens a train where it has arrived, and puts its pieces side by side without copying them.

The pieces are opened from the last to the first, each to where it belongs: its headers then lie over the end
of the piece before, which is opened next and overwrites them. What comes out is the super-packet, behind one
set of headers. A piece that is missing, not authentic or out of place only splits it in two: what follows it
in the run, like what belongs to another train, is put together in a buffer of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag

from dhtvpn.drops import Drops
from dhtvpn.packet import virtio
from dhtvpn.packet.train import ends, is_partial, is_segment, join, place
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
    plaintext of a message that is no piece of the train around it. ``is_to_drop`` is asked with a
    piece's plaintext and its place whether one of its train is to go.
    """

    def __init__(
        self,
        datagrams: bytearray,
        drops: Drops,
        deliver: Callable[[bytearray, int, int], None],
        deliver_single: Callable[[bytes], None],
        is_to_drop: Callable[[bytes | bytearray, int], bool],
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
            self._deliver_others(run, begin, singles)
            for accepted_begin, accepted_end in self._accept(run, begin, end):
                rest = self._end_piece(run, accepted_end, singles)
                self._deliver_pieces(run, accepted_begin, accepted_end, rest)
        self._deliver_others(run, run.count, singles)

    def _deliver_others(self, run: _Run, end: int, singles: dict[int, tuple[int, bytes]]) -> None:
        """Hand over what stands before position ``end`` and is not side by side with the pieces of the run's
        first train: behind a missing piece, of the next train, or no piece at all."""
        stretch: _Stretch | None = None
        for position in sorted(position for position in singles if position < end):
            counter, plaintext = singles.pop(position)
            if not run.session.replay.accept(counter):
                self._drops.count("dataplane", "data_replay")
                continue
            if stretch is not None and stretch.add(counter, plaintext):
                continue
            self._deliver_stretch(stretch)
            stretch = None
            if plaintext and is_segment(plaintext):
                stretch = _Stretch.begin(counter, plaintext)
                if stretch is None:
                    self._drops.count("dataplane", "bad_segment")
            elif plaintext:
                self._deliver_single(plaintext)
        self._deliver_stretch(stretch)

    def _deliver_stretch(self, stretch: "_Stretch | None") -> None:
        if stretch is not None:
            buffer = stretch.joined()
            self._deliver(buffer, 0, len(buffer))

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
        if counter != run.first_counter + position:
            return 0
        rest = _rest(run.first, run.shape, run.segment, run.place + position, plaintext)
        if not rest or not run.session.replay.accept(counter):
            return 0
        del singles[position]
        return rest

    def _deliver_pieces(self, run: _Run, begin: int, end: int, rest: int) -> None:
        if end - begin > 1 and self._is_to_drop(run.first, 0):
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


class _Stretch:
    """Consecutive pieces of one train that do not lie side by side."""

    def __init__(self, counter: int, first: bytes, shape: Layout) -> None:
        self._next = counter + 1
        self._first = first
        self._shape = shape
        self._segment = len(first) - shape.length
        self._place = place(first, shape, counter)
        self._bodies: list[bytes] = []
        self._rest = 0

    @classmethod
    def begin(cls, counter: int, first: bytes) -> "_Stretch | None":
        """``first`` is a SEGMENT. None where its headers are no good."""
        shape = layout(first, 0, len(first))
        return cls(counter, first, shape) if shape is not None and shape.length < len(first) else None

    def add(self, counter: int, plaintext: bytes) -> bool:
        """Take ``plaintext`` if it is the next piece."""
        length, pieces = self._shape.length, len(self._bodies) + 1
        if counter != self._next or self._rest:
            return False
        if len(plaintext) != len(self._first) or not plaintext.startswith(self._first[:length]):
            rest = _rest(self._first, self._shape, self._segment, self._place + pieces, plaintext)
            if not rest:
                return False
            self._rest = rest
            plaintext = plaintext[: length + rest]
        self._bodies.append(plaintext[length:])
        self._next += 1
        return True

    def joined(self) -> bytearray:
        """The super-packet behind its virtio header."""
        buffer = bytearray().join((virtio.NONE, self._first, *self._bodies))
        join(
            buffer,
            _AT,
            self._shape,
            skipped=self._place * self._segment,
            payload=len(buffer) - _AT - self._shape.length,
            segment=self._segment,
            last=self._rest > 0,
        )
        return buffer


def _rest(first: bytes, shape: Layout, segment: int, position: int, plaintext: bytes) -> int:
    """The payload bytes of ``plaintext`` if it is the last piece, at place ``position``, of the train of
    ``first``, a SEGMENT; 0 otherwise."""
    length = shape.length
    if len(plaintext) <= length or not is_partial(plaintext):
        return 0
    rest = stated_length(plaintext) - length
    if not 0 < rest <= min(segment, len(plaintext) - length):
        return 0
    return rest if ends(first[:length], plaintext[:length], shape, position * segment, rest) else 0


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
