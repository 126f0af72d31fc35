"""What a running Python program still reads: its own code and libraries, and what names are resolved with."""

import sys
import sysconfig
from pathlib import Path
from typing import Final

import dhtvpn
from dhtvpn.confinement.landlock import READ, WRITE_FILE

_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")
_RESOLVERS: Final = ("/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/var/run/resolvconf")
_ETC: Final = tuple(
    f"/etc/{name}"
    for name in (
        *("resolv.conf", "hosts", "nsswitch.conf", "gai.conf", "host.conf", "services", "protocols"),
        *("localtime", "ld.so.cache"),
    )
)


def code() -> list[Path]:
    """Where modules may be imported from yet: the standard library, the installed packages, and ours."""
    found = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for module in ("aiohttp", "cryptography", "pyroute2"):  # a package may be installed elsewhere than we are
        if (loaded := sys.modules.get(module)) is not None and loaded.__file__ is not None:
            found.add(Path(loaded.__file__).parents[1])
    assert dhtvpn.__file__ is not None  # noqa: S101 - it is a package with a file
    found.add(Path(dhtvpn.__file__).parent)
    return sorted(found)


def readable(*, as_root: bool) -> list[tuple[Path, int]]:
    """Places to read for a program whose imports and name lookups shall go on.

    The user root owns secrets in /etc, so it gets the single files that it needs. They are lost to it when
    somebody replaces them; any other user gets the whole directory, as far as its files are for everyone.
    """
    names = (*_LIBRARIES, *_RESOLVERS, *(_ETC if as_root else ("/etc",)))
    places = [(path, READ) for path in (*code(), *map(Path, names))]
    places.append((Path("/dev/null"), READ | WRITE_FILE))
    places.append((Path("/dev/urandom"), READ))
    return places
