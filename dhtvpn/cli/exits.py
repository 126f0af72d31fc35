"""How a command ends: the one place where errors become exit codes and sentences."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from dhtvpn.errors import DhtVpnError, NotFoundError, NotRunningError, TimedOutError, UsageError

DONE, FAILED, WRONG_USAGE, NOT_HERE, TIMED_OUT = range(5)
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

EXIT_CODES: tuple[tuple[type[DhtVpnError], int], ...] = (
    (UsageError, WRONG_USAGE),
    (NotFoundError, NOT_HERE),
    (NotRunningError, NOT_HERE),
    (TimedOutError, TIMED_OUT),
    (DhtVpnError, FAILED),
)


def exit_code_of(error: DhtVpnError) -> int:
    """The exit code that the contract gives to the class of ``error``."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def run_to_exit(command: Callable[[], Any]) -> int:
    """Run ``command`` and return its exit code; every failure is one sentence on stderr."""
    try:
        result = command()
        sys.stdout.flush()
    except DhtVpnError as error:
        return _say(str(error), exit_code_of(error))
    except TyperException as error:
        return _wrong_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. The interpreter flushes once more at exit: let it flush nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _say(_unexpected(error), FAILED)
    return result if isinstance(result, int) else DONE


def _say(sentence: str, code: int) -> int:
    typer.echo(f"dhtvpn: {sentence}", err=True)
    return code


def _wrong_usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    sentence = error.format_message()
    if sentence.startswith("Usage:"):  # called without a command: the help is the message
        typer.echo(sentence, err=True)
        return error.exit_code
    sentence = sentence.rstrip(".")
    sentence = sentence[:1].lower() + sentence[1:]
    where = f" (see '{context.command_path} --help')" if context is not None else ""
    return _say(sentence + where, error.exit_code)


def _unexpected(error: Exception) -> str:
    """Type and place only: the text of a stray exception may hold anything, also a secret."""
    if os.environ.get("DHTVPN_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        return f"the system refused ({error.strerror}): run it again with DHTVPN_DEBUG=1 to see where"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"unexpected {type(error).__name__}{place}, a bug: run it again with DHTVPN_DEBUG=1 to see where"
