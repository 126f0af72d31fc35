"""The local API's server comes without TLS, and leaves Python's in place."""

import subprocess
import sys

from dhtvpn.control import without_tls


def test_the_server_has_no_tls_context() -> None:
    code = (
        "import dhtvpn.control.server, aiohttp.connector, ssl\n"
        "assert ssl.create_default_context\n"
        "print(aiohttp.connector.ssl)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_what_was_loaded_comes_back() -> None:
    import ssl

    with without_tls.importing():
        assert sys.modules["ssl"] is None
    assert sys.modules["ssl"] is ssl
