"""The tables of the READMEs, as Markdown, from records and benchmarks; MLPerf's are beside their plot."""

import json
from pathlib import Path
from typing import Any

from scripts.estimate import scaling
from scripts.estimate.one_run import dollars_of
from scripts.estimate.rows import GPUS, MACHINES, costs_of_rows
from scripts.estimate.text import duration
from scripts.matrix import OPTIMIZERS
from scripts.records import (
    BENCHMARKS,
    FRACTALS_V1,
    PRESETS,
    PUBLISHED_OPTIMIZER,
    ROOT,
    Record,
    by_row,
    mean_and_deviation,
    on_fractals_v1,
    on_imagenet,
    published,
    read,
)
from scripts.reporting.fractals_v1 import MIDDLE_V1

MISSING = "missing"
RECIPES_V1 = ("paper", "nus", "mlperf", "goyal", "nesterov")

# the head of both tables over seeds
OVER_SEEDS = ("| `batch=` | optimizer | lr | n of 3 | last epoch (reported) | best |", "|---|---|---|---|---|---|")


def imagenet(preset: str, optimizer: str) -> str:
    """Top-1 of the records that ``scripts/add_record.py`` has filed."""
    found = on_imagenet(preset, optimizer)
    return f"**{mean_and_deviation([r.last for r in found])}** ({len(found)})" if found else "not run yet"


def imagenet_table() -> str:
    lines = ["| `batch=` | optimizer | published top-1 % | ours, last epoch (seeds) |", "|---|---|---|---|"]
    top1 = {row["batch"]: row["top1"] for row in published("torchlars.csv")}
    for preset, batch in PRESETS.items():
        for optimizer in OPTIMIZERS:
            is_published = optimizer == PUBLISHED_OPTIMIZER[preset]
            if is_published or on_imagenet(preset, optimizer):
                number = top1[str(batch)] if is_published else "-"
                lines.append(f"| `{preset}` | {optimizer.upper()} | {number} | {imagenet(preset, optimizer)} |")
    return "\n".join(lines)


def rows_table() -> str:
    """(a) of version 1: presets and optimizers, over seeds."""
    found = {(s[0].preset, s[0].optimizer): s for s in by_row(on_fractals_v1("rows"))}
    lines = list(OVER_SEEDS)
    for preset in PRESETS:
        for optimizer in OPTIMIZERS:
            seeds = found.get((preset, optimizer), [])
            lr = f"{seeds[0].config.optimizer.lr:g}" if seeds else "-"
            lines.append(f"| `{preset}` | {optimizer.upper()} | {lr} | {figures(seeds)} |")
    return "\n".join(lines)


def lr_table() -> str:
    """(b) of version 1: top-1 after 30 epochs by learning rate."""
    lines = ["| `batch=` | optimizer | top-1 % after 30 epochs, by lr |", "|---|---|---|"]
    for preset, optimizer in MIDDLE_V1:
        runs = [r for r in on_fractals_v1("lr") if (r.preset, r.optimizer) == (preset, optimizer)]
        cells = {float(r.config.optimizer.lr): f"{r.last:.1f}" if r.result else "-" for r in runs}
        row = ", ".join(f"{rate:g}: {cells[rate]}" for rate in sorted(cells))
        lines.append(f"| `{preset}` | {optimizer.upper()} | {row} |")
    return "\n".join(lines)


def best_table() -> str:
    """(c) of version 1: each optimizer at its best learning rates of (b), other seeds."""
    found = {(s[0].optimizer, float(s[0].config.optimizer.lr)): s for s in by_row(on_fractals_v1("best"))}
    lines = list(OVER_SEEDS)
    for name, rate in sorted(found):
        lines.append(f"| `32k` | {name.upper()} | {rate:g} | {figures(found[name, rate])} |")
    return "\n".join(lines)


def recipes_table() -> str:
    """Top-1 of each recipe at each batch after 10 epochs, or after fewer where that was its aim."""
    lines = ["| `recipe=` | top-1 % after 10 epochs, by `batch=` |", "|---|---|"]
    runs: dict[str, list[Record]] = {}
    for path in sorted((FRACTALS_V1 / "recipes").glob("*/config.yaml")):
        runs.setdefault(path.parent.name.partition("-")[0], []).append(read(path.parent))
    for recipe in RECIPES_V1:
        by_batch = sorted(runs[recipe], key=lambda r: r.config.batch.published)
        cells = ", ".join(f"`{r.preset}` {_reached(r.folder)}" for r in by_batch)
        lines.append(f"| `{recipe}` | {cells} |")
    return "\n".join(lines)


def resnet50_table() -> str:
    """Top-1 and losses of ResNet-50 on fractals after 30 epochs."""
    lines = ["| `batch=` | top-1 % after 30 epochs | validation loss | training loss |", "|---|---|---|---|"]
    for preset in ("32k", "256"):
        folder = FRACTALS_V1 / "resnet50" / preset
        end = read(folder).rows[-1]
        lines.append(f"| `{preset}` | {_reached(folder)} | {end['val_loss']:.2f} | {end['train_loss']:.2f} |")
    return "\n".join(lines)


def rehearsal_table() -> str:
    """Seconds by phase and peak memory of ``scripts/rehearsal.py``."""
    folder = ROOT / "results" / "rehearsal"
    measured, record = json.loads((folder / "phases.json").read_text()), read(folder)
    assert record.result
    hardware = record.result["hardware"]
    lines = ["| phase | seconds |", "|---|---|", *(f"| {name} | {s:,.0f} |" for name, s in measured["seconds"].items())]
    about = f"Peak memory of the training process: {measured['peak_resident_mib']:,} MiB resident. "
    about += f"{hardware['cpu']}, {hardware['cores']} cores, {record.config.precision}."
    return "\n".join([*lines, "", about])


def _reached(folder: Path) -> str:
    record = read(folder)
    if not record.result:
        return "diverged"
    stopped = len(record.rows) < record.config.epochs
    return f"{record.last:.1f}" + (f" (epoch {len(record.rows)})" if stopped else "")


def figures(seeds: list[Record]) -> str:
    """Count, last and best of the runs of one row; how many diverged."""
    if not seeds:
        return f"0 of 3 | {MISSING} | {MISSING}"
    ended = [s for s in seeds if s.result]
    count = f"{len(seeds)}" + (f", {len(seeds) - len(ended)} diverged" if len(ended) < len(seeds) else "")
    if not ended:
        return f"{count} | - | -"
    return f"{count} | {mean_and_deviation([s.last for s in ended])} | {mean_and_deviation([s.best for s in ended])}"


def training_table() -> str:
    """Images/s of the whole app and of what it is compared with, by ``scripts/bench.py train`` and ``peers``."""
    train, peers = (json.loads((BENCHMARKS / f"{name}.json").read_text()) for name in ("train", "peers"))
    lines = ["| what runs | images/s: median (min-max) | of the bare one, round by round | n |", "|---|---|---|---|"]
    shares = {"app": train["ratio"], **peers["share_of_a_bare_step"]}
    for name, figures_of in {"train": train, "peers": peers}.items():
        for what, f in figures_of["images_per_second"].items():
            speed = ranged(f, 0 if f["median"] > 100 else 1)
            share = ranged(shares[what]) if what in shares else "1"
            lines.append(f"| {name}: {what} | {speed} | {share} | {f['n']} |")
    return "\n".join([*lines, "", f"train: {measured_on(train)} peers: {measured_on(peers)}"])


def optimizer_table() -> str:
    """What a step of each optimizer costs, by ``scripts/bench.py optimizer``."""
    measured = json.loads((BENCHMARKS / "optimizer.json").read_text())
    lines = ["| optimizer | x SGD fused: median (min-max) | N | calls | host reads |", "|---|---|---|---|---|"]
    for name, f in measured["optimizers"].items():
        ratio = ranged(f["ratio_to_sgd_fused"])
        costs = " | ".join("-" if f[key] is None else f"{f[key]:,g}" for key in ("passes", "calls", "host_reads"))
        lines.append(f"| {name} | {ratio} | {costs} |")
    return "\n".join([*lines, "", f"n = {measured['steps']}; {measured_on(measured)}"])


def noise_table() -> str:
    """What the noise scale adds to a step, by ``scripts/bench.py noise``."""
    measured = json.loads((BENCHMARKS / "noise.json").read_text())
    lines = ["| network | % of the rest of a step: median (min-max) | n |", "|---|---|---|"]
    for name, f in measured["percent_of_a_step"].items():
        lines.append(f"| {name} | {ranged(f)} | {f['n']} |")
    return "\n".join([*lines, "", measured_on(measured)])


def data_table() -> str:
    """Images/s of the input pipelines, by ``scripts/bench.py data``."""
    measured = json.loads((BENCHMARKS / "data.json").read_text())
    lines = ["| pipeline | images/s for each process: median (min-max) |", "|---|---|"]
    lines += [f"| {name} | {ranged(f, 0)} |" for name, f in measured["images_per_second"].items()]
    lines += ["", "| ratio within a round | median (min-max) |", "|---|---|"]
    lines += [f"| {name} | {ranged(f)} |" for name, f in measured["ratios"].items()]
    files = measured["files"]
    n = next(iter(measured["ratios"].values()))["n"]
    about = [
        f"n = {n}; {files['images']:,} files of {files['pixels']} pixels, quality {files['jpeg_quality']}, "
        f"{files['mean_bytes'] / 1000:.0f} kB on average",
        f"({files['content']}); two processes decode; {measured_on(measured)}",
    ]
    return "\n".join([*lines, "", *about])


def index_sentence() -> str:
    """Size and seconds of the index of ImageNet's count of images, by ``scripts/bench.py index``."""
    path = BENCHMARKS / "index.json"
    if not path.exists():
        return "Not measured on the present code yet (`python scripts/bench.py index`)."
    measured = json.loads(path.read_text())
    made, opened = measured["seconds to make"], measured["seconds to open"]
    return (
        f"Measured: {measured['what']} takes {measured['file_bytes'] / 1e6:.0f} MB; made in {made['median']:.0f} s "
        f"({made['min']:.0f}-{made['max']:.0f}), opened again in {1000 * opened['median']:.1f} ms (n = {made['n']}); "
        f"{measured_on(measured)}"
    )


def plan_table() -> str:
    """Estimated time and cost of the four rows on ImageNet, on one machine of each kind."""
    names = [f"8 x {m.upper()}: images/s | time | $" for m in MACHINES]
    lines = [f"| `batch=` | micro-batch | {' | '.join(names)} |", "|---|---|" + "---|" * 3 * len(MACHINES)]
    for preset in PRESETS:
        cells, micro = [], None
        for name in MACHINES:
            # one, or the ends of a range
            found = [
                next(cost for cost in costs if cost and cost.gpus == 8)
                for config, machine, costs in costs_of_rows(GPUS)
                if machine.name.startswith(name) and config.batch.preset == preset
            ]
            micro = found[0].micro
            cells += [
                " to ".join(f"{c.images_per_second:,.0f}" for c in found),
                " to ".join(duration(c.hours) for c in reversed(found)),
                " to ".join(dollars_of(c) for c in reversed(found)),
            ]
        lines.append(f"| `{preset}` | {micro} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scaling_table() -> str:
    """Published images/s and the model of scripts/plan.py, which starts from some of them."""
    lines = [
        "| who | GPU, precision | GPUs | images a GPU | published images/s | predicted | off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in scaling.points():
        off = "starts from it" if p.is_base else f"{100 * p.error:+.0f} %"
        lines.append(
            f"| {p.who} | {p.gpu}, {p.precision} | {p.gpus:,} | {p.images_per_gpu} | {p.published:,.0f} "
            f"| {p.predicted:,.0f} | {off} |"
        )
    return "\n".join(lines)


def ranged(figures: dict[str, float], digits: int = 2) -> str:
    """The median of a benchmark's rounds, and their range."""
    return "{median:,.{d}f} ({min:,.{d}f}-{max:,.{d}f})".format(**figures, d=digits)


def measured_on(measured: dict[str, Any]) -> str:
    hardware, versions = measured["hardware"], measured["versions"]
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''}"
    return f"{hardware['cpu']}, {threads}, torch {versions['torch']}."
