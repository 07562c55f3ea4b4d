"""Every table of evidence, cell by cell, from the logs: what the pages show against what is computed here."""

import csv
import itertools
import math
import random
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from scipy import optimize, special

from scripts.verification.runs import RESULTS, ROOT, load

V1, V2 = RESULTS / "fractals-v1", RESULTS / "fractals"
PRESETS = {"256": 256, "8k": 8192, "16k": 16384, "32k": 32768}
NAMES = {"SGD": "sgd", "SGD, Nesterov": "nesterov", "LARS": "lars", "LARC": "larc",
         "LARS, norm layers and biases plain": "lars-weights-only"}  # fmt: skip
IMAGES = 20480
BATCHES = ("64", "256", "1024", "2048", "4096", "8192")
IMAGENET = 1_281_167
# a bootstrap is drawn anew here, with other numbers: its bounds agree to this share
BOOTSTRAP = 0.1

Row = list[str]


def shown(page: str, name: str) -> Iterator[Row]:
    """The rows of the table between the comments ``name`` of a page, without heads and marks of code."""
    between = (ROOT / page).read_text().split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    for table in between.strip().split("\n\n"):
        for line in table.splitlines()[2:]:
            if line.startswith("|"):
                yield [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]


def number(cell: str) -> float:
    return float(cell.replace(",", "").rstrip("%").strip())


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def ended(folder: Path) -> bool:
    return (folder / "result.json").exists()


def top1(folder: Path) -> list[float]:
    return [row["val_top1"] for row in load(folder)[1]]


def last(folder: Path) -> float:
    return top1(folder)[-1]


def lr_of(folder: Path) -> float:
    return float(load(folder)[0]["optimizer"]["lr"])


def seeds(group: Path, prefix: str) -> list[Path]:
    """Runs that are done, diverged or not, by seed."""
    found = [p for p in group.glob(f"{prefix}-seed*") if p.name.rpartition("-seed")[0] == prefix]
    return sorted((p for p in found if (p / "config.yaml").exists()), key=seed_of)


def seed_of(folder: Path) -> int:
    return int(folder.name.rpartition("-seed")[2])


def report(folder: Path) -> float:
    result = load(folder)[2]
    assert result
    return float(result["report_top1"])


def steps(folder: Path) -> int:
    return int(load(folder)[1][-1]["step"])


# ---- version 1 ----


def over_seeds(group: str, prefix: str) -> Row:
    every = [p for p in (V1 / group).glob(f"{prefix}-seed*")]
    done = [p for p in every if ended(p)]
    n = str(len(every)) + (f", {len(every) - len(done)} diverged" if len(done) < len(every) else "")
    done.sort()
    return [n, spread([last(p) for p in done]), spread([max(top1(p)) for p in done])]


def main_table(row: Row) -> Row:
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


def proportions(batch: str) -> Row:
    total = PRESETS[batch] // 8
    updates = 90 * (IMAGES // total)
    return [f"{updates:,}", f"{total / IMAGES * 100:.2g} %", f"{IMAGENET * 90 / updates:,.0f}"]


def full_lr(batch: str, optimizer: str) -> float:
    """On ImageNet: SGD's is linear, 0.2 at 256 images; LARS' is in the file of its settings, for each batch."""
    if optimizer == "sgd":
        return 0.2 * PRESETS[batch] / 256
    text = (ROOT / "configs" / "optimizer" / "lars.yaml").read_text()
    found = re.search(rf"^lr: .*\b{batch}:([0-9.]+)", text, re.MULTILINE)
    assert found, f"no lr of {batch} in lars.yaml"
    return float(found[1])


def v1_rows(row: Row) -> Row:
    prefix = f"{row[0]}-{row[1].lower()}"
    return [*row[:2], f"{lr_of(V1 / 'rows' / f'{prefix}-seed0'):g}", *over_seeds("rows", prefix)]


def v1_best(row: Row) -> Row:
    return [*row[:3], *over_seeds("best", f"{row[0]}-{row[1].lower()}-lr{row[2]}")]


def v1_lr(row: Row) -> Row:
    found = sorted((V1 / "lr").glob(f"{row[0]}-{row[1].lower()}-lr*"), key=lr_of)
    return [*row[:2], ", ".join(f"{lr_of(p):g}: {f'{last(p):.1f}' if ended(p) else '-'}" for p in found)]


def v1_recipes(row: Row) -> Row:
    found = sorted((V1 / "recipes").glob(f"{row[0]}-*"), key=lambda p: load(p)[0]["batch"]["published"])
    cells = []
    for p in found:
        stopped = len(top1(p)) < load(p)[0]["epochs"]
        text = f"{last(p):.1f}" + (f" (epoch {len(top1(p))})" if stopped else "")
        cells.append(f"`{p.name.partition('-')[2]}` {text if ended(p) else 'diverged'}")
    return [row[0], ", ".join(cells).strip("`")]


def v1_resnet50(row: Row) -> Row:
    end = load(V1 / "resnet50" / row[0])[1][-1]
    return [row[0], f"{end['val_top1']:.1f}", f"{end['val_loss']:.2f}", f"{end['train_loss']:.2f}"]


# ---- the experiments on the second data set ----


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
    total = PRESETS[row[0]] // 8
    updates = 90 * (IMAGES // total)
    lr = f"{lr_of(found[0]):g}" if found else "-"
    for p in filter(ended, found):
        assert (load(p)[0]["batch"]["total"], steps(p)) == (total, updates), p
    return [row[0], f"{total:,}", *proportions(row[0]), row[5], lr, *on_report(found, 5)]  # fmt: skip


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


def tried(images: str, optimizer: str) -> list[Path]:
    """The runs of seed 0 at one point of the steps to the target, by lr."""
    found = [p for p in (V2 / "target").glob(f"{images}-{optimizer}-lr*-seed0") if (p / "config.yaml").exists()]
    return sorted(found, key=lr_of)


def reached(folder: Path) -> bool:
    return ended(folder) and last(folder) >= 75.0


def badness(folder: Path) -> tuple[float, float]:
    if not ended(folder):
        return math.inf, 0.0
    return (steps(folder) if reached(folder) else math.inf), -max(top1(folder))


def chosen(images: str, optimizer: str) -> Path | None:
    """The best run of seed 0 once the search has ended: with lr on both sides, or 1.5 decades from the middle."""
    found = tried(images, optimizer)
    if len(found) < 3:
        return None
    best = min(found, key=badness)
    middle = {"lars": 12.8, "sgd": 0.4}[optimizer] * math.sqrt(int(images) / 1024)
    is_furthest = abs(math.log10(lr_of(best) / middle)) > 1.4
    return best if best not in (found[0], found[-1]) or is_furthest else None


def best_seeds(images: str, optimizer: str) -> list[Path]:
    """Every run at the lr that was chosen."""
    best = chosen(images, optimizer)
    return seeds(V2 / "target", best.name.rpartition("-seed")[0]) if best else []


def to_target(p: Path) -> str:
    if not ended(p):
        return "diverged"
    return f"{steps(p):,}" if reached(p) else f"missed ({max(top1(p)):.1f} %)"


def target(row: Row) -> Row:
    images, optimizer = row[0].replace(",", ""), NAMES[row[1]]
    found, best = tried(images, optimizer), chosen(images, optimizer)
    cells = ", ".join(f"{lr_of(p):g}: {to_target(p)}" for p in found) or "missing"
    at = f"{lr_of(best):g}" + (" (edge)" if best in (found[0], found[-1]) else "") if best else "-"
    runs = best_seeds(images, optimizer)
    epochs = [steps(p) * int(images) / IMAGES for p in runs if reached(p)]
    return [*row[:2], cells, at, ", ".join(map(to_target, runs)) or "missing",
            f"{statistics.mean(epochs):.1f}" if epochs else "-"]  # fmt: skip


def runs_at_best(optimizer: str, chose: bool) -> dict[str, list[Path]]:
    """The runs of each batch, without seed 0, on which lr was chosen, unless ``chose``."""
    return {n: [p for p in best_seeds(n, optimizer) if chose or seed_of(p)] for n in BATCHES}


def to_fit(runs: dict[str, list[Path]]) -> list[tuple[float, float]]:
    """Batch and epochs of each run that reached the target."""
    return [(float(n), steps(p) * float(n) / IMAGES) for n, of in runs.items() for p in of if reached(p)]


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


def target_fits(row: Row) -> Row:
    optimizer, chose = NAMES[row[0]], row[1] == "all"
    runs = runs_at_best(optimizer, chose)
    points = to_fit(runs)
    counts = [f"{len(points)} of {sum(map(len, runs.values()))}", str(len({b for b, _ in points}))]
    waiting = sum(len(of) < 3 for of in runs_at_best(optimizer, True).values())
    if waiting or len({b for b, _ in points}) < 3:
        return [*row[:2], *counts, f"waits for {waiting} batches", "-", "-"]
    fewest, critical = curve(points)
    many = resampled(points)
    fewest_steps = [f * IMAGES / c for f, c in many]
    return [*row[:2], *counts, agrees(row[4], fewest * IMAGES / critical, fewest_steps, 1),
            agrees(row[5], fewest, [f for f, _ in many], 0.1),
            agrees(row[6], critical, [c for _, c in many], 1)]  # fmt: skip


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


# ---- how large may my batch be? ----


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
    other = next(p for group in ("rows", "target") if (p := V2 / group / folder.name).exists())
    seen, cpus = [], []
    for p in (folder, other):
        _, lines, result = load(p)
        seen.append([tuple(line[k] for k in ("epoch", "step", "train_loss", "val_loss", "val_top1")) for line in lines])
        cpus.append(result["hardware"]["cpu"].partition(" ")[0] if result else "")
    if seen[0] == seen[1]:
        return "equal"
    return "differs" if cpus[0] == cpus[1] or not all(cpus) else "other CPU"


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


# ---- MLPerf ----


def systems() -> list[dict[str, str]]:
    with open(RESULTS / "published" / "mlperf-runs.csv", newline="") as file:
        return [
            r for r in csv.DictReader(file) if r["epochs"] and (r["division"], r["optimizer"]) == ("closed", "lars")
        ]


@cache
def fewest_of_each() -> list[tuple[float, float]]:
    found: dict[float, float] = {}
    for r in systems():
        batch, epochs = float(r["batch"]), float(r["epochs"])
        found[batch] = min(epochs, found.get(batch, epochs))
    return sorted(found.items())


def mlperf_fits(row: Row) -> Row:
    points = fewest_of_each()
    if "no larger" in row[0]:
        points = [(b, e) for b, e in points if all(e <= other for larger, other in points if larger > b)]
    if row[0].startswith("8,192"):
        points = [(b, e) for b, e in points if b >= 8192]
    fewest, critical = curve(points)
    many = resampled(points)
    off = max(abs(e / (fewest * (1 + b / critical)) - 1) for b, e in points if b >= 8192)
    return [row[0], str(len(points)), agrees(row[2], fewest, [f for f, _ in many], 0.1),
            agrees(row[3], critical, [c for _, c in many], 1000), f"{100 * off:.1f} %"]  # fmt: skip


def mlperf_systems(row: Row) -> Row:
    name, _, version = row[10].rpartition(", v")
    r = next(r for r in systems() if (r["path"].removesuffix("/resnet"), r["version"], r["batch"]) == (
        name, version, row[0].replace(",", "")))  # fmt: skip
    fewest, critical = curve(fewest_of_each())
    batch, epochs = int(r["batch"]), float(r["epochs"])
    settings = [r[key] or "not logged" for key in ("lr", "warmup_epochs", "momentum", "weight_decay", "bn_span")]
    expected = fewest * (1 + batch / critical)
    return [f"{batch:,}", f"{epochs:g}", row[2] if abs(number(row[2]) - expected) < 0.11 else f"{expected:.1f}",
            f"{epochs * IMAGENET / batch:,.0f}", *settings, f"{r['reached']} of {r['runs']}", row[10]]  # fmt: skip


TABLES: dict[tuple[str, str], Callable[[Row], Row]] = {
    ("README.md", "table"): main_table,
    ("results/README.md", "fractals rows"): rows,
    ("results/README.md", "fractals row differences"): row_differences,
    ("results/README.md", "reference"): reference,
    ("results/README.md", "target"): target,
    ("results/README.md", "target fits"): target_fits,
    ("results/README.md", "tuned"): tuned,
    ("results/README.md", "fresh"): fresh,
    ("results/README.md", "fresh differences"): fresh_differences,
    ("results/README.md", "noise scale"): noise,
    ("results/README.md", "growth"): growth,
    ("results/README.md", "growth differences"): growth_differences,
    ("results/README.md", "variance"): variance,
    ("results/README.md", "variance differences"): variance_differences,
    ("results/README.md", "mlperf"): mlperf_systems,
    ("results/README.md", "mlperf fits"): mlperf_fits,
    ("results/fractals-v1/README.md", "rows"): v1_rows,
    ("results/fractals-v1/README.md", "lr"): v1_lr,
    ("results/fractals-v1/README.md", "best"): v1_best,
    ("results/fractals-v1/README.md", "recipes"): v1_recipes,
    ("results/fractals-v1/README.md", "resnet50"): v1_resnet50,
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
    ("results/README.md", "target"): [(f"{int(n):,}", o) for n in BATCHES for o in ("LARS", "SGD")],
    ("results/README.md", "target fits"): [(o, s) for o in ("LARS", "SGD") for s in ("all", "1 and 2")],
    ("results/README.md", "tuned"): [(o, w) for o in ("SGD", "SGD, Nesterov", "LARS") for w in ("5", "15")],
    ("results/README.md", "growth"): [(name,) for name in GROWING],
    ("results/README.md", "variance"): [(b, o) for b in ("32k", "64k") for o in ("VR-LARS", "LARS")],
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
