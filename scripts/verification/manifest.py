"""The SHA-256 of every log, configuration and result under ``results``, and of every table that the report writes."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PATH = RESULTS / "manifest.sha256"  # as ``sha256sum -c`` reads it too
TABLES = RESULTS / "tables.sha256"
PAGES = ("*.md", "docs/*.md", "lars/*.md", "results/**/*.md")
FOLDERS = ("benchmarks", "plots", "published")
NAMES = ("config.yaml", "log.jsonl", "result.json", "diverged.json", "layers.csv", "phases.json")


def files() -> Iterator[Path]:
    """Each file that a table or a plot is made of, in order."""
    for path in sorted(RESULTS.rglob("*")):
        below = path.relative_to(RESULTS).parts
        if path.name in NAMES or (below[0] in FOLDERS and path.suffix in (".json", ".csv")):
            yield path


def of_files() -> dict[str, str]:
    """Digest by path, relative to the checkout."""
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files()}


def of_tables() -> dict[str, str]:
    """Digest by page and name of what stands between the two comments of a table."""
    found = {}
    for path in sorted(p for pages in PAGES for p in ROOT.glob(pages)):
        for name, text in re.findall(r"<!-- ([\w -]+) -->\n(.*?)\n<!-- /\1 -->", path.read_text(), re.DOTALL):
            found[f"{path.relative_to(ROOT)}, table {name}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def write() -> int:
    written = {PATH: of_files(), TABLES: of_tables()}
    for path, digests in written.items():
        path.write_text("".join(f"{digest}  {what}\n" for what, digest in digests.items()))
    return sum(map(len, written.values()))


def faults() -> list[str]:
    """What is not as the committed manifests say."""
    return [*_faults(PATH, of_files()), *_faults(TABLES, of_tables())]


def _faults(path: Path, now: dict[str, str]) -> list[str]:
    if not path.exists():
        return [f"{path.relative_to(ROOT)} is missing: python scripts/verify.py --manifest writes it"]
    listed = {what: digest for digest, what in (line.split("  ", 1) for line in path.read_text().splitlines())}
    found = [f"{what}: in the manifest, and gone" for what in sorted(listed.keys() - now.keys())]
    found += [f"{what}: not in the manifest" for what in sorted(now.keys() - listed.keys())]
    changed = sorted(what for what in listed.keys() & now.keys() if listed[what] != now[what])
    return found + [f"{what}: changed since the manifest was written" for what in changed]
