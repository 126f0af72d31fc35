"""PCP and NAT-PMP octet by octet, as the figures of the RFCs lay them out."""

from ipaddress import IPv4Address, IPv6Address

from dhtvpn.nat.port_mapping import natpmp_messages as natpmp
from dhtvpn.nat.port_mapping import pcp_messages as pcp

OWN = IPv4Address("192.168.1.10")
NONCE = bytes.fromhex("000102030405060708090a0b")


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def test_rfc_6887_section_14_1_announce_request() -> None:
    assert pcp.announce_request(OWN) == octets("02 00 0000 00000000 00000000000000000000ffffc0a8010a")


def test_rfc_6887_section_11_1_map_request_of_an_ipv4_client() -> None:
    """Figure 2, then figure 9: version 2, MAP, lifetime 1200; nonce, UDP (17), port 4690 inside and outside,
    any IPv4 address."""
    assert pcp.map_request(OWN, NONCE, 4690, 1200, (IPv4Address(0), 4690)) == octets(
        "02 01 0000 000004b0 00000000000000000000ffffc0a8010a"
        "000102030405060708090a0b 11 000000 1252 1252 00000000000000000000ffff00000000"
    )


def test_rfc_6887_section_15_a_deletion_has_lifetime_0_and_no_suggestion() -> None:
    assert pcp.map_request(OWN, NONCE, 4690, 0) == octets(
        "02 01 0000 00000000 00000000000000000000ffffc0a8010a"
        "000102030405060708090a0b 11 000000 1252 0000 00000000000000000000ffff00000000"
    )


def test_rfc_6887_section_11_1_map_request_of_an_ipv6_client() -> None:
    assert pcp.map_request(IPv6Address("2001:db8::10"), NONCE, 4690, 1200) == octets(
        "02 01 0000 000004b0 20010db8000000000000000000000010"
        "000102030405060708090a0b 11 000000 1252 0000 00000000000000000000000000000000"
    )


def test_rfc_6887_section_11_1_map_response() -> None:
    """Figure 3, then figure 10: success, lifetime 1200, epoch 66051; 198.51.100.7:40000."""
    data = octets(
        "02 81 00 00 000004b0 00010203 000000000000000000000000"
        "000102030405060708090a0b 11 000000 1252 9c40 00000000000000000000ffffc6336407"
    )
    assert pcp.decode_map(data, NONCE, 4690) == pcp.MapResponse(
        pcp.MAP, 0, 1200, 66051, 4690, 40000, IPv4Address("198.51.100.7")
    )


def test_rfc_6887_section_11_3_options_after_the_answer_are_passed_over() -> None:
    data = octets(
        "02 81 00 00 000004b0 00010203 000000000000000000000000"
        "000102030405060708090a0b 11 000000 1252 9c40 00000000000000000000ffffc6336407"
        "02 00 0000"
    )
    assert pcp.decode_map(data, NONCE, 4690).external_port == 40000


def test_rfc_6887_section_7_4_an_error_in_the_header_alone() -> None:
    response = pcp.decode(octets("02 81 00 08 0000001e 00000001 000000000000000000000000"))
    assert (response.result_name, response.lifetime_s, response.epoch_s) == ("NO_RESOURCES", 30, 1)


def test_rfc_6886_section_3_2_external_address() -> None:
    assert natpmp.address_request() == octets("00 00")
    data = octets("00 80 0000 00010203 c6336407")
    assert natpmp.decode_address(data) == natpmp.AddressResponse(0, 66051, IPv4Address("198.51.100.7"))


def test_rfc_6886_section_3_3_mapping() -> None:
    assert natpmp.map_request(4690, 4690, 1200) == octets("00 01 0000 1252 1252 000004b0")
    data = octets("00 81 0000 00010203 1252 9c40 000004b0")
    assert natpmp.decode_map(data, 4690) == natpmp.MapResponse(0, 66051, 40000, 1200)


def test_rfc_6886_section_3_4_deletion() -> None:
    assert natpmp.map_request(4690, 0, 0) == octets("00 01 0000 1252 0000 00000000")


def test_rfc_6886_section_3_5_an_error_without_a_body() -> None:
    response = natpmp.decode_map(octets("00 81 0002 00010203"), 4690)
    assert (response.result_name, response.external_port) == ("not authorized", 0)
