"""What a command prints: lines for a person, JSON for a program, never a terminal's control sequence."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 80  # columns where there is no terminal to ask


def plain(text: object) -> str:
    """``text`` with anything that a terminal would obey replaced: names come from other people."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def line(text: str) -> None:
    """One line on stdout."""
    typer.echo(plain(text))


def lines(texts: Iterable[str]) -> None:
    """Several lines on stdout."""
    for text in texts:
        line(text)


def text(content: str) -> None:
    """Something that ends with a newline of its own, on stdout, each of its lines plain."""
    lines(content.removesuffix("\n").split("\n"))


def notice(text: str) -> None:
    """One line on stderr: for the person, not for the program that reads stdout."""
    typer.echo(plain(text), err=True)


def json_document(value: Mapping[str, Any]) -> None:
    """One JSON object, indented."""
    typer.echo(json.dumps(value, indent=2))


def json_line(value: Mapping[str, Any]) -> None:
    """One JSON object on one line, for streams."""
    typer.echo(json.dumps(value))


def console() -> "Console":
    """Rich's console on stdout: the terminal's width, 80 columns where there is none."""
    from rich.console import Console  # noqa: PLC0415 - 40 ms that --help and --json do without

    probe = Console(highlight=False, markup=False, emoji=False)
    if probe.is_terminal:
        return probe
    return Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)


def show(view: "RenderableType") -> None:
    """A table or another view of rich's on stdout."""
    console().print(view)
