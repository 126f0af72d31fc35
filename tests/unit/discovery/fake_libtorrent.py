"""libtorrent's session as ours sees it: it notes what it is asked, and says what a test makes it say."""

import os
from types import SimpleNamespace


class Alert:
    """Base of all: fields as libtorrent names them."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def message(self):
        return str(self.__dict__)


class Item(Alert):
    pass


class Stored(Alert):
    pass


class Overflow(Alert):
    pass


class OwnAddress(Alert):
    pass


class Listening(Alert):
    pass


class Refused(Alert):
    pass


class Filter:
    def __init__(self):
        self.rules = []

    def add_rule(self, first, last, flags):
        self.rules.append((first, last, flags))


class FakeSession:
    """One octet is written for the first alert in the queue only, as libtorrent does it."""

    def __init__(self):
        self.asked, self.filters, self.settings = [], [], []
        self._alerts, self._descriptor = [], -1
        self.nodes = []

    def set_alert_fd(self, descriptor):
        self._descriptor = descriptor

    def say(self, *alerts):
        was_empty = not self._alerts
        self._alerts += alerts
        if was_empty and self._descriptor >= 0:
            os.write(self._descriptor, b"x")

    def pop_alerts(self):
        taken, self._alerts = self._alerts, []
        return taken

    def dht_get_mutable_item(self, public_key, salt):
        self.asked.append(("get", public_key, salt))

    def dht_put_mutable_item(self, private_key, public_key, value, salt):
        self.asked.append(("put", public_key, salt, value))

    def set_ip_filter(self, addresses):
        self.filters.append(addresses.rules)

    def apply_settings(self, settings):
        self.settings.append(settings)

    def listen_port(self):
        return 0

    def session_state(self, _):
        return self.nodes


FAKE = SimpleNamespace(
    alerts_dropped_alert=Overflow,
    dht_mutable_item_alert=Item,
    dht_put_alert=Stored,
    external_ip_alert=OwnAddress,
    listen_succeeded_alert=Listening,
    listen_failed_alert=Refused,
    ip_filter=Filter,
    save_state_flags_t=SimpleNamespace(save_dht_state=1),
    write_session_params_buf=lambda nodes: repr(nodes).encode(),
    bdecode=lambda _: {b"dht state": {}},
)
"""The module, as far as it is used."""
