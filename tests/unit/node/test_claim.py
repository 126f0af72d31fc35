"""The claim to an IPv4 address: kept on disk, and given up to the better one."""

from pathlib import Path

import pytest

from dhtvpn.errors import SystemRefusedError
from dhtvpn.membership.addresses import Claim, ipv4_address
from dhtvpn.membership.network_id import Mode, NetworkId
from dhtvpn.node.claim import OwnClaim

NETWORK_ID = NetworkId(Mode.OPEN, bytes([1]) * 32, bytes([2]) * 32, None)
OWN, OTHER = bytes([3]) * 32, bytes([4]) * 32


@pytest.fixture(scope="module")
def rival() -> Claim:
    """Older than our claim, for the same address."""
    own = ipv4_address(NETWORK_ID, OWN, 0)
    keys = (number.to_bytes(32, "big") for number in range(1 << 20))
    return next(Claim(key, 0, 50) for key in keys if ipv4_address(NETWORK_ID, key, 0) == own)


def test_the_claim_outlives_the_process(tmp_path: Path, rival: Claim) -> None:
    path = tmp_path / "claim.json"
    first = OwnClaim(path, NETWORK_ID, OWN, 100.9)
    assert (first.attempt, first.since) == (0, 100)
    assert first.settle([rival], 200.0)
    again = OwnClaim(path, NETWORK_ID, OWN, 300.0)
    assert (again.attempt, again.since, again.address) == (first.attempt, 200, first.address)


def test_the_older_claim_stays_and_the_younger_moves(tmp_path: Path, rival: Claim) -> None:
    claim = OwnClaim(tmp_path / "claim.json", NETWORK_ID, OWN, 100.0)
    held = claim.address
    assert not claim.settle([Claim(OTHER, 0, 50)], 200.0), "another address is nobody's business"
    assert not claim.settle([Claim(rival.node_key, 0, 150)], 200.0), "ours is older"
    assert claim.address == held
    assert claim.settle([rival], 200.0)
    assert claim.address != held
    assert not claim.settle([rival], 300.0)


def test_a_damaged_file_is_kept_and_the_claim_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    path.write_text('{"attempt": 99, "since": 1}')
    claim = OwnClaim(path, NETWORK_ID, OWN, 100.0)
    assert (claim.attempt, claim.since) == (0, 100)
    assert (tmp_path / "claim.json.damaged").read_text() == '{"attempt": 99, "since": 1}'


def test_a_directory_that_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError, match=r"claim\.json"):
        OwnClaim(tmp_path / "missing" / "claim.json", NETWORK_ID, OWN, 100.0)


def test_a_full_disk_does_not_stop_the_move(
    tmp_path: Path, rival: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = OwnClaim(tmp_path / "claim.json", NETWORK_ID, OWN, 100.0)
    held = claim.address

    def refuse(*_: object) -> None:
        raise SystemRefusedError("no space left")

    monkeypatch.setattr("dhtvpn.files.write_json", refuse)
    assert claim.settle([rival], 200.0)
    assert claim.address != held
