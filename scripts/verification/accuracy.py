"""The tables of what a fixed number of epochs reaches: the rows, and the tuned baseline."""

import csv
import itertools
import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

from scipy import special

from scripts.verification.cells import (
    IMAGENET,
    IMAGES,
    NAMES,
    PRESETS,
    V2,
    Row,
    ended,
    last,
    lr_of,
    report,
    seeds,
    steps,
)
from scripts.verification.runs import RESULTS, ROOT, load


def main(row: Row) -> Row:
    batch, policy = row[0], row[1]
    optimizer = NAMES[policy.partition(",")[0]]
    with open(RESULTS / "published" / "torchlars.csv", newline="") as file:
        published = {r["batch"]: r["top1"] for r in csv.DictReader(file)}
    is_published = (optimizer == "sgd") == (batch == "256")
    theirs = published[str(PRESETS[batch])] if is_published else "-"
    values = [report(p) for p in seeds(V2 / "rows", f"{batch}-{optimizer}") if ended(p)]
    policy = f"{policy.partition(',')[0]}, {full_lr(batch, optimizer):g}"
    # records on ImageNet are of no log here
    mean = f"{statistics.mean(values):.2f} ({len(values)})" if values else "-"
    return [batch, policy, theirs, mean, *row[4:-1], "; ".join(proportions(batch))]


def total_and_updates(batch: str) -> tuple[int, int]:
    total = PRESETS[batch] // 8
    return total, 90 * (IMAGES // total)


def proportions(batch: str) -> Row:
    total, updates = total_and_updates(batch)
    return [f"{updates:,}", f"{total / IMAGES * 100:.2g} %", f"{IMAGENET * 90 / updates:,.0f}"]


def full_lr(batch: str, optimizer: str) -> float:
    """On ImageNet: SGD's is linear, 0.2 at 256 images; LARS' is in the file of its settings, for each batch."""
    if optimizer == "sgd":
        return 0.2 * PRESETS[batch] / 256
    text = (ROOT / "configs" / "optimizer" / "lars.yaml").read_text()
    found = re.search(rf"^lr: .*\b{batch}:([0-9.]+)", text, re.MULTILINE)
    assert found, f"no lr of {batch} in lars.yaml"
    return float(found[1])


def mean_with_interval(values: list[float]) -> str:
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = special.stdtrit(len(values) - 1, 0.975) * math.sqrt(variance / len(values))
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


def on_report(found: list[Path], planned: int) -> Row:
    """Two cells: every seed on report, and their mean as soon as all are there and none diverged."""
    values = [report(p) for p in found if ended(p)]
    each = ", ".join(f"{report(p):.2f}" if ended(p) else "diverged" for p in found) or "missing"
    if not found:
        return [each, "missing"]
    return [each, mean_with_interval(values) if len(values) == planned else f"{len(values)} of {planned}"]


def rows(row: Row) -> Row:
    found = seeds(V2 / "rows", f"{row[0]}-{NAMES[row[5]]}")
    total, updates = total_and_updates(row[0])
    lr = f"{lr_of(found[0]):g}" if found else "-"
    for p in filter(ended, found):
        assert (load(p)[0]["batch"]["total"], steps(p)) == (total, updates), p
    return [row[0], f"{total:,}", *proportions(row[0]), row[5], lr, *on_report(found, 5)]


def difference(label: str, both: Iterable[list[Path]], planned: int = 5) -> Row:
    a, b = ([report(p) for p in found if ended(p)] for found in both)
    n = f"{len(a)} and {len(b)}"
    if (len(a), len(b)) != (planned, planned):
        return [label, n, "not tested", "-"]
    va, vb = (statistics.variance(x) / len(x) for x in (a, b))
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    apart, half = statistics.mean(a) - statistics.mean(b), special.stdtrit(freedom, 0.975) * math.sqrt(va + vb)
    # each one-sided share of all divisions, the smaller one doubled
    together = a + b
    of_all = [
        round(sum(together[i] for i in chosen) / len(a)
              - sum(v for i, v in enumerate(together) if i not in chosen) / len(b), 9)
        for chosen in map(set, itertools.combinations(range(len(together)), len(a)))
    ]  # fmt: skip
    p = 2 * min(sum(d >= round(apart, 9) for d in of_all), sum(d <= round(apart, 9) for d in of_all)) / len(of_all)
    interval = f"{apart:+.2f} ({apart - half:+.2f} to {apart + half:+.2f})"
    return [label, n, interval, f"{min(p, 1):.3f}" if planned >= 5 else "not tested"]


def row_differences(row: Row) -> Row:
    label = row[0].replace("`", "")
    if label.startswith("LARS at "):
        first, second = f"{label.split()[2]}-lars", "256-sgd"
    else:
        batch = label.partition(":")[0]
        first, second = f"{batch}-lars", f"{batch}-sgd"
    return difference(row[0], (seeds(V2 / "rows", prefix) for prefix in (first, second)))


def fresh_differences(row: Row) -> Row:
    longer, _, pair = row[0].rpartition(": ")
    group, planned = (V2 / "longer", 3) if longer else (V2 / "fresh", 5)
    return difference(row[0], (seeds(group, NAMES[name]) for name in pair.split(" - ", 1)), planned=planned)


def reference(row: Row) -> Row:
    found = [p for p in seeds(V2 / "rows", f"{row[0]}-{NAMES[row[1]]}") if ended(p)]

    def spread_of(values: list[float], shape: str) -> str:
        return f"{shape} ({shape} to {shape})".format(statistics.mean(values), min(values), max(values))

    if not found:
        return [*row[:2], "0", "missing", "never"]
    at = [[line["step"] for line in load(p)[1] if line["val_top1"] >= 75] for p in found]
    first = [min(s) for s in at if s]
    never = f"; {at.count([])} never" if [] in at else ""
    steps_there = spread_of(first, "{:,.0f}") + never if first else "never"
    return [*row[:2], str(len(found)), spread_of([last(p) for p in found], "{:.2f}"), steps_there]


def trials(kind: str) -> list[Path]:
    found = [p for p in (V2 / "tuned").glob(f"{kind}-lr*-warmup*") if (p / "config.yaml").exists()]
    return sorted(found, key=lr_of)


def wrong(folder: Path) -> float:
    return 100 - last(folder) if ended(folder) else math.inf


def choice_is_made(every: dict[str, list[Path]]) -> bool:
    """Whether all kinds have tried the same half-decades, and no best lies at an edge short of 1.5 decades."""
    middles = {"sgd": 1.8, "nesterov": 1.8, "lars": 51.6}

    def half_decades(kind: str, p: Path) -> int:
        return round(2 * math.log10(lr_of(p) / middles[kind]))

    reach = {kind: sorted(half_decades(kind, p) for p in found) for kind, found in every.items()}
    low, high = (end(ks) if (ks := reach["sgd"]) else 0 for end in (min, max))
    if any(ks != sorted([*range(low, high + 1)] * 2) or len(ks) < 6 for ks in reach.values()):
        return False
    bests = [half_decades(kind, min(found, key=wrong)) for kind, found in every.items()]
    return all((k > low or low == -3) and (k < high or high == 3) for k in bests)


def tuned(row: Row) -> Row:
    every = {kind: trials(kind) for kind in ("sgd", "nesterov", "lars")}
    of_kind = every[NAMES[row[0]]]
    best = min(of_kind, key=wrong) if choice_is_made(every) else None
    found = [p for p in of_kind if p.name.endswith(f"-warmup{row[1]}")]
    cells = []
    for p in found:
        cell = f"{lr_of(p):g}: {f'{last(p):.2f}' if ended(p) else 'diverged'}"
        edge = " (edge)" if p in (found[0], found[-1]) else ""
        cells.append(f"**{cell}{edge}**" if p == best and ended(p) else cell)
    return [*row[:2], ", ".join(cells) or "missing"]


def fresh(row: Row) -> Row:
    group, planned = (V2 / "longer", 3) if row[1] == "180" else (V2 / "fresh", 5)
    found = seeds(group, NAMES[row[0]])
    at = ["-", "-"]
    if found:
        config = load(found[0])[0]
        assert str(config["epochs"]) == row[1]
        at = [f"{config['optimizer']['lr']:g}", f"{config['schedule']['warmup_epochs']:g}"]
    return [*row[:2], *at, *on_report(found, planned)]
