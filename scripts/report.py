"""Rebuild every table of the READMEs and the plot of top-1 against epoch from the records under ``results``.

Usage: python scripts/report.py [--check]      (--check writes nothing and fails when a README would change)
"""

import argparse
import itertools
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from train.data.fractals import FINGERPRINTS  # noqa: E402

RECORDS = ROOT / "results" / "fractals"
IMAGENET = ROOT / "results" / "imagenet"
BENCHMARKS = ROOT / "results" / "benchmarks"

PRESETS = ("256", "8k", "16k", "32k")
# torchlars README, "Best Top-1 accuracy"
PUBLISHED = {"256": "73.79", "8k": "73.78", "16k": "73.36", "32k": "72.26"}
PUBLISHED_OPTIMIZER = {"256": "sgd", "8k": "lars", "16k": "lars", "32k": "lars"}
# Okabe and Ito's palette, told apart also by the colour-blind
COLOURS = {"256": "#000000", "8k": "#0072B2", "16k": "#009E73", "32k": "#D55E00"}


@dataclass(frozen=True)
class Record:
    """One finished run: its composed configuration, its rows and its result."""

    folder: Path
    config: Any
    rows: list[dict[str, float]]
    result: dict[str, Any]

    @property
    def preset(self) -> str:
        return str(self.config.batch.preset)

    @property
    def optimizer(self) -> str:
        return str(self.config.optimizer.name)

    @property
    def is_published_row(self) -> bool:
        return PUBLISHED_OPTIMIZER[self.preset] == self.optimizer

    @property
    def policy(self) -> str:
        return "LARS + poly(2)" if self.optimizer == "lars" else "SGD, poly(2)"


def read(folder: Path) -> Record:
    return Record(
        folder,
        OmegaConf.load(folder / "config.yaml"),
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()],
        json.loads((folder / "result.json").read_text()),
    )


def records() -> list[Record]:
    """The finished runs on the published pixels, presets in order and the published optimizer first."""
    found = []
    for path in sorted((RECORDS / "rows").glob("*/result.json")):
        record = read(path.parent)
        if record.result["data_fingerprint"] not in FINGERPRINTS.values():
            print(
                f"left out {record.folder.name}: its images are not those of the other records",
                file=sys.stderr,
            )
            continue
        found.append(record)
    return sorted(found, key=lambda r: (PRESETS.index(r.preset), not r.is_published_row, r.folder.name))


def by_row(rows: list[Record]) -> list[list[Record]]:
    """The seeds of each preset and optimizer together."""
    return [list(group) for _, group in itertools.groupby(rows, key=lambda r: (r.preset, r.optimizer))]


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def on_imagenet(preset: str, optimizer: str) -> str:
    """Top-1 of the records that ``scripts/add_record.py`` has filed."""
    found = [json.loads(p.read_text()) for p in sorted(IMAGENET.glob(f"{preset}-{optimizer}-seed*/result.json"))]
    return f"**{spread([r['last_top1'] for r in found])}** ({len(found)})" if found else "not run yet"


def table(rows: list[Record]) -> str:
    lines = [
        "| `batch=` | policy | lr | warm-up | epochs | published top-1 % | ours, ImageNet "
        "| ours, fractals: batch | last epoch (reported) | best | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seeds in by_row(rows):
        r = seeds[0]
        published = PUBLISHED[r.preset] if r.is_published_row else "-"
        warmup = r.config.schedule.warmup_epochs
        lr = f"{r.config.optimizer.lr:g}"
        if r.is_published_row and r.preset == "256":
            lr = f"0.2 ({lr} on fractals)"
        lines.append(
            f"| `{r.preset}` | {r.policy} | {lr} | {f'{warmup:g}' if warmup else '-'} | {r.config.epochs} "
            f"| {published} | {on_imagenet(r.preset, r.optimizer)} | {r.config.batch.total:,} "
            f"| **{spread([s.result['last_top1'] for s in seeds])}** "
            f"| {spread([s.result['best_top1'] for s in seeds])} | {len(seeds)} |"
        )
    return "\n".join(lines)


def plot(rows: list[Record], path: Path) -> None:
    """Validation top-1 against epoch, all rows: dashed where the optimizer is not the published one."""
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    for seeds in by_row(rows):
        r = seeds[0]
        epochs, top1 = [x["epoch"] for x in r.rows], [x["val_top1"] for x in r.rows]
        label = f"{r.preset} ({r.config.batch.total:,}), {r.optimizer.upper()}: {top1[-1]:.1f} %"
        style = "-" if r.is_published_row else "--"
        axes.plot(epochs, top1, style, color=COLOURS[r.preset], label=label, linewidth=1.6)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation top-1 (%)")
    axes.set_title("ResNet-8 on fractals, 64 classes (not ImageNet): the four rows, batch divided by 8")
    axes.set_xlim(0, max(len(r.rows) for r in rows))
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(title="batch= (global batch), optimizer: last epoch", loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def optimizer_table() -> str:
    """What a step of each optimizer costs, by ``scripts/bench.py optimizer``."""
    figures = json.loads((BENCHMARKS / "optimizer.json").read_text())
    lines = ["| optimizer | x SGD fused: median (min-max) | N | calls | host reads |", "|---|---|---|---|---|"]
    for name, f in figures["optimizers"].items():
        ratio = "{median:.2f} ({min:.2f}-{max:.2f})".format(**f["ratio_to_sgd_fused"])
        costs = " | ".join("-" if f[key] is None else f"{f[key]:,g}" for key in ("passes", "calls", "host_reads"))
        lines.append(f"| {name} | {ratio} | {costs} |")
    return "\n".join([*lines, "", f"n = {figures['steps']}; {measured_on(figures)}"])


def data_table() -> str:
    """Images/s of the input pipelines, by ``scripts/bench.py data``."""
    figures = json.loads((BENCHMARKS / "data.json").read_text())
    lines = ["| pipeline | images/s for each process: median (min-max) |", "|---|---|"]
    shown = "{median:,.0f} ({min:,.0f}-{max:,.0f})"
    lines += [f"| {name} | {shown.format(**f)} |" for name, f in figures["images_per_second"].items()]
    lines += ["", "| ratio within a round | median (min-max) |", "|---|---|"]
    lines += [
        f"| {name} | " + "{median:.2f} ({min:.2f}-{max:.2f}) |".format(**f) for name, f in figures["ratios"].items()
    ]
    files = figures["files"]
    n = next(iter(figures["ratios"].values()))["n"]
    about = [
        f"n = {n}; {files['images']:,} files of {files['pixels']} pixels, quality {files['jpeg_quality']}, "
        f"{files['mean_bytes'] / 1000:.0f} kB on average",
        f"({files['content']}); two processes decode; {measured_on(figures)}",
    ]
    return "\n".join([*lines, "", *about])


def measured_on(figures: dict[str, Any]) -> str:
    hardware, versions = figures["hardware"], figures["versions"]
    return f"{hardware['cpu']}, {figures['threads']} threads, torch {versions['torch']}."


def rebuilt(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the two comments that name ``name`` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, found, rest = text.partition(begin)
    assert found and end in rest, f"no {begin} ... {end}"
    return f"{head}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a README would change")
    check = parser.parse_args().check
    rows = records()
    if not rows:
        print(f"no finished run under {RECORDS}: copy config.yaml, log.jsonl and result.json there", file=sys.stderr)
        return 2
    stale = []
    for path, name, content in (
        (ROOT / "README.md", "table", table(rows)),
        (ROOT / "lars" / "README.md", "benchmark", optimizer_table()),
        (ROOT / "docs" / "data.md", "benchmark", data_table()),
    ):
        text = path.read_text()
        new = rebuilt(text, name, content)
        if new != text:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new)
    if check and stale:
        print(f"not what the records say: {', '.join(map(str, stale))}; run python scripts/report.py", file=sys.stderr)
        return 1
    if not check:
        plot(rows, RECORDS / "top1.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
