"""The tables of MLPerf's logs."""

import csv
from functools import cache

from scripts.verification.cells import IMAGENET, Row, number
from scripts.verification.curves import agrees, curve, resampled
from scripts.verification.runs import RESULTS


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


def fits(row: Row) -> Row:
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


def table(row: Row) -> Row:
    name, _, version = row[10].rpartition(", v")
    r = next(r for r in systems() if (r["path"].removesuffix("/resnet"), r["version"], r["batch"]) == (
        name, version, row[0].replace(",", "")))  # fmt: skip
    fewest, critical = curve(fewest_of_each())
    batch, epochs = int(r["batch"]), float(r["epochs"])
    settings = [r[key] or "not logged" for key in ("lr", "warmup_epochs", "momentum", "weight_decay", "bn_span")]
    expected = fewest * (1 + batch / critical)
    return [f"{batch:,}", f"{epochs:g}", row[2] if abs(number(row[2]) - expected) < 0.11 else f"{expected:.1f}",
            f"{epochs * IMAGENET / batch:,.0f}", *settings, f"{r['reached']} of {r['runs']}", row[10]]  # fmt: skip
