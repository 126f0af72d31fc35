"""What a node imports of pyroute2, and that the rest stays out."""

import subprocess
import sys


def loaded_by(code: str) -> set[str]:
    """The modules that a new process has after ``code``."""
    text = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_rtnetlink_comes_without_the_rest_of_the_library() -> None:
    loaded = loaded_by("import dhtvpn.system.links, dhtvpn.system.routes")
    assert "pyroute2.iproute.linux" in loaded
    assert not {"pyroute2.ndb.main", "pyroute2.ipvs", "pyroute2.plan9.server"} & loaded


def test_a_library_that_is_there_already_stays_whole() -> None:
    done = "import pyroute2, dhtvpn.system.links; assert pyroute2.NDB"
    assert "pyroute2.ndb.main" in loaded_by(done)
