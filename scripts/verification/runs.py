"""Each record by itself: its log, result, configuration, command, images and commit must agree."""

import json
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
# of the images that each data set draws
FINGERPRINTS = {
    "fractals-v1": "d339df24c0ebeee84b1b1ba9c1ab1139cf96ede32df4a69d97d6549671a733c3",
    "fractals": "08de78fe4a515b5e56a96d5e647a8a45349268ea03ffa3f411a43953bbedb6f7",
}


@cache
def load(folder: Path) -> tuple[dict[str, Any], list[dict[str, float]], dict[str, Any] | None]:
    """Configuration, rows of the log, and result; None for a run that diverged."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    result = folder / "result.json"
    return config, rows, json.loads(result.read_text()) if result.exists() else None


def folders() -> list[Path]:
    found = {path.parent for path in RESULTS.rglob("config.yaml")}
    return sorted(found - {RESULTS / "fractals-v1" / "resnet50-layers"})  # five epochs of layers.csv, and no log


def count() -> int:
    return len(folders())


def faults() -> list[str]:
    """What does not agree; commits are not looked up where there is no whole history."""
    history = commits()
    found = []
    for folder in folders():
        where = folder.relative_to(ROOT)
        try:
            found += [f"{where}: {fault}" for fault in of_one(folder, history)]
        except (OSError, ValueError, KeyError, IndexError, TypeError, yaml.YAMLError) as error:
            found.append(f"{where}: damaged ({type(error).__name__}: {error})")
    return found


def of_one(folder: Path, history: set[str]) -> list[str]:
    config, rows, result = load(folder)
    kind = folder.relative_to(RESULTS).parts[0]
    found = []
    epochs = [row["epoch"] for row in rows]
    every = config.get("evaluate_every", 1)
    if epochs and epochs != [e for e in range(1, int(epochs[-1]) + 1) if e % every == 0 or e == epochs[-1]]:
        found.append("log.jsonl has gaps between its epochs")
    for row in rows:
        if row["epoch"] and row["step"] * config["batch"]["total"] > row["images"] + 1:
            found.append(f"epoch {row['epoch']}: more steps than images")
    if result is None:
        ended = folder / "diverged.json"
        if kind == "fractals" and not ended.exists():
            found.append("neither result.json nor diverged.json")
        result = json.loads(ended.read_text()) if ended.exists() else {}
    else:
        top1 = [row["val_top1"] for row in rows]
        if (top1[-1], max(top1)) != (result["last_top1"], result["best_top1"]):
            found.append("result.json and log.jsonl tell different top-1")
        if rows[-1]["step"] != result["steps"]:
            found.append("result.json and log.jsonl tell different steps")
        stopped = result.get("reached_top1")
        if epochs[-1] != config["epochs"] and not (stopped and top1[-1] >= stopped):
            found.append(f"ends after epoch {epochs[-1]:g} of {config['epochs']}")
    if kind in FINGERPRINTS and result and result.get("data_fingerprint", "") != FINGERPRINTS[kind]:
        found.append("its images are not those of the data set")
    if kind != "fractals-v1":
        found += [f"commit {c} {why}" for c in commits_of(result) if (why := fault(c, history))]
        found += of_command(str(result.get("command", "")), config)
    return found


def of_command(command: str, config: dict[str, Any]) -> list[str]:
    """Where the configuration is not what the command says; groups that a word chooses are looked up by their name."""
    found = []
    for word in shlex.split(command)[2:]:
        key, is_override, text = word.partition("=")
        if not is_override:
            continue
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, dict):  # a group: batch=32k, optimizer=lars
            value = value.get("preset", value.get("name"))
        said = yaml.safe_load(text)
        if (
            str(value) != text
            and value != said
            and not (_number(value) and _number(said) and float(value) == float(said))
        ):
            found.append(f"the command has {word}, the configuration {value}")
    return found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def commits_of(result: dict[str, Any]) -> list[str | None]:
    return [result.get("commit"), *result.get("resumed_by", [])]


def fault(commit: str | None, history: set[str]) -> str | None:
    if commit is None:
        return "is not known"
    if commit.endswith("-dirty"):
        return "had changes that were not committed"
    return None if not history or commit in history else "does not lead to this one"


@cache
def commits() -> set[str]:
    """Every commit that leads to the one that is checked out; none where git has no whole history of this folder."""
    try:
        run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        top = subprocess.run(["git", "rev-parse", "--show-toplevel", "--is-shallow-repository"], **run).stdout.split()  # type: ignore[call-overload]
        if Path(top[0]).resolve() != ROOT.resolve() or top[1] != "false":
            return set()
        return set(subprocess.run(["git", "rev-list", "HEAD"], **run).stdout.split())  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        return set()
