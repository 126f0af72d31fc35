"""Every DHT node is a STUN server: it tells who asks which endpoint the question came from.

A Binding request without USERNAME gets a success response with XOR-MAPPED-ADDRESS and nothing else
(RFC 8489 section 12): 32 or 44 bytes for 20, so it amplifies by at most 2.2. Requests are limited per
source and in total, and those that ask for what we do not have (CHANGE-REQUEST in any form but that of
filter_test.py) get no answer.
"""

import time
from collections.abc import Callable

from aioice import stun

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import filter_test, size_test
from dhtvpn.nat.plain_stun import answer_filter_test, success
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_limit import SourceLimit
from dhtvpn.nat.stun_messages import binding_response

_UNSUPPORTED = ("CHANGE-REQUEST",)


class StunService:
    """Answers on ``port`` from when it is made until :meth:`close`."""

    def __init__(self, port: UdpPort, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        self._clock = clock
        self._limit = SourceLimit(clock())
        self.answered = 0
        port.stun.on_binding_request(self.handle_request)
        port.stun.on_questions(self.handle_question)

    def handle_request(self, message: stun.Message, source: Endpoint) -> None:
        """Answer one Binding request. Never raises."""
        if any(name in message.attributes for name in _UNSUPPORTED):
            self._port.drops.count("stun", "unsupported")
            return
        if not self._limit.allows(source.host, self._clock()):
            self._port.drops.count("stun", "rate")
            return
        self.answered += 1
        fingerprint = "FINGERPRINT" in message.attributes  # RFC 8489 section 14.7
        self._port.answer(binding_response(message.transaction_id, source, fingerprint), source)

    def handle_question(self, data_untrusted: bytes, source: Endpoint) -> bool:
        """Answer a filter test (filter_test.py) or a size test (size_test.py); False where it is neither.
        Never raises."""
        filtering = filter_test.transaction_of(data_untrusted)
        size = size_test.transaction_of(data_untrusted)
        if filtering is None and size is None:
            return False
        if not self._limit.allows(source.host, self._clock()):
            self._port.drops.count("stun", "rate")
            return True
        self.answered += 1
        if filtering is not None:
            answer_filter_test(self._port, filtering, source)
        elif size is not None:
            self._port.answer(success(size, source, fingerprint=False), source)
        return True

    def close(self) -> None:
        self._port.stun.on_questions(None)
        self._port.stun.on_binding_request(None)
