"""The SHA-256 of every log, configuration and result under ``results``, as ``sha256sum -c`` reads it too."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PATH = RESULTS / "manifest.sha256"
NAMES = ("config.yaml", "log.jsonl", "result.json", "diverged.json", "layers.csv", "phases.json")


def files() -> Iterator[Path]:
    """Each file that a table or a plot is made of, in order."""
    for path in sorted(RESULTS.rglob("*")):
        below = path.relative_to(RESULTS).parts
        if path.name in NAMES or (below[0] in ("benchmarks", "published") and path.suffix in (".json", ".csv")):
            yield path


def lines() -> dict[str, str]:
    """Digest by path, relative to the checkout."""
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files()}


def write() -> int:
    now = lines()
    PATH.write_text("".join(f"{digest}  {path}\n" for path, digest in now.items()))
    return len(now)


def faults() -> list[str]:
    """What is not as the committed manifest says."""
    if not PATH.exists():
        return [f"{PATH.relative_to(ROOT)} is missing: python scripts/verify.py --manifest writes it"]
    listed = {path: digest for digest, path in (line.split("  ", 1) for line in PATH.read_text().splitlines())}
    now = lines()
    found = [f"{path}: in the manifest, and gone" for path in sorted(listed.keys() - now.keys())]
    found += [f"{path}: not in the manifest" for path in sorted(now.keys() - listed.keys())]
    changed = sorted(path for path in listed.keys() & now.keys() if listed[path] != now[path])
    return found + [f"{path}: changed since the manifest was written" for path in changed]
