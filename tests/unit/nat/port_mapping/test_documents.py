"""What a UPnP gateway sends: URLs, search answers, descriptions, SOAP and HTTP, good and bad."""

import re

import pytest
from fake_gateway import answer, description, fault, soap_answer, ssdp_answer

from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import description as descriptions
from dhtvpn.nat.port_mapping import http, soap, ssdp, strict_xml
from dhtvpn.nat.port_mapping.url import GatewayUrl, parse, resolve

GATEWAY = "192.168.1.1"
BASE = GatewayUrl(5000, "/igd/root.xml")
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://192.168.1.1:5000/root.xml", GatewayUrl(5000, "/root.xml")),
        ("HTTP://192.168.1.1/a?b=c#d", GatewayUrl(80, "/a?b=c")),
        ("http://192.168.1.1", GatewayUrl(80, "/")),
    ],
)
def test_urls_at_the_gateway(text: str, expected: GatewayUrl) -> None:
    assert parse(text, GATEWAY) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://192.168.1.10/",
        "http://192.168.1.1.2/",
        "http://user@192.168.1.1/",
        "http://192.168.1.1:80:80/",
        "http://192.168.1.1:/x",
        "http://192.168.1.1/a\r\nHost: x",
        "http://192.168.1.1/é",
        "http://192.168.001.001/",
        "http://gateway.example/",
        "https://192.168.1.1/",
        "http://192.168.1.1/" + "a" * 500,
    ],
)
def test_all_other_urls_are_refused(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse(text, GATEWAY)
    assert caught.value.reason == "upnp_url"


def test_relative_urls() -> None:
    assert resolve("/ctl/IPConn", BASE, GATEWAY) == GatewayUrl(5000, "/ctl/IPConn")
    assert resolve("ctl", BASE, GATEWAY) == GatewayUrl(5000, "/igd/ctl")
    assert resolve("http://192.168.1.1:99/x", BASE, GATEWAY) == GatewayUrl(99, "/x")
    for text in ("//192.0.2.1/x", "http://192.0.2.1/x", "a b", "x" * 600):
        with pytest.raises(DecodeError):
            resolve(text, BASE, GATEWAY)


def test_the_search_goes_to_the_group_and_its_answer_names_a_place() -> None:
    for request in ssdp.search_requests():
        assert re.fullmatch(
            rb'M-SEARCH \* HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
            rb"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:[12]\r\n\r\n",
            request,
        )
    assert ssdp.decode(ssdp_answer("http://192.168.1.1:5000/x"), GATEWAY) == GatewayUrl(5000, "/x")


def test_answers_of_other_devices_and_notifications_are_no_answer() -> None:
    for data in (
        ssdp_answer("http://192.168.1.1/x", "urn:schemas-upnp-org:device:MediaServer:1"),
        b"NOTIFY * HTTP/1.1\r\n\r\n",
        ssdp_answer("http://192.168.1.1/x") + bytes(2000),
    ):
        with pytest.raises(DecodeError):
            ssdp.decode(data, GATEWAY)


def test_services_best_first_and_those_elsewhere_left_out() -> None:
    document = (
        "<root><device><serviceList>"
        "<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>"
        "<controlURL>/ppp</controlURL></service>"
        f"<service><serviceType>{KIND}</serviceType><controlURL>http://192.0.2.66/ip</controlURL></service>"
        f"<service><serviceType>{KIND}</serviceType><controlURL> /ip </controlURL></service>"
        f"<service><serviceType>{KIND[:-1]}2</serviceType><controlURL>ip2</controlURL></service>"
        "</serviceList></device></root>"
    ).encode()
    services = descriptions.decode(document, BASE, GATEWAY)
    assert [service.control.path for service in services] == ["/igd/ip2", "/ip", "/ppp"]
    assert [service.chooses_ports for service in services] == [True, False, False]


def test_a_base_of_its_own() -> None:
    more = "<URLBase>http://192.168.1.1:81/</URLBase>"
    (service,) = descriptions.decode(description(1, "ctl", more), BASE, GATEWAY)
    assert service.control == GatewayUrl(81, "/ctl")


def test_at_most_four_services() -> None:
    one = f"<service><serviceType>{KIND}</serviceType><controlURL>/%d</controlURL></service>"
    document = "<root>" + "".join(one % number for number in range(100)) + "</root>"
    assert len(descriptions.decode(document.encode(), BASE, GATEWAY)) == 4


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (
            b'<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><lolz>&lol2;</lolz>',
            "xml_doctype",
        ),
        (b'<!DOCTYPE x SYSTEM "http://192.0.2.66/x"><x/>', "xml_doctype"),
        (b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>', "xml_doctype"),
        (b"<x>&undefined;</x>", "xml_format"),
        (b"<a>" * 25 + b"</a>" * 25, "xml_size"),
        (b"<a>" + b"<b/>" * 2000 + b"</a>", "xml_size"),
        (b"<a>" + b" " * 70_000 + b"</a>", "xml_size"),
        (b"<a><b></a>", "xml_format"),
        (b"", "xml_format"),
        (b"\xff\xfe", "xml_format"),
        (b'<?xml version="1.0" encoding="nonesuch"?><a/>', "xml_format"),
        (b"<a/><b/>", "xml_format"),
    ],
)
def test_hostile_xml(document: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        strict_xml.parse(document)
    assert caught.value.reason == reason


def test_long_text_is_cut() -> None:
    assert len(strict_xml.parse(b"<a>" + b"x" * 60_000 + b"</a>").text) == strict_xml.MAX_TEXT


def test_a_call_and_its_answer() -> None:
    body = soap.body(KIND, "AddPortMapping", {"NewRemoteHost": "", "NewPort": 4690, "NewText": "<&>"})
    assert b"<NewRemoteHost></NewRemoteHost><NewPort>4690</NewPort><NewText>&lt;&amp;&gt;</NewText>" in body
    assert strict_xml.parse(body).name == "Envelope"
    assert soap.headers(KIND, "X")["SOAPAction"] == f'"{KIND}#X"'
    result = {"NewExternalIPAddress": "198.18.0.1"}
    assert soap.decode(soap_answer(KIND, "GetExternalIPAddress", result), "GetExternalIPAddress") == result
    with pytest.raises(DecodeError):
        soap.decode(soap_answer(KIND, "GetExternalIPAddress", result), "AddPortMapping")


@pytest.mark.parametrize(("code", "told"), [(718, 718), (0, 0), (99999999, 0), (-1, 0)])
def test_a_fault_has_a_number(code: int, told: int) -> None:
    with pytest.raises(soap.FaultError) as caught:
        soap.decode(fault(code), "AddPortMapping")
    assert caught.value.code == told


def test_a_request() -> None:
    assert http.request(GATEWAY, "/x", 5000, {}) == (
        b"GET /x HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n"
        b"User-Agent: dhtvpn UPnP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert http.request(GATEWAY, "/x", 80, {"A": "b"}, b"body").endswith(b"Content-Length: 4\r\n\r\nbody")


ANSWERS = [
    answer(200, b"body"),
    b"HTTP/1.0 200 OK\r\n\r\nbody",
    b"HTTP/1.1 200\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nbod\r\n1\r\ny\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("data", ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_answers_in_any_pieces(data: bytes, size: int) -> None:
    response = http.Response()
    for at in range(0, len(data), size):
        response.feed(data[at : at + size])
    response.end()
    assert (response.status, response.body, response.complete) == (200, b"body", True)


def test_what_is_cut_off_is_no_answer() -> None:
    for data in ANSWERS[::2]:
        response = http.Response()
        response.feed(data[:-9])
        with pytest.raises(DecodeError):
            response.end()
