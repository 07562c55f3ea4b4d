"""The tables of the noise scale, of a batch that grows, and of VR-LARS."""

import json
import math
from pathlib import Path

from scripts.verification.accuracy import difference, on_report, wrong
from scripts.verification.cells import NAMES, V2, Row, ended, last, lr_of, seeds, shown, steps
from scripts.verification.curves import curve
from scripts.verification.runs import load
from scripts.verification.to_target import chosen, runs_at_best, to_fit


def noise(row: Row) -> Row:
    """Medians over epochs, where an epoch without an estimate is an infinite one, and over seeds."""
    optimizer, key = NAMES[row[0]], "noise_scale_lars" if "LARS" in row[1] else "noise_scale"
    name = row[2].replace("`", "").partition(", ")[2].replace(",", "")
    if row[2].startswith("(a)"):
        found = seeds(V2 / "noise", f"{name}-{optimizer}")
    else:
        best = chosen(name, optimizer)
        found = seeds(V2 / "noise", best.name.rpartition("-seed")[0]) if best else []
    found = [p for p in found if ended(p)]
    scales = []
    for p in found:
        values = sorted(math.inf if line[key] is None else line[key] for line in load(p)[1])
        scales.append((values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2)
    middle_one = sorted(scales)[1] if len(scales) == 3 else None
    fits = [r for r in shown("results/README.md", "target fits") if NAMES[r[0]] == optimizer and r[1] == "all"]
    fitted = fits[0][6]
    runs = runs_at_best(optimizer, True)
    ratio = f"{middle_one / curve(to_fit(runs))[1]:.2f}" if middle_one is not None and fitted != "-" else "-"
    each = ", ".join(f"{s:,.0f}" for s in scales) or "missing"
    median = "-" if middle_one is None else f"{middle_one:,.0f}"
    return [*row[:3], each, median, fitted, ratio, ", ".join(map(without, found)) or "-"]


def without(folder: Path) -> str:
    """What the log of ``folder`` is of that of the same run without the measurement."""
    twins = [p for group in ("rows", "target") if (p := V2 / group / folder.name).exists()]
    if not twins:
        return "missing"
    seen, cpus = [], []
    keys = ("epoch", "step", "train_loss", "val_loss", "val_top1")
    for p in (folder, twins[0]):
        seen.append([tuple(line[key] for key in keys) for line in load(p)[1]])
        ended_with = next(q for name in ("result.json", "diverged.json") if (q := p / name).exists())
        cpus.append(json.loads(ended_with.read_text())["hardware"]["cpu"].partition(" ")[0])
    if seen[0] == seen[1]:
        return "equal"
    return "differs" if cpus[0] == cpus[1] else "other CPU"


GROWING = {"1,024 throughout": ("rows", "8k-lars"), "1,024, from epoch 15 on 4,096": ("growth", "growing"),
           "4,096 throughout": ("growth", "4096")}  # fmt: skip


def growth(row: Row) -> Row:
    group, prefix = GROWING[row[0]]
    found = seeds(V2 / group, prefix)
    whole = [p for p in found if ended(p)]
    return [row[0], f"{steps(whole[0]):,}" if whole else "-", *on_report(found, 5)]


def growth_differences(row: Row) -> Row:
    names = {"growing": ("growth", "growing"), "1,024": ("rows", "8k-lars"), "4,096": ("growth", "4096")}
    both = [names[side] for side in row[0].split(" - ")]
    return difference(row[0], (seeds(V2 / group, prefix) for group, prefix in both))


def variance(row: Row) -> Row:
    kind = {"VR-LARS": "vr", "LARS": "lars"}[row[1]]
    found = sorted((p for p in (V2 / "variance").glob(f"{row[0]}-{kind}-lr*-trial")), key=lr_of)
    by_lr = ", ".join(f"{lr_of(p):g}: {f'{last(p):.2f}' if ended(p) else 'diverged'}" for p in found) or "missing"
    best = min(found, key=wrong) if len(found) == 3 and any(map(ended, found)) else None
    at = f"{lr_of(best):g}" + (" (edge)" if best in (found[0], found[-1]) else "") if best else "-"
    return [*row[:2], by_lr, at, *on_report(seeds(V2 / "variance", f"{row[0]}-{kind}"), 5)]


def variance_differences(row: Row) -> Row:
    preset = row[0].partition(":")[0].strip("`")
    return difference(row[0], (seeds(V2 / "variance", f"{preset}-{kind}") for kind in ("vr", "lars")))
