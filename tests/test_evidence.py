"""The tables of the experiments on fractals, on invented records: what they say of failures, and that both agree."""

import json
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import scripts.reporting.experiments as reporting
from scripts import matrix, records, report
from scripts.matrix import IMAGES, Experiment
from scripts.verification import accuracy, cells, curves, how_large, tables, to_target

V2 = "results/README.md"
NAMES = ["fractals rows", "fractals row differences", "reference", "target", "target fits", "tuned", "fresh",
         "fresh differences", "noise scale", "growth", "growth differences", "variance",
         "variance differences"]  # fmt: skip


@pytest.fixture
def fractals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of records, which the report and its verification both look into."""
    folder = tmp_path / "results" / "fractals"
    folder.mkdir(parents=True)
    monkeypatch.setattr(records, "FRACTALS", folder)
    monkeypatch.setattr(matrix, "RECORDS", folder)
    for module in (accuracy, to_target, how_large):
        monkeypatch.setattr(module, "V2", folder)
    monkeypatch.setattr(cells, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "TABLES", {(V2, name): tables.TABLES[V2, name] for name in NAMES})
    # a smaller bootstrap, whose bounds are less exact
    monkeypatch.setattr(to_target, "resampled", partial(curves.resampled, count=100))
    monkeypatch.setattr(curves, "BOOTSTRAP", 0.25)
    records.on_fractals.cache_clear()
    yield folder
    records.on_fractals.cache_clear()


IMAGES_OF = {"256": 32, "8k": 1024, "16k": 2048, "32k": 4096, "64k": 8192}
BEST_LR = {"sgd": 1.8, "lars": 51.6}  # of (c)


def cpu_of(e: Experiment) -> str:
    return "Intel Xeon" if (e.group, e.record.name[-5:]) == ("noise", "seed1") else "AMD EPYC"


def invent(e: Experiment, failure: str) -> None:
    """The record of a run of ``e``, which may "diverge" or "miss" the target."""
    said = dict(override.split("=", 1) for override in e.overrides)
    chance = random.Random(e.name.removesuffix("-trial"))
    optimizer, lr = said.get("optimizer", "lars"), float(said.get("optimizer.lr", 1))
    images = int(said["batch.total"]) if "batch.total" in said else IMAGES_OF[said["batch"]]
    to_target = "stop_at_top1" in said
    if to_target:
        fewest, critical = {"lars": (20, 2600), "sgd": (15, 2200)}[optimizer]
        off = 1 + abs(math.log10(lr / matrix.middle_lr(images, optimizer)))
        last, top1 = round(fewest * (1 + images / critical) * off * math.exp(chance.gauss(0, 0.03))), 75.2
    else:
        last, top1 = 90, 78 - images / 1000 + chance.gauss(0, 0.4)
        top1 -= 3 * abs(math.log10(lr / BEST_LR[optimizer])) if e.group == "tuned" else 0
    top1 = 74.0 if failure == "miss" else top1
    epochs = sorted({last * k // 6 for k in range(1, 7)})
    loss = 1.1 if e.group == "noise" and e.name.endswith(("seed1", "seed2")) else 1.0
    rows = [
        {"epoch": epoch, "step": epoch * (IMAGES // images), "train_loss": loss, "val_loss": 1.0,
         "val_top1": top1 if epoch == last else top1 - 10 + 9 * epoch / last,
         "noise_scale": None if epoch == epochs[0] else 1000 * chance.uniform(1, 3),
         "noise_scale_lars": 1000 * chance.uniform(1, 3)}
        for epoch in epochs
    ]  # fmt: skip
    config = {
        "seed": int(said.get("seed", 0)), "epochs": int(said.get("epochs", 90)),
        "batch": {"total": images, "preset": said.get("batch", "8k")}, "optimizer": {"name": optimizer, "lr": lr},
        "schedule": {"warmup_epochs": float(said.get("schedule.warmup_epochs", 5))},
    }  # fmt: skip
    result = {
        "steps": rows[-1]["step"], "last_top1": top1, "best_top1": top1, "report_top1": round(top1 - 0.3, 4),
        "reached_top1": 75.0 if to_target and top1 >= 75 else None, "hardware": {"cpu": cpu_of(e)},
        "train_images": IMAGES,
    }  # fmt: skip
    e.record.mkdir(parents=True)
    (e.record / "config.yaml").write_text(json.dumps(config))
    (e.record / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (e.record / ("diverged.json" if failure == "diverge" else "result.json")).write_text(json.dumps(result))


def run_all(
    fails: Callable[[Experiment], str] = lambda e: "", skip: Callable[[Experiment], bool] = lambda e: False
) -> None:
    """Invent every run that is asked for, as often as those that are done ask for more."""
    while todo := [e for asked in matrix.GROUPS.values() for e in asked() if not e.is_done and not skip(e)]:
        for e in todo:
            invent(e, fails(e))
        records.on_fractals.cache_clear()


def page(fractals: Path) -> dict[str, list[list[str]]]:
    """Write the report's tables to a page, and return their rows by name."""
    text = "\n".join(
        report.rebuilt(f"<!-- {name} -->\n<!-- /{name} -->", name, report.TABLES[V2, name]()) for name in NAMES
    )
    (fractals.parent / "README.md").write_text(text)
    return {name: [list(row) for row in cells.shown(V2, name)] for name in NAMES}


def draw(folder: Path) -> None:
    """Every plot of the experiments, from the records as they are."""
    for plot in (*reporting.to_target.PLOTS, *reporting.how_large.PLOTS, *reporting.accuracy.PLOTS):
        if text := plot.as_csv():
            plot.picture(folder / f"{plot.name}.png", text)


def test_with_all_runs_done_the_second_look_agrees_on_every_cell(fractals: Path):
    run_all()
    shown = page(fractals)
    assert tables.faults() == []
    assert not [row for rows in shown.values() for row in rows if "missing" in row]
    assert {row[3] for row in shown["fractals row differences"]} != {"-"}
    # three against three are an estimate, and no test
    assert [(row[1], row[3]) for row in shown["fresh differences"]][-1] == ("3 and 3", "not tested")
    assert [row[2] for row in shown["target fits"]] == ["18 of 18", "12 of 12"] * 2
    assert {row[7] for row in shown["noise scale"]} == {"equal, other CPU, differs"}
    draw(fractals.parent)


def test_a_seed_that_failed_is_listed_and_not_averaged_away(fractals: Path):
    fails = {"fresh/sgd-seed7": "diverge", "rows/16k-lars-seed3": "diverge", "growth/growing-seed1": "diverge",
             "target/4096-sgd-lr0.8-seed1": "miss", "target/1024-lars-lr12.8-seed2": "diverge"}  # fmt: skip
    run_all(lambda e: fails.get(f"{e.group}/{e.name}", ""))
    shown = page(fractals)
    assert tables.faults() == []
    of_sgd = next(row for row in shown["fresh"] if row[0] == "SGD")
    assert "diverged" in of_sgd[4] and of_sgd[5] == "4 of 5"
    assert ["LARS - SGD", "5 and 4", "not tested", "-"] in shown["fresh differences"]
    by_point = {(row[0], row[1]): row[4] for row in shown["target"]}
    draw(fractals.parent)
    assert "missed (74.0 %)" in by_point["4,096", "SGD"] and "diverged" in by_point["1,024", "LARS"]
    assert [row[2] for row in shown["target fits"]] == ["17 of 18", "11 of 12"] * 2


def test_a_point_that_never_reaches_the_target_is_said_and_left_out_of_the_fit(fractals: Path):
    run_all(lambda e: "miss" if e.name.startswith("8192-sgd") else "")
    shown = page(fractals)
    assert tables.faults() == []
    (point,) = (row for row in shown["target"] if row[:2] == ["8,192", "SGD"])
    assert point[4].count("missed") == 3 and point[5] == "-"
    assert [row[3] for row in shown["target fits"]] == ["6", "6", "5", "5"]


def test_nothing_is_concluded_before_an_experiment_is_complete(fractals: Path):
    run_all(skip=lambda e: e.name.endswith(("seed2", "seed7")) or e.name.startswith("2048-lars"))
    shown = page(fractals)
    assert tables.faults() == []
    assert all(row[4].startswith("waits for") for row in shown["target fits"])
    draw(fractals.parent)
    assert all(row[2] == "not tested" for name in NAMES if name.endswith("differences") for row in shown[name][:2])


def test_a_measured_run_whose_twin_is_not_there_is_no_defect(fractals: Path):
    run_all(skip=lambda e: e.group not in ("target", "noise") or (e.group, e.name[-5:]) == ("target", "seed1"))
    shown = page(fractals)
    assert tables.faults() == []
    assert {row[7] for row in shown["noise scale"]} == {"missing, missing, missing", "equal, missing, differs"}


def test_the_best_trial_of_each_kind_is_marked_and_so_is_an_edge_that_ends_its_search(fractals: Path, monkeypatch):
    monkeypatch.setitem(BEST_LR, "lars", 5160)  # beyond what is searched
    run_all(skip=lambda e: e.group != "tuned")
    cells = [row[2] for row in page(fractals)["tuned"]]
    assert tables.faults() == []
    assert sum(cell.count("**") for cell in cells) == 2 * 3 and all(cell.count(": ") == 5 for cell in cells)
    assert sum("1630: " in cell and "(edge)**" in cell for cell in cells) == 1
