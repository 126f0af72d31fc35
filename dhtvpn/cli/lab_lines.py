"""The options that give the laboratory's lines delay, jitter, loss and reordering."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dhtvpn.lab.topology import Topology

DelayOption = Annotated[
    float,
    typer.Option(
        "--delay",
        metavar="MS",
        min=0,
        max=10_000,
        help="One way, on each site's line: two sites are four of these apart, there and back.",
    ),
]
JitterOption = Annotated[
    float, typer.Option("--jitter", metavar="MS", min=0, help="The delay varies by so much either way.")
]
LossOption = Annotated[
    float, typer.Option("--loss", metavar="PERCENT", min=0, max=100, help="Frames lost, per line and way.")
]
ReorderingOption = Annotated[
    float,
    typer.Option("--reordering", metavar="PERCENT", min=0, max=100, help="Frames that overtake others."),
]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, max=1_000_000, help="The chance of every line.")
]


def with_lines(
    topology: "Topology", *, delay_ms: float, jitter_ms: float, loss: float, reordering: float, seed: int
) -> "Topology":
    """``topology`` with these conditions on the line of every site that has none of its own; unchanged when
    all are zero. ``loss`` and ``reordering`` in percent. Raises UsageError for a jitter above the delay."""
    from dhtvpn.lab.link_schedule import Conditions  # noqa: PLC0415 - `--help` shall not wait for it

    lines = Conditions(delay_ms / 1000, jitter_ms / 1000, loss / 100, reordering / 100)
    if lines == Conditions():
        return replace(topology, seed=seed)
    return replace(topology, lines=lines, seed=seed)
