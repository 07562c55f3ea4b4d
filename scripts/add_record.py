"""File a finished ImageNet run as a record, if it is an unchanged preset and nothing is missing.

Usage: python scripts/add_record.py RUN_FOLDER

Checks that the run's configuration equals the preset's, the data are ILSVRC-2012 by their counts, every epoch was
evaluated, and commit, versions, hardware and seed are known; copies configuration, log and result to
``results/imagenet/<preset>-<optimizer>-seed<seed>``. ``python scripts/report.py`` then shows it in the table.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import OmegaConf
from yaml import YAMLError

from scripts.command import exit_with
from scripts.records import FILES, IMAGENET, ROOT, file_run, read
from train.config.compose import compose
from train.config.refusals import MISTAKES, refuse
from train.data.dataset import ILSVRC_2012
from train.errors import UserError
from train.keys import flatten, result_settings

# settings of the result in which a record may still differ from its preset; on_divergence shows in its
# restarts, evaluate_every in its rows
FREE = {"seed", "precision", "compile", "on_divergence", "evaluate_every"}


def check(run: Path) -> str:
    """The record's name; raises UserError with all that is wrong with ``run``."""
    missing = [name for name in FILES if not (run / name).is_file()]
    if missing:
        raise UserError(f"{run} lacks {', '.join(missing)}: give the folder of a finished run")
    try:
        record = read(run)
        now: dict[str, Any] = OmegaConf.to_container(record.config)  # type: ignore[assignment]
        preset, optimizer = now["batch"]["preset"], now["optimizer"]["name"]
        rows, result = record.rows, record.result
        assert result is not None
        epochs, last, top1 = [row["epoch"] for row in rows], result["last_top1"], [row["val_top1"] for row in rows]
        best = result["best_top1"]
    except (ValueError, LookupError, TypeError, YAMLError) as error:
        raise UserError(
            f"{run} is damaged ({type(error).__name__}: {error}): copy it again from where it ran"
        ) from error
    wrong = differences(flatten(now), preset, optimizer)
    counts = tuple(result.get(key) for key in ("train_images", "val_images", "classes"))
    if counts != ILSVRC_2012:
        wrong.append(f"data: {counts} training images, validation images and classes, not {ILSVRC_2012}")
    if epochs != list(range(1, now["epochs"] + 1)):
        wrong.append(f"log.jsonl: {len(rows)} evaluations, not one after each of {now['epochs']} epochs")
    elif (top1[-1], max(top1)) != (last, best):
        wrong.append("result.json and log.jsonl tell different top-1")
    for commit in (result.get("commit"), *result.get("resumed_by", [])):
        if not commit or commit.endswith("-dirty"):
            wrong.append(f"commit: {commit}, where only a clean checkout can be repeated")
    if result.get("restarts"):
        wrong.append(f"restarts: {len(result['restarts'])}, after which it went on with a lower lr")
    wrong += [f"{key}: missing in result.json" for key in ("versions", "hardware", "command") if not result.get(key)]
    others = {names_of(json.loads(p.read_text())) for p in IMAGENET.glob("*/result.json")}
    if others and names_of(result) not in others:
        wrong.append("data: names or labels are not those of the records that are there")
    if wrong:
        raise UserError(f"{run} is no record of batch={preset}: " + "; ".join(wrong))
    return f"{preset}-{optimizer}-seed{now['seed']}"


def names_of(result: dict[str, Any]) -> str:
    """The part of a fingerprint for names and labels, which a pack shares with its originals."""
    return str(result["data_fingerprint"]).partition("-")[0]


def differences(now: dict[str, Any], preset: str, optimizer: str) -> list[str]:
    """Where a run's values are not the preset's."""
    published = result_settings(compose(f"batch={preset}", f"optimizer={optimizer}", "data=imagenet"))
    return [
        f"{key}={now.get(key)}, not {value}"
        for key, value in sorted(published.items())
        if key not in FREE and now.get(key) != value
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN_FOLDER", type=Path)
    folder = parser.parse_args().run
    try:
        record = IMAGENET / check(folder)
    except MISTAKES as error:
        # also of composing: the default recipe does not publish every batch
        return refuse(error)
    if record.exists():
        raise UserError(f"{record.relative_to(ROOT)} is there already: remove it first, or give a run of another seed")
    file_run(folder, record)
    print(f"filed as {record.relative_to(ROOT)}: run python scripts/report.py, and commit both")
    return 0


if __name__ == "__main__":
    exit_with(main)
