"""How estimates are written: durations, and tables for a terminal."""

from collections.abc import Sequence


def duration(hours: float) -> str:
    for unit, name in ((24.0, "d"), (1.0, "h"), (1 / 60, "min")):
        if hours >= unit:
            return f"{hours / unit:,.1f} {name}"
    return f"{3600 * hours:.1f} s"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, with columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
