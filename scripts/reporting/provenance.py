"""Whether each record under ``results`` names the code that made it: a commit of the history, without changes."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from scripts.records import FRACTALS_V1, ROOT

RESULTS = ROOT / "results"
EXEMPT = (FRACTALS_V1,)  # its README lists its faults
PUBLISHED = RESULTS / "published"  # names the commits of other people's repositories
ENDS = ("result.json", "diverged.json")  # one of them is in the folder of every run
COMMIT = re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{7,40}\b")  # in prose, also abbreviated


def faults(history: set[str] | None) -> list[str]:
    """One line for each record of which nobody can tell what made it; without ``history`` none is looked up in it."""
    found = []
    for path in sorted(RESULTS.rglob("config.yaml")):
        if not is_exempt(path) and not any((path.parent / name).exists() for name in ENDS):
            found.append(f"{path.parent.relative_to(ROOT)} has neither {' nor '.join(ENDS)}")
    for path in sorted(RESULTS.rglob("*")):
        if is_exempt(path) or path.suffix not in (".json", ".md"):
            continue
        for commit in commits(path):
            if why := fault(commit, history):
                found.append(f"{path.relative_to(ROOT)}: commit {commit} {why}")
    return found


def is_exempt(path: Path) -> bool:
    return any(folder in path.parents for folder in (*EXEMPT, PUBLISHED))


def commits(path: Path) -> Iterator[str | None]:
    """What ``path`` names: the fields of a record, or the hexadecimal words of a text."""
    if path.suffix == ".md":
        yield from COMMIT.findall(path.read_text())
        return
    record = json.loads(path.read_text())
    # a table of a record, such as phases.json, has none: the record beside it has
    if "commit" in record or path.name in ENDS or path.parent == RESULTS / "benchmarks":
        yield record.get("commit")
    yield from record.get("resumed_by", [])


def fault(commit: str | None, history: set[str] | None) -> str | None:
    if commit is None:
        return "is not known"
    if commit.endswith("-dirty"):
        return "had changes that were not committed"
    if history is not None and not any(known.startswith(commit) for known in history):
        return "is not in this history"
    return None


def history() -> set[str] | None:
    """Every commit that leads to this one; None where git has no history, or not all of it."""
    try:
        top = _git("rev-parse", "--show-toplevel", "--is-shallow-repository").split("\n")
        # a copy without git may lie in a checkout that is not its own
        if Path(top[0]).resolve() == ROOT.resolve() and top[1] == "false":
            return set(_git("rev-list", "HEAD").split("\n"))
    except (OSError, subprocess.CalledProcessError):
        pass
    return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
