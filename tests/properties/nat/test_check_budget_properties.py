"""Whatever a hostile record names, and however often: an address that does not answer gets a handful."""

from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import check_budget as module
from dhtvpn.nat.check_budget import CheckBudget

VICTIMS = ["198.18.0.1", "198.18.0.2", "2001:db8::1", "2001:db8::2"]
wishes = st.tuples(
    st.sampled_from(VICTIMS), st.integers(1, 100), st.floats(0, 5, allow_nan=False), st.booleans()
)


@given(st.lists(wishes, max_size=400))
def test_no_address_gets_more_than_its_share(asked: list[tuple[str, int, float, bool]]) -> None:
    budget, now = CheckBudget(), 1000.0
    sent: dict[object, int] = {}
    for host, port, pause_s, triggered in asked:
        now += pause_s
        if budget.take(Endpoint(host, port), now, triggered=triggered):
            site = "v6" if ":" in host else host
            for key in (site, (host, port)):
                sent[key] = sent.get(key, 0) + 1
    elapsed = now - 1000.0
    for key, count in sent.items():
        burst, rate = (
            (module.ENDPOINT_BURST, module.ENDPOINT_RATE)
            if isinstance(key, tuple)
            else (module.ADDRESS_BURST, module.ADDRESS_RATE)
        )
        assert count <= burst + module.TRIGGERED_RESERVE + rate * elapsed + 1
