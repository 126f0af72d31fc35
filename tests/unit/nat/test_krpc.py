"""Pings of the BitTorrent DHT: an answer as libtorrent gives it, and what is none."""

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat import krpc

ANSWER = b"d2:ip6:\x7f\x00\x00\x01\xaa\xa91:rd2:id20:%b1:pi43689ee1:t4:abcd1:v4:LT\x02\x111:y1:re" % bytes(20)


def test_an_answer_of_libtorrent():
    assert krpc.transaction_and_endpoint(ANSWER) == (b"abcd", Endpoint("127.0.0.1", 43689))


@pytest.mark.parametrize("end", range(len(ANSWER)))
def test_what_is_cut_off_is_refused(end):
    with pytest.raises(DecodeError):
        krpc.transaction_and_endpoint(ANSWER[:end])


def test_a_ping_is_no_answer_and_depth_is_bounded():
    with pytest.raises(DecodeError, match="kind"):
        krpc.transaction_and_endpoint(krpc.ping(bytes(20), b"12345678"))
    with pytest.raises(DecodeError):
        krpc.transaction_and_endpoint(b"d1:a" + b"l" * 200 + b"e" * 200 + b"e")
