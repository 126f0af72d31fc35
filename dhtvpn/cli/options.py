"""The options that every command takes, before or after its name, and what they come to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from dhtvpn.errors import UsageError
from dhtvpn.networks import NetworkStore, check_network_name, default_state_dir

StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="PATH",
        envvar="DHTVPN_STATE_DIR",
        help="Where keys and networks are kept.",
        show_default="/var/lib/dhtvpn for root, else the user's state directory",
    ),
]
NetworkOption = Annotated[
    str | None, typer.Option("--network", metavar="NAME", help="Which network, where there are several.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
VerboseOption = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Log more; twice: everything.", show_default=False)
]


def new_app(*, cls: type[TyperGroup] | None = None, no_args_is_help: bool = False) -> typer.Typer:
    """A typer app in our style: plain help that keeps its lines, errors left to ``cli.exits``."""
    return typer.Typer(
        cls=cls,
        no_args_is_help=no_args_is_help,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def examples(*lines: str) -> str:
    """An epilog for --help that shows how the command is called (\\b keeps the line breaks)."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True)
class Session:
    """Where this command looks, which network it means, and how it prints."""

    state_dir: Path
    chosen: bool
    """Whether the state directory was named by the user (option or environment)."""
    network: str | None = None
    as_json: bool = False

    @property
    def store(self) -> NetworkStore:
        return NetworkStore(self.state_dir)


@dataclass(frozen=True)
class GlobalOptions:
    """The options that stood before the command's name."""

    state_dir: Path | None = None
    network: str | None = None
    as_json: bool = False


def session(
    context: typer.Context, state_dir: Path | None, network: str | None = None, as_json: bool = False
) -> Session:
    """Join the options before and after the command's name; those after it count more."""
    before = context.find_root().obj
    if not isinstance(before, GlobalOptions):
        before = GlobalOptions()
    directory = state_dir if _typed(context, "state_dir") else before.state_dir or state_dir
    name = network or before.network
    if name is not None:
        check_network_name(name)
    if directory is not None and not str(directory):
        raise UsageError("--state-dir needs a path")
    return Session(
        state_dir=directory.expanduser().absolute() if directory else default_state_dir(),
        chosen=directory is not None,
        network=name,
        as_json=as_json or before.as_json,
    )


def _typed(context: typer.Context, parameter: str) -> bool:
    """Whether the parameter stood on the command line, and did not come from the environment."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"
