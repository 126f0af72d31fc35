"""Reading capabilities."""

import pytest

from dhtvpn.errors import SystemRefusedError
from dhtvpn.system import privileges


def test_the_mask_is_read() -> None:
    status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t0000000000001000\n"
    assert privileges.effective_capabilities(status) == 1 << privileges.CAP_NET_ADMIN


@pytest.mark.parametrize("status", ["", "CapEff:\tzz\n", "CapEff\n"])
def test_what_is_not_there_is_nothing(status: str) -> None:
    assert privileges.effective_capabilities(status) == 0


def test_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "effective_capabilities", lambda: 1 << 11)
    with pytest.raises(SystemRefusedError, match="sudo"):
        privileges.require_net_admin()
    monkeypatch.setattr(privileges, "effective_capabilities", lambda: 1 << 12)
    privileges.require_net_admin()
