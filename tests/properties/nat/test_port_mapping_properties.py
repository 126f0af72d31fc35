"""Whatever a gateway sends, reading it ends in a value or in a DecodeError."""

import asyncio
import random
from ipaddress import ip_address

from fake_gateway import GATEWAY, PORT, FakeGateway, answer, description, soap_answer, ssdp_answer
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import description as descriptions
from dhtvpn.nat.port_mapping import http, natpmp_messages, pcp_messages, soap, ssdp
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.port_mapping.keeper import Keeper
from dhtvpn.nat.port_mapping.natpmp import NatPmp
from dhtvpn.nat.port_mapping.pcp import Pcp
from dhtvpn.nat.port_mapping.terms import LIFETIME_S, Method
from dhtvpn.nat.port_mapping.upnp import Upnp
from dhtvpn.nat.port_mapping.url import GatewayUrl

NONCE = bytes(12)
HOST = str(GATEWAY.address)
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"
SAMPLES = [
    bytes.fromhex(
        "02810000000004b000010203000000000000000000000000"
        "000000000000000000000000110000001252124200000000000000000000ffffc6336407"
    ),
    bytes.fromhex("0080000000010203c6336407"),
    bytes.fromhex("0081000000010203125212520000" + "04b0"),
    ssdp_answer("http://192.168.1.1:5000/root.xml"),
    description(2),
    soap_answer(KIND, "GetExternalIPAddress", {"NewExternalIPAddress": "198.18.0.1"}),
    answer(200, description(1)),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good answer with some octets changed, taken out or put in; sometimes only noise."""
    data = bytearray(draw(st.sampled_from([*SAMPLES, draw(st.binary(max_size=200))])))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case 2:
                data[at:at] = draw(st.sampled_from(SAMPLES))[: draw(st.integers(1, 300))]
            case _:
                data[at:at] = draw(
                    st.sampled_from([b"<", b">", b"&a;", b"\r\n", b"\x00", b"99999999", b"\xc3\xa9"])
                )
    return bytes(data)


def feed(data: bytes, size: int) -> None:
    response = http.Response()
    for at in range(0, len(data), size):
        response.feed(data[at : at + size])
    response.end()
    assert len(response.body) <= http.MAX_BODY


@settings(max_examples=400)
@given(data=mutated(), size=st.integers(1, 2000))
def test_reading_never_raises_anything_else(data: bytes, size: int) -> None:
    base = GatewayUrl(5000, "/")
    for read in (
        lambda: pcp_messages.decode_map(data, NONCE, PORT),
        lambda: natpmp_messages.decode_address(data),
        lambda: natpmp_messages.decode_map(data, PORT),
        lambda: ssdp.decode(data, HOST),
        lambda: descriptions.decode(data, base, HOST),
        lambda: soap.decode(data, "GetExternalIPAddress"),
        lambda: feed(data, size),
    ):
        try:
            read()
        except DecodeError as error:
            assert error.reason.isidentifier()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Half of what a gateway sends, spoilt."""
    if chance.random() < 0.5 or not data:
        return data
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if chance.random() < 0.3:
            del spoilt[chance.randrange(len(spoilt)) :]
        elif spoilt:
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        if not spoilt:
            break
    return bytes(spoilt)


async def live_with(seed: int) -> None:
    """Two hours with a gateway that spoils what it says."""
    chance, router, drops = random.Random(seed), FakeGateway(), Drops()
    now = asyncio.get_running_loop().time
    pcp, natpmp, search, web = router.pcp, router.natpmp, router.ssdp, router.web
    assert pcp is not None and natpmp is not None
    router.pcp = lambda request: [mutate(data, chance) for data in pcp(request)]
    router.natpmp = lambda request: [mutate(data, chance) for data in natpmp(request)]
    router.ssdp = lambda request: [mutate(data, chance) for data in search(request)]
    router.web = lambda request: mutate(web(request), chance)

    def methods() -> list[Method]:
        return [
            Pcp(GATEWAY, PORT, router.port_channel("pcp"), nonce=NONCE, drops=drops, now=now),
            NatPmp(PORT, router.port_channel("natpmp"), drops=drops, now=now),
            Upnp(
                GATEWAY,
                PORT,
                router.port_channel("ssdp"),
                fetch,
                drops=drops,
                random_bytes=chance.randbytes,
            ),
        ]

    async def fetch(port: int, request: bytes) -> http.Response:
        if port != 5000 or (b"/rootDesc.xml " not in request and b"/ctl/IPConn " not in request):
            raise ConnectionRefusedError
        return await router.fetch(port, request)

    def changed() -> None:
        if keeper.granted is not None:
            assert is_public(ip_address(keeper.granted.external.host))
            assert 0 < keeper.granted.external.port < 65536
            assert 0 < keeper.granted.lifetime_s <= LIFETIME_S

    keeper = Keeper(GATEWAY, methods, changed=changed, fraction=chance.random)
    task = asyncio.create_task(keeper.run())
    await asyncio.sleep(7000)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await keeper.release()
    keeper.close()
    assert router.open_sockets == 0
    assert len(router.requests) < 7000


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_gateway_that_spoils_half_of_what_it_says(seed: int) -> None:
    run(live_with(seed))
