"""The curve of critical batches, fitted and resampled by other means than the report's, and whether a cell agrees."""

import math
import random
import statistics

from scipy import optimize

from scripts.verification.cells import number

# a bootstrap is drawn anew here, with other numbers: its bounds agree to this share
BOOTSTRAP = 0.1


def curve(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Fewest epochs and critical batch, by least squares of the logarithm."""

    def off(p: list[float]) -> list[float]:
        return [p[0] + math.log1p(batch / math.exp(p[1])) - math.log(epochs) for batch, epochs in points]

    start = [math.log(min(e for _, e in points)), math.log(statistics.median(b for b, _ in points))]
    bounds = ([-10, math.log(1e-3 * min(b for b, _ in points))], [20, math.log(1e3 * max(b for b, _ in points))])
    fewest, critical = optimize.least_squares(off, start, bounds=bounds, xtol=1e-12, ftol=1e-12).x
    return math.exp(fewest), math.exp(critical)


def resampled(points: list[tuple[float, float]], count: int = 400) -> list[tuple[float, float]]:
    fewest, critical = curve(points)
    fitted = [(b, fewest * (1 + b / critical)) for b, _ in points]
    widened = math.sqrt(len(points) / (len(points) - 2))
    residuals = [math.log(e / f) * widened for (_, e), (_, f) in zip(points, fitted, strict=True)]
    draw = random.Random(1)
    return [curve([(b, f * math.exp(draw.choice(residuals))) for b, f in fitted]) for _ in range(count)]


def middle(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def bounds(cell: str) -> tuple[float, float, float]:
    one, _, rest = cell.partition(" (")
    low, _, high = rest.rstrip(")").partition("-")
    return number(one), number(low), number(high)


def agrees(cell: str, value: float, values: list[float], step: float) -> str:
    """``cell`` itself where it says ``value``, rounded to ``step``, and bounds that a new bootstrap confirms."""
    one, low, high = bounds(cell)
    wanted = middle(values)
    close = all(abs(s / w - 1) < BOOTSTRAP for s, w in zip((low, high), wanted, strict=True))
    if abs(one - value) <= 0.51 * step + 2e-4 * value and close:
        return cell
    return f"{value:g} ({wanted[0]:g}-{wanted[1]:g})"
