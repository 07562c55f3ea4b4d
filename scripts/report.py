"""Rebuild every table, plot and TensorBoard file from the records under ``results``.

Usage: python scripts/report.py [--check]      (--check writes nothing, and fails when that would change)

--check also fails when a record names a commit that is not in the history, or had changes that were not committed.
Pictures are drawn again only when their data, the CSV file beside each, have changed.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.command import exit_with
from scripts.records import ROOT
from train.errors import UserError, print_error

try:
    from scripts.reporting import (
        boards,
        costs,
        critical_batch,
        fractals_v1,
        imagenet,
        mlperf,
        provenance,
        settings,
        tables,
        trust_ratios,
    )
    from scripts.reporting.experiments import accuracy, how_large, learn, to_target
except ModuleNotFoundError as missing:
    sys.exit(print_error(UserError(f"scripts/report.py needs {missing.name}: pip install -e '.[report]'")))

MODULES = (accuracy, to_target, how_large, critical_batch, fractals_v1, trust_ratios, imagenet, mlperf, costs, learn)
PLOTS = [plot for module in MODULES for plot in module.PLOTS]
PICTURES = ROOT / "results" / "plots"

TABLES = {
    ("README.md", "table"): accuracy.main_table,
    ("lars/README.md", "benchmark"): tables.optimizer_table,
    ("docs/data.md", "benchmark"): tables.data_table,
    ("docs/data.md", "index"): tables.index_sentence,
    ("README.md", "plan"): tables.plan_table,
    ("docs/how_large.md", "noise"): tables.noise_table,
    **{("results/README.md", name): table for name, table in how_large.TABLES.items()},
    **{("docs/learn.md", name): table for name, table in learn.TABLES.items()},
    ("docs/plan.md", "scaling"): tables.scaling_table,
    ("results/README.md", "imagenet"): tables.imagenet_table,
    ("results/README.md", "mlperf"): mlperf.systems_table,
    ("results/README.md", "mlperf fits"): mlperf.curves_table,
    ("results/README.md", "progress"): accuracy.progress_table,
    ("results/README.md", "fractals rows"): accuracy.rows_table,
    ("results/README.md", "fractals row differences"): accuracy.row_differences,
    ("results/README.md", "reference"): accuracy.reference_table,
    ("results/README.md", "target"): to_target.table,
    ("results/README.md", "target fits"): to_target.fits_table,
    ("results/README.md", "tuned"): accuracy.tuned_table,
    ("results/README.md", "fresh"): accuracy.fresh_table,
    ("results/README.md", "fresh differences"): accuracy.fresh_differences,
    ("results/fractals-v1/README.md", "rows"): tables.rows_table,
    ("results/fractals-v1/README.md", "lr"): tables.lr_table,
    ("results/fractals-v1/README.md", "best"): tables.best_table,
    ("results/fractals-v1/README.md", "recipes"): tables.recipes_table,
    ("results/fractals-v1/README.md", "resnet50"): tables.resnet50_table,
    ("results/README.md", "rehearsal"): tables.rehearsal_table,
    ("results/README.md", "training"): tables.training_table,
    ("docs/settings.md", "settings"): settings.settings,
}


def rebuilt(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the two comments that name ``name`` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, found, rest = text.partition(begin)
    assert found and end in rest, f"no {begin} ... {end}"
    return f"{head}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when something would change or cannot be traced"
    )
    check = parser.parse_args().check
    stale = rebuild(check)
    if not check:
        return 0
    if stale:
        print(f"not what the records say: {', '.join(stale)}; run python scripts/report.py", file=sys.stderr)
    history = provenance.history()
    if history is None:
        print("the commits of records are not looked up: this copy has no whole git history", file=sys.stderr)
    untraced = provenance.faults(history)
    for line in untraced:
        print(f"cannot be traced: {line}", file=sys.stderr)
    return 1 if stale or untraced else 0


def rebuild(check: bool) -> list[str]:
    """Write what is not as the records say, unless this is a ``check``; the names of those files."""
    stale = []
    for (name, table), content in TABLES.items():
        path = ROOT / name
        text = path.read_text()
        new = rebuilt(text, table, content())
        if new != text:
            stale.append(name)
            if not check:
                path.write_text(new)
    for plot in PLOTS:
        path, text = PICTURES / f"{plot.name}.csv", plot.as_csv()
        if not text:
            continue
        if not path.exists() or path.read_text() != text or not path.with_suffix(".png").exists():
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
                plot.picture(path.with_suffix(".png"), text)
    for path, board in boards.boards().items():
        if not path.exists() or path.read_bytes() != board:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(board)
    return stale


if __name__ == "__main__":
    exit_with(main)
