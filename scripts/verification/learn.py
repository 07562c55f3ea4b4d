"""The tables of the experiments in docs/learn.md."""

import csv
import statistics

from scripts.verification.cells import NAMES, V2, Row, last, lr_of, seeds, steps
from scripts.verification.runs import load

GROUP = V2 / "learn"


def updates(row: Row) -> Row:
    lr = float(row[1])
    (run,) = (p for p in GROUP.glob(f"1-{row[0]}*") if load(p)[0]["batch"]["preset"] == row[0] and lr_of(p) == lr)
    return [row[0], f"{lr_of(run):g}", f"{steps(run):,}", f"{last(run):.1f}", f"{load(run)[1][-1]['train_loss']:.2f}"]


def warmup(row: Row) -> Row:
    top1 = [last(p) for p in seeds(GROUP, f"2-{NAMES[row[0]]}-warmup{row[1]}")]
    return [*row[:2], ", ".join(f"{value:.1f}" for value in top1), f"{statistics.mean(top1):.1f}"]


def layers(row: Row) -> Row:
    run = GROUP / f"3-{NAMES[row[0]]}"
    ends = ["-", "-"]
    if NAMES[row[0]] == "lars":
        with open(run / "layers.csv", newline="") as file:
            found = list(csv.DictReader(file))
        end = max(int(line["step"]) for line in found)
        ratios = {line["layer"]: float(line["trust_ratio"]) for line in found if int(line["step"]) == end}
        ends = [f"{ratios[name]:.2g} (`{name}`)" for name in (f(ratios, key=ratios.__getitem__) for f in (min, max))]
    return [row[0], f"{lr_of(run):g}", f"{last(run):.1f}", *ends]
