"""Files that hold state: secret by default, replaced atomically, never destroyed when damaged.

Every write goes to a temporary file in the same directory, is flushed to disk, and then renamed, so
``kill -9`` or a full disk leave either the old content or the new one (rename(2)).
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from dhtvpn.errors import DamagedStateError, SystemRefusedError

SECRET_MODE = 0o600
DIRECTORY_MODE = 0o700
MAX_COPY = 1 << 26
"""Bytes of a damaged file that is copied aside; ours are all far smaller."""


def make_directory(path: Path, mode: int = DIRECTORY_MODE) -> None:
    """Make ``path`` and its parents. Raises SystemRefusedError when the system does not let us."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemRefusedError(
            f"cannot make the directory {path} ({error.strerror}): choose another with --state-dir"
        ) from error


def write_atomic(path: Path, content: bytes, mode: int = SECRET_MODE) -> None:
    """Replace ``path`` by ``content`` in one step. Raises SystemRefusedError (disk full, read-only).

    What root writes belongs to the owner of the directory, who has to read it: a node that is root no more.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            if os.geteuid() == 0 and (owner := path.parent.stat().st_uid) != 0:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, owner, -1)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise SystemRefusedError(
            f"cannot write {path} ({error.strerror}): what it held before is unchanged; "
            "free some space or choose another place with --state-dir"
        ) from error


def write_json(path: Path, value: Any, mode: int = SECRET_MODE) -> None:
    """Replace ``path`` by ``value`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode(), mode)


def read_bytes(path: Path, limit: int = 1 << 22) -> bytes | None:
    """The content of ``path``, or None where there is no such file.

    A link is not followed: root reads in directories that belong to others, who could aim it at a secret.
    Raises SystemRefusedError when it cannot be read, DamagedStateError past ``limit`` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SystemRefusedError(f"cannot read {path} ({error.strerror})") from error
    if len(content) > limit:
        raise DamagedStateError(f"{path} is larger than {limit} bytes, so it is not ours: move it away")
    return content


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``, or None where there is no such file.

    Raises DamagedStateError when it is no JSON object; the caller decides whether to go on without.
    """
    content = read_bytes(path)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedStateError(f"{path} is damaged (not valid JSON)") from error
    if not isinstance(value, dict):
        raise DamagedStateError(f"{path} is damaged (not a JSON object)")
    return value


def keep_copy(path: Path) -> Path:
    """Copy a damaged file to ``NAME.damaged`` (or ``.damaged-N``) beside it and return the copy's path.

    An identical copy that is there already serves, so that a restart loop does not fill the disk.
    """
    content = read_bytes(path, limit=MAX_COPY)
    if content is None:
        raise SystemRefusedError(f"cannot keep a copy of {path}: it is gone")
    number = 1
    copy = path.with_name(f"{path.name}.damaged")
    while copy.exists():
        if read_bytes(copy, limit=MAX_COPY) == content:
            return copy
        number += 1
        copy = path.with_name(f"{path.name}.damaged-{number}")
    write_atomic(copy, content)
    return copy
