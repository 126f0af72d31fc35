"""Who gets a STUN message that came in on the port.

A response belongs to whoever sent the request: by transaction id. A request with a USERNAME is an ICE
check: its part before the colon is the ufrag of the agent it is meant for (RFC 8445 section 7.2.2). A
request without one asks the STUN service. Everything else is dropped and counted.
"""

from collections.abc import Callable

from aioice import stun

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, UsageError
from dhtvpn.nat.check_budget import CheckBudget
from dhtvpn.nat.stun_messages import TRANSACTION_ID, is_indication, is_response, parse

MAX_AGENTS = 2048
"""ICE agents on one port. Ours: 1024 members, each once more while it restarts."""

MAX_TRANSACTIONS = 16384
"""Requests under way. Ours: every agent with eight pairs."""

StunReceiver = Callable[[stun.Message, Endpoint], None]


class StunRouter:
    """The register of agents and transactions. Handlers get parsed messages and must not raise."""

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._agents: dict[str, StunReceiver] = {}
        self._transactions: dict[bytes, StunReceiver] = {}
        self._service: StunReceiver | None = None
        self._unanswered_check: Callable[[str], None] | None = None
        self._questions: Callable[[bytes, Endpoint], bool] | None = None
        self.check_budget = CheckBudget()
        """For the checks of all agents."""

    @property
    def agents(self) -> int:
        return len(self._agents)

    @property
    def transactions(self) -> int:
        return len(self._transactions)

    def add_agent(self, ufrag: str, receiver: StunReceiver) -> None:
        """Send checks for ``ufrag`` to ``receiver``. Raises UsageError when taken or past MAX_AGENTS."""
        if ufrag in self._agents:
            raise UsageError("an ICE agent with these credentials is running: close it first")
        if len(self._agents) >= MAX_AGENTS:
            raise UsageError(f"more than {MAX_AGENTS} ICE agents on one port")
        self._agents[ufrag] = receiver

    def remove_agent(self, ufrag: str) -> None:
        self._agents.pop(ufrag, None)

    def expect(self, transaction_id: bytes, receiver: StunReceiver) -> None:
        """Send responses with ``transaction_id`` to ``receiver``. Raises UsageError past MAX_TRANSACTIONS."""
        if len(self._transactions) >= MAX_TRANSACTIONS:
            raise UsageError(f"more than {MAX_TRANSACTIONS} STUN requests under way")
        self._transactions[transaction_id] = receiver

    def forget(self, transaction_id: bytes) -> None:
        self._transactions.pop(transaction_id, None)

    def on_binding_request(self, service: StunReceiver | None) -> None:
        """Who answers requests without USERNAME; None: nobody."""
        self._service = service

    def on_questions(self, handler: Callable[[bytes, Endpoint], bool] | None) -> None:
        """Who may take a request as it is before anybody reads it: True where that was his."""
        self._questions = handler

    def on_unanswered_check(self, handler: Callable[[str], None] | None) -> None:
        """Who is told of the ufrag of a check that no agent waits for: a peer that seeks a path anew."""
        self._unanswered_check = handler

    def handle_datagram(self, data: bytes, source: Endpoint) -> None:
        """Route one datagram that :func:`dhtvpn.nat.demux.classify` took for STUN. Never raises."""
        if is_response(data):
            receiver = self._transactions.get(bytes(data[TRANSACTION_ID]))
            if receiver is None:
                self._drops.count("stun", "transaction")
                return
        elif is_indication(data):
            # RFC 8445 section 11: keepalives. They have done their work at the NAT.
            self._drops.count("stun", "indication")
            return
        else:
            receiver = None
            if self._questions is not None and self._questions(data, source):
                return
        try:
            message = parse(data)
        except DecodeError as error:
            self._count_undecodable(error.reason)
            return
        if receiver is None:
            receiver = self._receiver_of_request(message)
        if receiver is not None:
            receiver(message, source)

    def _receiver_of_request(self, message: stun.Message) -> StunReceiver | None:
        if message.message_method is not stun.Method.BINDING:
            self._drops.count("stun", "method")
            return None
        username = message.attributes.get("USERNAME")
        if username is None:
            if self._service is None:
                self._drops.count("stun", "no_service")
            return self._service
        ufrag = username.partition(":")[0]
        agent = self._agents.get(ufrag)
        if agent is None:
            # Usual for seconds: the peer has our record before we have the peer's.
            self._drops.count("stun", "ufrag")
            if self._unanswered_check is not None:
                self._unanswered_check(ufrag)
        return agent

    def _count_undecodable(self, reason: str) -> None:
        self._drops.count("stun", reason)
