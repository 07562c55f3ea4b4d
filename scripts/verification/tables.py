"""Every table of evidence, cell by cell, from the logs: what the pages show against what is computed here."""

import csv
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from scipy import optimize, special

from scripts.verification.runs import RESULTS, ROOT, load

V1, V2 = RESULTS / "fractals-v1", RESULTS / "fractals"
PRESETS = {"256": 256, "8k": 8192, "16k": 16384, "32k": 32768}
NAMES = {"SGD": "sgd", "SGD, Nesterov": "nesterov", "LARS": "lars", "LARC": "larc",
         "LARS, norm layers and biases plain": "lars-weights-only"}  # fmt: skip
IMAGES = 20480
IMAGENET = 1_281_167
# a bootstrap is drawn anew here, with other numbers: its bounds agree to this share
BOOTSTRAP = 0.1

Row = list[str]


def shown(page: str, name: str) -> Iterator[Row]:
    """The rows of the table between the comments ``name`` of a page, without heads and marks of code or stress."""
    between = (ROOT / page).read_text().split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    for table in between.strip().split("\n\n"):
        for line in table.splitlines()[2:]:
            if line.startswith("|"):
                yield [cell.strip().strip("`*") for cell in line.strip("|").split(" | ")]


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
    """Ended runs, by seed."""
    found = [p for p in group.glob(f"{prefix}-seed*") if ended(p) and p.name.rpartition("-seed")[0] == prefix]
    return sorted(found, key=lambda p: int(p.name.rpartition("-seed")[2]))


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
    values = [report(p) for p in seeds(V2 / "rows", f"{batch}-{optimizer}")]
    # lr at full size and records on ImageNet are of no log here
    return [batch, policy, theirs, f"{statistics.mean(values):.2f} ({len(values)})" if values else "-", *row[4:]]


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
    if not values:
        return "missing"
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = special.stdtrit(len(values) - 1, 0.975) * math.sqrt(variance / len(values))
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


def each(values: list[float]) -> str:
    return ", ".join(f"{v:.2f}" for v in values) or "missing"


def rows(row: Row) -> Row:
    found = seeds(V2 / "rows", f"{row[0]}-{NAMES[row[5]]}")
    total = PRESETS[row[0]] // 8
    updates = 90 * (IMAGES // total)
    values = [report(p) for p in found]
    lr = f"{lr_of(found[0]):g}" if found else "-"
    for p in found:
        assert (load(p)[0]["batch"]["total"], steps(p)) == (total, updates), p
    return [row[0], f"{total:,}", f"{updates:,}", f"{total / IMAGES * 100:.2g} %", f"{IMAGENET * 90 / updates:,.0f}",
            row[5], lr, each(values), mean_with_interval(values)]  # fmt: skip


def difference(label: str, a: list[float], b: list[float]) -> Row:
    n = f"{len(a)} and {len(b)}"
    if min(len(a), len(b)) < 3:
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
    return [label, n, f"{apart:+.2f} ({apart - half:+.2f} to {apart + half:+.2f})", f"{min(p, 1):.3f}"]


def row_differences(row: Row) -> Row:
    label = row[0].replace("`", "")
    if label.startswith("LARS at "):
        first, second = f"{label.split()[2]}-lars", "256-sgd"
    else:
        batch = label.partition(":")[0]
        first, second = f"{batch}-lars", f"{batch}-sgd"
    a, b = ([report(p) for p in seeds(V2 / "rows", prefix)] for prefix in (first, second))
    return difference(row[0], a, b)


def fresh_differences(row: Row) -> Row:
    a, b = ([report(p) for p in seeds(V2 / "fresh", NAMES[name])] for name in row[0].split(" - ", 1))
    return difference(row[0], a, b)


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


def best_seeds(images: str, optimizer: str) -> list[Path]:
    """Every run that reached the target at the best lr that was tried."""
    found = tried(images, optimizer)
    if not found:
        return []
    best = min(found, key=badness)
    return [p for p in seeds(V2 / "target", best.name.rpartition("-seed")[0]) if reached(p)]


def target(row: Row) -> Row:
    images, optimizer = row[0].replace(",", ""), NAMES[row[1]]
    found = tried(images, optimizer)

    def cell(p: Path) -> str:
        if not ended(p):
            return "diverged"
        return f"{steps(p):,}" if reached(p) else f"missed ({max(top1(p)):.1f} %)"

    cells = ", ".join(f"{lr_of(p):g}: {cell(p)}" for p in found) or "missing"
    if row[3] == "-":  # the search is not settled
        return [*row[:2], cells, "-", "missing", "-"]
    best = min(found, key=badness)
    at = f"{lr_of(best):g}" + (" (edge)" if best in (found[0], found[-1]) else "")
    runs = best_seeds(images, optimizer)
    epochs = [load(p)[1][-1]["epoch"] for p in runs]
    return [*row[:2], cells, at, ", ".join(f"{steps(p):,}" for p in runs) or "missing",
            f"{statistics.mean(epochs):.1f}" if runs else "-"]  # fmt: skip


def settled(optimizer: str) -> list[tuple[float, float]]:
    """Batch and epochs of each run at the best lr of a point whose search is settled, by the page's own word."""
    of = [r for r in shown("results/README.md", "target") if NAMES[r[1]] == optimizer and r[3] != "-"]
    points = [(r[0].replace(",", ""), p) for r in of for p in best_seeds(r[0].replace(",", ""), optimizer)]
    return [(float(images), steps(p) * float(images) / IMAGES) for images, p in points]


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
    if abs(one - value) <= 0.51 * step + 2e-3 * value and close:
        return cell
    return f"{value:g} ({wanted[0]:g}-{wanted[1]:g})"


def target_fits(row: Row) -> Row:
    points = settled(NAMES[row[0]])
    if len({b for b, _ in points}) < 3:
        return [row[0], str(len(points)), "missing", "missing", "missing"]
    fewest, critical = curve(points)
    many = resampled(points)
    fewest_steps = [f * IMAGES / c for f, c in many]
    return [row[0], str(len(points)), agrees(row[2], fewest * IMAGES / critical, fewest_steps, 1),
            agrees(row[3], fewest, [f for f, _ in many], 0.1),
            agrees(row[4], critical, [c for _, c in many], 1)]  # fmt: skip


def tuned(row: Row) -> Row:
    found = [p for p in (V2 / "tuned").glob(f"{NAMES[row[0]]}-lr*-warmup{row[1]}") if (p / "config.yaml").exists()]
    found.sort(key=lr_of)
    return [
        *row[:2],
        ", ".join(f"{lr_of(p):g}: {f'{last(p):.2f}' if ended(p) else 'diverged'}" for p in found) or "missing",
    ]


def fresh(row: Row) -> Row:
    group = V2 / ("longer" if row[1] == "180" else "fresh")
    found = seeds(group, NAMES[row[0]])
    config = load(found[0])[0]
    values = [report(p) for p in found]
    return [row[0], str(config["epochs"]), f"{config['optimizer']['lr']:g}", f"{config['schedule']['warmup_epochs']:g}",
            each(values), mean_with_interval(values)]  # fmt: skip


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
    ("results/README.md", "target"): target,
    ("results/README.md", "target fits"): target_fits,
    ("results/README.md", "tuned"): tuned,
    ("results/README.md", "fresh"): fresh,
    ("results/README.md", "fresh differences"): fresh_differences,
    ("results/README.md", "mlperf"): mlperf_systems,
    ("results/README.md", "mlperf fits"): mlperf_fits,
    ("results/fractals-v1/README.md", "rows"): v1_rows,
    ("results/fractals-v1/README.md", "lr"): v1_lr,
    ("results/fractals-v1/README.md", "best"): v1_best,
    ("results/fractals-v1/README.md", "recipes"): v1_recipes,
    ("results/fractals-v1/README.md", "resnet50"): v1_resnet50,
}


def count() -> int:
    return sum(len(row) for page, name in TABLES for row in shown(page, name))


def faults() -> list[str]:
    """Each cell that is not what the logs give."""
    found = []
    for (page, name), recomputed in TABLES.items():
        for row in shown(page, name):
            where = f"{page}, table {name!r}, row {row[0]!r}"
            try:
                ours = recomputed(row)
            except (OSError, ValueError, KeyError, IndexError, StopIteration, AssertionError) as error:
                found.append(f"{where}: cannot be recomputed ({type(error).__name__}: {error})")
                continue
            pairs = itertools.zip_longest(row, ours, fillvalue="nothing")
            found += [f"{where}: shows {cell!r}, the logs give {own!r}" for cell, own in pairs if cell != own]
    return found
