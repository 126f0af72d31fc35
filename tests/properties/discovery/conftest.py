"""The simulated network of tests/unit/discovery, importable here too."""

import sys
from pathlib import Path

_UNIT = str(Path(__file__).parents[2] / "unit" / "discovery")
if _UNIT not in sys.path:
    sys.path.insert(0, _UNIT)
