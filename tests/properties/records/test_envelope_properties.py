import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity
from dhtvpn.records import record as records
from dhtvpn.records import strict_cbor
from dhtvpn.records.envelope import (
    BUCKETS,
    MAX_ENVELOPE,
    MAX_LIFETIME_S,
    OpenedRecord,
    inspect,
    open_record,
    seal,
)
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.topic import Topic

IDENTITY = Identity.from_seed(b"\1" * 32)
TOPIC = Topic.derive(b"\2" * 32, 483_000)
NOW = 483_000 * 3600
LINK_LOCAL = ipaddress.ip_network("fe80::/64")
"""RFC 4291 section 2.5.6: the others have bits set where there have to be none."""

hosts = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).filter(
    lambda address: (
        not address.is_multicast
        and not address.is_unspecified
        and getattr(address, "ipv4_mapped", None) is None
        and address != ipaddress.ip_address("255.255.255.255")
        and (address.version == 4 or not address.is_link_local or address in LINK_LOCAL)
    )
)
endpoints = st.builds(Endpoint, hosts.map(str), st.integers(1, 65535))
candidates = st.builds(
    Candidate,
    endpoints,
    st.sampled_from([kind for kind in CandidateKind if kind is not CandidateKind.PREDICTED]),
)
legal_records = st.builds(
    EndpointRecord,
    st.just(IDENTITY.node_key),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    st.binary(min_size=16, max_size=16),
    st.lists(candidates, max_size=16).map(tuple),
    st.integers(0, 15),
    st.integers(0, 2**40 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
sequences = st.integers(0, 2**63 - 1)
nonces = st.binary(min_size=24, max_size=24)


def drawn(nonce: bytes) -> Callable[[int], bytes]:
    return lambda size: nonce[:size]


@given(legal_records, sequences, st.integers(NOW + 1, NOW + MAX_LIFETIME_S), nonces)
def test_every_legal_record_fits_and_is_read_back(
    record: EndpointRecord, sequence: int, expires: int, nonce: bytes
) -> None:
    sealed = seal(record, TOPIC, IDENTITY, sequence, expires, drawn(nonce))
    assert len(sealed) <= MAX_ENVELOPE
    assert len(strict_cbor.decode(sealed)[5]) - 40 in BUCKETS
    assert open_record(sealed, TOPIC, NOW) == OpenedRecord(record, sequence, expires)


SEALED = seal(
    EndpointRecord(IDENTITY.node_key, "laptop", bytes(16), (), 0, 0, 0),
    TOPIC,
    IDENTITY,
    1_738_800_000_123,
    NOW + 3600,
    drawn(bytes(24)),
)


def refused(envelope: bytes) -> bool:
    with pytest.raises(DecodeError):
        inspect(envelope, TOPIC.dht_key, NOW)
    with pytest.raises(DecodeError):
        open_record(envelope, TOPIC, NOW)
    return True


def test_any_altered_bit_is_refused() -> None:
    for position in range(8 * len(SEALED)):
        altered = bytearray(SEALED)
        altered[position // 8] ^= 1 << position % 8
        assert refused(bytes(altered))


@given(st.integers(0, len(SEALED) - 1), st.binary(min_size=1, max_size=40))
def test_any_altered_stretch_is_refused(position: int, stretch: bytes) -> None:
    altered = SEALED[:position] + stretch + SEALED[position + len(stretch) :]
    assume(altered != SEALED)
    assert refused(altered)


@given(st.integers(0, len(SEALED) - 1), st.binary(min_size=1, max_size=40))
def test_cut_lengthened_and_stretched(position: int, more: bytes) -> None:
    assert refused(SEALED[:position])
    assert refused(SEALED + more)
    assert refused(SEALED[:position] + more + SEALED[position:])


@given(st.binary(max_size=1200))
def test_random_bytes(data: bytes) -> None:
    assert refused(data)
    with pytest.raises(DecodeError):
        records.decode(data)


heads = st.sampled_from([*range(0x80, 0x88), *range(0x40, 0x60), 0x98, 0x9A, 0x9F, 0xBF, 0xC1, 0xD8, 0xF5])
crumbs = st.lists(heads.map(lambda head: bytes([head])) | st.binary(max_size=6), max_size=60)


@given(crumbs.map(b"".join))
def test_random_cbor_is_read_or_refused_and_has_one_spelling(data: bytes) -> None:
    try:
        value = strict_cbor.decode(data)
    except DecodeError as error:
        assert error.reason == "format"
    else:
        assert strict_cbor.encode(value) == data


scalars = (
    st.integers(0, 2**63 - 1)
    | st.binary(max_size=30)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.booleans()
)


@given(st.lists(scalars | st.lists(scalars | st.lists(scalars, max_size=3), max_size=4), max_size=8))
def test_values_survive_cbor(value: list[object]) -> None:
    encoded = strict_cbor.encode(value)
    assume(len(encoded) <= strict_cbor.MAX_BYTES)
    assert strict_cbor.decode(encoded) == value


@given(st.lists(scalars | st.lists(scalars | st.lists(scalars, max_size=3), max_size=4), max_size=12))
def test_arrays_that_are_no_record_are_refused(value: list[object]) -> None:
    with pytest.raises(DecodeError) as caught:
        records.decode(strict_cbor.encode(value))
    assert caught.value.reason == "format"


@given(legal_records, st.integers(0, 8), scalars)
def test_a_record_with_another_value_is_read_or_refused(
    record: EndpointRecord, index: int, value: object
) -> None:
    fields = strict_cbor.decode(records.encode(record))
    fields[index] = value
    try:
        found = records.decode(strict_cbor.encode(fields))
    except DecodeError as error:
        assert error.reason == "format"
    else:
        assert records.decode(records.encode(found)) == found
