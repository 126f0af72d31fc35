"""``python -m dhtvpn`` is the ``dhtvpn`` command."""

from dhtvpn.cli.main import run

if __name__ == "__main__":
    run()
