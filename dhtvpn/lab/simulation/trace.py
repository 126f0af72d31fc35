"""What one lookup costs, read off the wire of the node that looks: datagrams, octets, rounds.

A round (hop) is a step away from the node's own table: contacts in the table are asked in round 1, those
that an answer of round r named for the first time in round r + 1.
"""

from dhtvpn.discovery.wire import KIND_REPLY, KIND_REQUEST, Rpc, decode_reply, decode_request, split
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.lab.simulation.internet import OVERHEAD, Line


class Trace:
    """Listens to one line from its making until :meth:`stop`."""

    def __init__(self, line: Line) -> None:
        self.sent = self.received = self.octets_sent = self.octets_received = 0
        self.rounds = 0
        self._asked: dict[bytes, tuple[Rpc, Endpoint]] = {}
        self._round: dict[Endpoint, int] = {}
        self._line = line
        line.tap = self._see

    def stop(self) -> None:
        self._line.tap = None

    def _see(self, at: float, outgoing: bool, data: bytes, other: Endpoint) -> None:
        if outgoing:
            self.sent += 1
            self.octets_sent += len(data) + OVERHEAD
        else:
            self.received += 1
            self.octets_received += len(data) + OVERHEAD
        try:
            kind, message_id, body = split(data)
            if outgoing and kind == KIND_REQUEST:
                self._asked[message_id] = (decode_request(body).rpc, other)
                self.rounds = max(self.rounds, self._round.setdefault(other, 1))
            elif not outgoing and kind == KIND_REPLY:
                self._learn(message_id, body, other)
        except DecodeError:
            pass  # hostile bytes: counted above

    def _learn(self, message_id: bytes, body: bytes, source: Endpoint) -> None:
        rpc, asked = self._asked.get(message_id, (Rpc.PING, source))
        if rpc not in (Rpc.FIND, Rpc.FIND_NODE) or asked != source:
            return
        after = self._round.get(source, 1) + 1
        for contact in decode_reply(rpc, body, source).contacts:
            self._round.setdefault(contact.endpoint, after)
