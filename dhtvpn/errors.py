"""Every error of ours, in one tree.

    DhtVpnError                 what went wrong and what to do, in one sentence for a person
    ├── UsageError              the caller asked for something that makes no sense
    │   └── InvalidNetworkIdError    a network-id that is no network-id, and why
    ├── NotFoundError           no such network or peer here
    ├── NotRunningError         the network is known, but its node is not running
    ├── TimedOutError           a deadline passed
    ├── DamagedStateError       a file of ours cannot be read; names the file and its copy
    ├── SystemRefusedError      the operating system refused: no root, no TUN, port taken, disk full
    └── DecodeError             bytes from the network that are not what they claim to be

Only the CLI turns them into exit codes. A ``DecodeError`` never leaves the function that handles a
datagram: it is counted by its ``reason`` and the bytes are dropped.
"""


class DhtVpnError(Exception):
    """The root of the tree. ``str(error)`` is a sentence for the person at the terminal."""


class UsageError(DhtVpnError):
    """The caller asked for something that makes no sense."""


class InvalidNetworkIdError(UsageError):
    """A word that is no network-id; the sentence says which rule it breaks."""


class NotFoundError(DhtVpnError):
    """No such network or peer on this machine."""


class NotRunningError(DhtVpnError):
    """The network is known here, but no node of it is running."""


class TimedOutError(DhtVpnError):
    """A deadline passed before the thing that was waited for happened."""


class DamagedStateError(DhtVpnError):
    """A state file cannot be read. The file has been left in place or copied, never destroyed."""


class SystemRefusedError(DhtVpnError):
    """The operating system refused something: privileges, device, port, address, disk."""


class DecodeError(DhtVpnError):
    """Bytes from the network that are not what they claim to be.

    ``reason`` is a short fixed word ("signature", "expired", "length", ...), so that drops can be
    counted by it without growing a table from a peer's bytes.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
