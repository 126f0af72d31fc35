"""docs/protocol/control-frames.md, byte by byte."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh import frames
from dhtvpn.mesh.frames import Blocks, Goodbye, Hello, Ping, Pong, Probe, ProbeAck, decode, encode
from dhtvpn.mesh.routes import MAX_LINKS, Links

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/mesh/frames.json").read_text())
TOKEN = bytes.fromhex(VECTORS["ping"]["token"])
FRAMES = {
    "hello": Hello(bytes.fromhex(VECTORS["hello"]["session_nonce"]), 0, "laptop"),
    "ping": Ping(TOKEN),
    "pong": Pong(TOKEN),
    "goodbye": Goodbye(),
    "probe": Probe(TOKEN),
    "probe_ack": ProbeAck(TOKEN),
    "blocks": Blocks(wanted=True),
}


@pytest.mark.parametrize("name", FRAMES)
def test_vectors(name: str) -> None:
    data = bytes.fromhex(VECTORS[name]["bytes"])
    assert encode(FRAMES[name]) == data
    assert decode(data) == FRAMES[name]
    assert decode(data + bytes(13)) == FRAMES[name], "the padding of the data message is ignored"


def test_a_probe_is_as_long_as_its_padding() -> None:
    assert decode(encode(Probe(TOKEN)).ljust(8940, b"\0")) == Probe(TOKEN)


def test_no_frame_looks_like_an_ip_packet() -> None:
    assert all(encode(frame)[0] >> 4 == 0 for frame in FRAMES.values())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "frame_length"),
        (b"\x02\x00", "frame_length"),
        (b"\x02\x00\x08short", "frame_length"),
        (b"\x02\xff\xff" + bytes(70000), "frame_length"),
        (b"\x02\x00\x07" + bytes(7), "frame_body"),
        (b"\x05\x00\x07" + bytes(9000), "frame_body"),
        (b"\x0f\x00\x00", "frame_kind"),
        (b"\x09\x00\x01\x02", "frame_body"),
        (b"\x09\x00\x00", "frame_body"),
        (b"\x01\x00\x05" + bytes(5), "frame_body"),
        (bytes.fromhex(VECTORS["hello"]["bytes"]).replace(b"laptop", b"lap\xfftop"[:6]), "frame_body"),
        (bytes.fromhex(VECTORS["hello"]["bytes"]).replace(b"\x06laptop", b"\x3flaptop"), "frame_body"),
        (bytes.fromhex(VECTORS["hello"]["bytes"]).replace(b"laptop", b"-aptop"), "frame_body"),
    ],
)
def test_bad_frames_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_a_later_hello_is_read_as_far_as_it_is_known() -> None:
    body = bytearray(bytes.fromhex(VECTORS["hello"]["bytes"])[3:])
    body[0] = 2
    longer = bytes(body) + b"what comes later"
    assert decode(b"\x01" + len(longer).to_bytes(2, "big") + longer) == FRAMES["hello"]


@given(st.binary(max_size=1500))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        frame = decode(data)
    except DecodeError:
        return
    assert decode(encode(frame)) == frame


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), NAMES)
def test_hello_round_trip(nonce: bytes, features: int, name: str) -> None:
    assert decode(encode(Hello(nonce, features, name))) == Hello(nonce, features, name)


NONCE16, KEY8 = bytes(range(16)), b"neighbou"


@given(st.binary(max_size=80), st.sampled_from([7, 8]))
def test_signals_and_neighbours_are_decoded_or_refused(body: bytes, kind: int) -> None:
    data = bytes((kind,)) + len(body).to_bytes(2, "big") + body
    try:
        frame = frames.decode(data)
    except DecodeError as error:
        assert error.reason == "frame_body"
    else:
        assert isinstance(frame, frames.Signal | frames.Neighbours)


def test_the_bytes_of_a_signal() -> None:
    signal = frames.Signal(NONCE16, ((1, Endpoint("192.0.2.1", 4690)), (2, Endpoint("2001:db8::1", 1))))
    text = "070030" + NONCE16.hex() + "0106c00002011252" + "0212" + "20010db8" + "00" * 11 + "01" + "0001"
    body = bytes.fromhex(text)
    assert frames.encode(signal)[3:] == body[3:] and frames.decode(frames.encode(signal)) == signal
    full = frames.Signal(NONCE16, ((2, Endpoint("2001:db8::1", 1)),) * frames.MAX_CANDIDATES)
    assert frames.decode(frames.encode(full)) == full
    assert len(frames.encode(full)) <= frames.MAX_FRAME


def test_the_bytes_of_neighbours() -> None:
    links = Links(b"originor", 0x01020304, {KEY8: 12.3, b"secondse": 7000.0}, 2)
    data = frames.encode(frames.Neighbours(links))
    assert data.hex() == (
        "080022" + b"originor".hex() + "010203040202" + KEY8.hex() + "007b" + b"secondse".hex() + "ffff"
    )
    again = frames.decode(data)
    assert again == frames.Neighbours(Links(b"originor", 0x01020304, {KEY8: 12.3, b"secondse": 6553.5}, 2))
    most = Links(b"originor", 1, {n.to_bytes(8, "big"): 1.0 for n in range(MAX_LINKS)})
    assert len(frames.encode(frames.Neighbours(most))) <= frames.MAX_FRAME
