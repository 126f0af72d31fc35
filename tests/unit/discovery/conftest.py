"""The simulation module of this folder, importable by its tests and those in tests/properties/discovery."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)
