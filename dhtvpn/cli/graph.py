"""``dhtvpn graph``: the mesh, drawn or for other programs to draw."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dhtvpn.cli import output
from dhtvpn.cli.graph_svg import svg
from dhtvpn.cli.graph_text import dot, mermaid
from dhtvpn.cli.nodes import node_for
from dhtvpn.cli.options import JsonOption, NetworkOption, StateDirOption, examples, new_app, session
from dhtvpn.errors import SystemRefusedError, UsageError

app = new_app()


class Format(StrEnum):
    """What the mesh is written as."""

    DOT = "dot"
    MERMAID = "mermaid"
    JSON = "json"
    SVG = "svg"


def _as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


WRITERS: dict[Format, Callable[[Mapping[str, Any]], str]] = {
    Format.DOT: dot,
    Format.MERMAID: mermaid,
    Format.JSON: _as_json,
    Format.SVG: svg,
}
ENDINGS = {
    ".dot": Format.DOT,
    ".gv": Format.DOT,
    ".mmd": Format.MERMAID,
    ".json": Format.JSON,
    ".svg": Format.SVG,
}


@app.command(
    epilog=examples(
        "dhtvpn graph --output mesh.svg",
        "dhtvpn graph | dot -Tpng -o mesh.png     with Graphviz",
        "dhtvpn graph --format mermaid",
        "dhtvpn graph --json | jq .edges",
    )
)
def graph(
    context: typer.Context,
    *,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="How to write it [default: by the ending of --output, else dot].",
            show_default=False,
        ),
    ] = None,
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file.")
    ] = None,
    network: NetworkOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw who reaches whom, directly or through whom, with round trips, as far as this node knows."""
    chosen = session(context, state_dir, network, as_json)
    if chosen.as_json and form not in (None, Format.JSON):
        raise UsageError(f"--json or --format {form.value if form else ''}, not both")
    wanted = Format.JSON if chosen.as_json else form or _by_ending(destination)
    text = WRITERS[wanted](node_for(chosen).graph())
    if destination is None:
        output.text(text)
        return
    try:
        destination.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SystemRefusedError(f"cannot write {destination} ({error.strerror})") from error
    output.notice(f"written to {destination}")


def _by_ending(destination: Path | None) -> Format:
    return Format.DOT if destination is None else ENDINGS.get(destination.suffix.lower(), Format.DOT)
