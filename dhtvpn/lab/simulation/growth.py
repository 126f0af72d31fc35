"""Does a cost grow like log n? Two least-squares fits, without a library."""

import math

from dhtvpn.lab.simulation.figures import Growth


def fit(sizes: list[int], costs: list[float]) -> Growth:
    """Fits over at least two sizes."""
    logs = [math.log2(n) for n in sizes]
    slope, intercept = _line(logs, costs)
    middle = sum(costs) / len(costs)
    rest = sum((c - intercept - slope * x) ** 2 for x, c in zip(logs, costs, strict=True))
    whole = sum((c - middle) ** 2 for c in costs)
    exponent, _ = _line(logs, [math.log2(c) for c in costs])
    return Growth(slope, intercept, 1.0 - rest / whole if whole else 1.0, exponent)


def _line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    return slope, y_mean - slope * x_mean
