from dataclasses import replace
from typing import Any

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.membership import addresses
from dhtvpn.records import record as records
from dhtvpn.records import strict_cbor
from dhtvpn.records.record import MAX_RECORD, Candidate, CandidateKind, EndpointRecord

HOST = Candidate(Endpoint("192.0.2.7", 4690), CandidateKind.HOST)


@pytest.fixture
def record(scene: Any) -> EndpointRecord:
    return scene.record


def fields_of(record: EndpointRecord) -> list[Any]:
    return strict_cbor.decode(records.encode(record))


def refused(fields: list[Any]) -> bool:
    with pytest.raises(DecodeError) as caught:
        records.decode(strict_cbor.encode(fields))
    return caught.value.reason == "format"


def test_round_trip(record: EndpointRecord) -> None:
    assert records.decode(records.encode(record)) == record
    leaving = replace(record, leaving=True, candidates=())
    assert records.decode(records.encode(leaving)) == leaving


def test_attempts_are_those_of_the_membership() -> None:
    assert records.MAX_ATTEMPTS == addresses.MAX_ATTEMPTS


@pytest.mark.parametrize(
    "changes",
    [
        {"node_key": bytes(31)},
        {"name": ""},
        {"name": "a" * 64},
        {"name": "-a"},
        {"name": "a-"},
        {"name": "Laptop"},
        {"name": "a.b"},
        {"name": "a\n"},
        {"name": "ü"},
        {"session_nonce": bytes(15)},
        {"candidates": (HOST,) * 17},
        {"candidates": (Candidate(Endpoint("192.0.2.7", 0), CandidateKind.HOST),)},
        {"candidates": (Candidate(Endpoint("224.0.0.1", 1), CandidateKind.HOST),)},
        {"candidates": (Candidate(Endpoint("ff02::1", 1), CandidateKind.HOST),)},
        {"candidates": (replace(HOST, kind=CandidateKind.PREDICTED),)},
        {"candidates": (Candidate(Endpoint("0.0.0.0", 1), CandidateKind.HOST),)},
        {"candidates": (Candidate(Endpoint("::", 1), CandidateKind.HOST),)},
        {"candidates": (Candidate(Endpoint("255.255.255.255", 1), CandidateKind.HOST),)},
        {"ipv4_attempt": 16},
        {"ipv4_attempt": -1},
        {"since": -1},
        {"since": 1 << 40},
        {"features": 1 << 32},
    ],
)
def test_a_node_cannot_say_what_others_would_refuse(record: EndpointRecord, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is out of range"):
        replace(record, **changes)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 0),
        (0, b"\1"),
        (1, bytes(31)),
        (1, "a" * 32),
        (2, b"laptop"),
        (2, "Laptop"),
        (2, "laptop\n"),
        (3, bytes(17)),
        (4, b""),
        (4, 0),
        (4, [[1, HOST.endpoint.pack()]] * 17),
        (4, [[9, b"unknown kind"]] * 17),
        (4, [1]),
        (4, [[]]),
        (4, [[1]]),
        (4, [[b"", HOST.endpoint.pack()]]),
        (4, [[True, HOST.endpoint.pack()]]),
        (4, [[1, "192.0.2.7"]]),
        (4, [[1, bytes(5)]]),
        (4, [[1, bytes(4) + b"\0\1"]]),
        (4, [[1, bytes([192, 0, 2, 7, 0, 0])]]),
        (4, [[1, bytes([224, 0, 0, 1, 0, 1])]]),
        (4, [[1, bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7, 0, 1])]]),
        (5, 16),
        (5, True),
        (6, 1 << 40),
        (6, b""),
        (7, 1 << 32),
        (8, 1),
    ],
)
def test_a_field_out_of_shape_is_refused(record: EndpointRecord, index: int, value: Any) -> None:
    fields = fields_of(record)
    fields[index] = value
    assert refused(fields)


def test_a_missing_field_is_refused(record: EndpointRecord) -> None:
    for length in range(9):
        assert refused(fields_of(record)[:length])


def test_later_versions_are_read_as_far_as_they_are_known(record: EndpointRecord) -> None:
    fields = fields_of(record)
    fields[0] = 2
    fields[4] = [[9, b"another kind of address"], *fields[4], [1, HOST.endpoint.pack(), b"more"]]
    found = records.decode(strict_cbor.encode([*fields, b"certificate", [1, [2]]]))
    assert found == replace(record, candidates=(*record.candidates, HOST))


def test_an_oversize_record_is_refused(record: EndpointRecord) -> None:
    fields = fields_of(record)
    assert refused([*fields, bytes(MAX_RECORD)])


def test_the_nonce_is_not_shown(record: EndpointRecord) -> None:
    assert "nonce" not in repr(record)


@pytest.mark.parametrize("address", ["fe80:3::1", "fe80:0:1::1", "febf::1"])
def test_a_record_names_no_interface_of_its_reader(record: EndpointRecord, address: str) -> None:
    fields = fields_of(record)
    fields[4] = [[1, Endpoint("fe80::1", 1).pack()]]
    assert records.decode(strict_cbor.encode(fields)).candidates[0].endpoint.host == "fe80::1"
    fields[4] = [[1, Endpoint(address, 1).pack_local()]]
    assert refused(fields)


def test_an_interface_of_ours_is_in_no_record(record: EndpointRecord) -> None:
    near = Candidate(Endpoint("fe80:3::1", 1), CandidateKind.HOST)
    told = records.decode(records.encode(replace(record, candidates=(near,))))
    assert told.candidates == (Candidate(Endpoint("fe80::1", 1), CandidateKind.HOST),)


def test_a_predicted_port_in_a_record_is_skipped(record: EndpointRecord) -> None:
    fields = fields_of(record)
    fields[4] = [[CandidateKind.PREDICTED.value, HOST.endpoint.pack()], [1, HOST.endpoint.pack()]]
    assert records.decode(strict_cbor.encode(fields)).candidates == (HOST,)
