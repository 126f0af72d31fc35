"""Whether this process may make network devices: capabilities(7)."""

from pathlib import Path
from typing import Final

from dhtvpn.errors import SystemRefusedError

CAP_NET_ADMIN: Final = 12  # linux/capability.h


def effective_capabilities(status: str | None = None) -> int:
    """The effective capability set of this process as a bit mask; 0 where the kernel does not say.

    ``status`` stands in for the text of /proc/self/status.
    """
    if status is None:
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            try:
                return int(value.strip(), 16)
            except ValueError:
                return 0
    return 0


def has_net_admin() -> bool:
    """Whether this process may make a TUN device and set addresses."""
    return bool(effective_capabilities() >> CAP_NET_ADMIN & 1)


def require_net_admin() -> None:
    """Raises SystemRefusedError, with what to do about it, where :func:`has_net_admin` is False."""
    if not has_net_admin():
        raise SystemRefusedError(
            "making a network device takes root (or CAP_NET_ADMIN): run the command again with sudo"
        )
