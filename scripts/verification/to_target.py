"""The tables of steps to the target against batch."""

import math
import statistics
from pathlib import Path

from scripts.verification.cells import IMAGES, NAMES, V2, Row, ended, last, lr_of, seed_of, seeds, steps, top1
from scripts.verification.curves import agrees, curve, resampled

BATCHES = ("64", "256", "1024", "2048", "4096", "8192")


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


def table(row: Row) -> Row:
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


def fits(row: Row) -> Row:
    optimizer, chose = NAMES[row[0]], row[1] == "all"
    runs = runs_at_best(optimizer, chose)
    points = to_fit(runs)
    counts = [f"{len(points)} of {sum(map(len, runs.values()))}", str(len({b for b, _ in points}))]
    waiting = sum(len(of) < 3 for of in runs_at_best(optimizer, True).values())
    if waiting or len({b for b, _ in points}) < 3:
        why = f"waits for {waiting} of 6 batches" if waiting else "fewer than 3 batches reached it"
        return [*row[:2], *counts, why, "-", "-"]
    fewest, critical = curve(points)
    many = resampled(points)
    fewest_steps = [f * IMAGES / c for f, c in many]
    return [*row[:2], *counts, agrees(row[4], fewest * IMAGES / critical, fewest_steps, 1),
            agrees(row[5], fewest, [f for f, _ in many], 0.1),
            agrees(row[6], critical, [c for _, c in many], 1)]  # fmt: skip
