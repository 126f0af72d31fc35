"""The Internet checksum against published and hand-made sums."""

from dhtvpn.packet.checksum import internet_checksum, ipv6_pseudo_header_sum


def test_rfc_1071_section_3_example() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


def test_odd_length_counts_the_last_byte_high() -> None:
    assert internet_checksum(b"\x01\x02\x03") == internet_checksum(b"\x01\x02\x03\x00")


def test_over_its_own_checksum_the_sum_is_zero() -> None:
    data = bytes(range(20))
    assert internet_checksum(data + internet_checksum(data).to_bytes(2, "big")) == 0


def test_pseudo_header_of_ipv6() -> None:
    source, destination = bytes(15) + b"\x01", bytes(15) + b"\x02"
    assert ipv6_pseudo_header_sum(source, destination, 0x10008, 58) == 1 + 2 + 1 + 8 + 58
