"""Every table of evidence, cell by cell, from the logs: what the pages show against what is computed here."""

import itertools
from collections.abc import Callable

from scripts.verification import accuracy, fractals_v1, how_large, learn, mlperf, to_target
from scripts.verification.cells import PRESETS, Row, shown

TABLES: dict[tuple[str, str], Callable[[Row], Row]] = {
    ("README.md", "table"): accuracy.main,
    ("results/README.md", "fractals rows"): accuracy.rows,
    ("results/README.md", "fractals row differences"): accuracy.row_differences,
    ("results/README.md", "reference"): accuracy.reference,
    ("results/README.md", "target"): to_target.table,
    ("results/README.md", "target fits"): to_target.fits,
    ("results/README.md", "tuned"): accuracy.tuned,
    ("results/README.md", "fresh"): accuracy.fresh,
    ("results/README.md", "fresh differences"): accuracy.fresh_differences,
    ("results/README.md", "noise scale"): how_large.noise,
    ("results/README.md", "growth"): how_large.growth,
    ("results/README.md", "growth differences"): how_large.growth_differences,
    ("results/README.md", "variance"): how_large.variance,
    ("results/README.md", "variance differences"): how_large.variance_differences,
    ("docs/learn.md", "learn 1"): learn.updates,
    ("docs/learn.md", "learn 2"): learn.warmup,
    ("docs/learn.md", "learn 3"): learn.layers,
    ("results/README.md", "mlperf"): mlperf.table,
    ("results/README.md", "mlperf fits"): mlperf.fits,
    ("results/fractals-v1/README.md", "rows"): fractals_v1.rows,
    ("results/fractals-v1/README.md", "lr"): fractals_v1.lr,
    ("results/fractals-v1/README.md", "best"): fractals_v1.best,
    ("results/fractals-v1/README.md", "recipes"): fractals_v1.recipes,
    ("results/fractals-v1/README.md", "resnet50"): fractals_v1.resnet50,
}


# the rows that a table has to have, where these do not depend on the runs
LARGER = ("8k", "16k", "32k")
ROWS: dict[tuple[str, str], list[tuple[str, ...]]] = {
    ("README.md", "table"): [("256",), *((b,) for b in LARGER for _ in range(2))],
    ("results/README.md", "fractals rows"): [("256",), *((b,) for b in LARGER for _ in range(2))],
    ("results/README.md", "reference"): [("256",), *((b,) for b in LARGER for _ in range(2))],
    ("results/README.md", "fractals row differences"): [
        *((f"`{b}`: LARS - SGD",) for b in LARGER),
        *((f"LARS at `{b}` - SGD at `256`",) for b in LARGER),
    ],
    ("results/README.md", "target"): [(f"{int(n):,}", o) for n in to_target.BATCHES for o in ("LARS", "SGD")],
    ("results/README.md", "target fits"): [(o, s) for o in ("LARS", "SGD") for s in ("all", "1 and 2")],
    ("results/README.md", "tuned"): [(o, w) for o in ("SGD", "SGD, Nesterov", "LARS") for w in ("5", "15")],
    ("results/README.md", "growth"): [(name,) for name in how_large.GROWING],
    ("results/README.md", "variance"): [(b, o) for b in ("32k", "64k") for o in ("VR-LARS", "LARS")],
    ("docs/learn.md", "learn 1"): [("256",), ("16k",), ("16k",)],
    ("docs/learn.md", "learn 2"): [(o, w) for o in ("SGD", "LARS") for w in ("0", "5")],
    ("docs/learn.md", "learn 3"): [("LARS",), ("SGD",)],
    ("results/README.md", "mlperf fits"): [("all",), ("all that no larger batch beats",), ("8,192 and more",)],
    ("results/fractals-v1/README.md", "rows"): [(b,) for b in PRESETS for _ in range(2)],
}


def count() -> int:
    return sum(len(row) for page, name in TABLES for row in shown(page, name))


def faults() -> list[str]:
    """Each row that is missing, and each cell that is not what the logs give."""
    found = []
    for (page, name), recomputed in TABLES.items():
        table = list(shown(page, name))
        expected = ROWS.get((page, name))
        if expected and [tuple(row[: len(expected[0])]) for row in table] != [
            tuple(cell.strip("`") for cell in row) for row in expected
        ]:
            found.append(f"{page}, table {name!r}: its rows are not {expected}")
        for row in table:
            where = f"{page}, table {name!r}, row {row[0]!r}"
            try:
                ours = recomputed(row)
            except (OSError, ValueError, KeyError, IndexError, StopIteration, AssertionError) as error:
                found.append(f"{where}: cannot be recomputed ({type(error).__name__}: {error})")
                continue
            pairs = itertools.zip_longest(row, ours, fillvalue="nothing")
            found += [f"{where}: shows {cell!r}, the logs give {own!r}" for cell, own in pairs if cell != own]
    return found
