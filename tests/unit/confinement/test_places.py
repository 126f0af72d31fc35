"""What a confined program still finds: modules that it has not imported yet, and names."""

import json
import os
import subprocess
import sys

import pytest

from dhtvpn.confinement import places

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")

PROGRAM = """
import json, os, socket, sys
from pathlib import Path
from dhtvpn.confinement.places import readable
from dhtvpn.confinement.process import confine

done = confine(None, (), readable(as_root=sys.argv[1] == "root"))
import wave, rich.table
assert any(entry[4][0] in ("127.0.0.1", "::1") for entry in socket.getaddrinfo("localhost", 80))
found = {}
for path in ("/etc/hosts", "/etc/shadow", "/etc/passwd", "/root", "/proc/1/environ", "/var/lib", "/dev/null"):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        continue
    found[path] = True
os.write(1, json.dumps(list(found)).encode())
"""


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("root", ["/etc/hosts", "/dev/null"]),
        # for the user dhtvpn, who cannot read the second: root may
        ("another", ["/etc/hosts", "/etc/shadow", "/etc/passwd", "/dev/null"]),
    ],
)
def test_what_can_be_read(who: str, expected: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, who], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    assert json.loads(done.stdout) == expected


def test_code_is_where_it_was_loaded_from() -> None:
    import dhtvpn

    assert any(path.samefile(dhtvpn.__path__[0]) for path in places.code())
    assert not any(str(path) == "/" for path in places.code())
