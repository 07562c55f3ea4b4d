"""Report what a folder of images is, how it differs from ILSVRC-2012, and with --decode which images do not decode.

Usage: python scripts/check_data.py DIR [--classes-from FILE] [--decode] [--workers N]

Ends with 0 when everything asked for is well, 1 when images do not decode, 2 when the folder cannot be trained on.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from tqdm import tqdm

from scripts.command import exit_with
from train.cores import cores
from train.data.dataset import ILSVRC_2012
from train.data.decode import decode
from train.data.sources import Source, open_sources
from train.data.stream import worker_pool
from train.errors import UserError

CHUNK = 256  # images that a worker takes at a time


def describe(train: Source, val: Source) -> str:
    lines = [f"{'layout':10}{train.index.layout} in {train.index.root}"]
    for source, name, expected in (
        (train, "train", ILSVRC_2012[0]),
        (val, val.index.val_split, ILSVRC_2012[1]),
    ):
        counts = np.bincount(source.labels(slice(None)))
        size = bytes_of(source)
        lines.append(
            f"{name + ' ':10}{len(source):,} images (ILSVRC-2012: {expected:,}), {size / 1e9:,.1f} GB, "
            f"{counts.min():,} to {counts.max():,} of each class"
        )
    lines.append(f"{'classes':10}{len(train.classes):,} (ILSVRC-2012: {ILSVRC_2012[2]:,})")
    if not train.index.is_named:
        lines.append(f"{'names':10}none: images keep the order in which they are stored")
    whole = (len(train), len(val), len(train.classes)) == ILSVRC_2012
    lines.append("the counts are those of ILSVRC-2012" if whole else "NOT ILSVRC-2012, but it can be trained on")
    return "\n".join(lines)


def bytes_of(source: Source) -> int:
    """The size of all images; of parquet files, that of the files."""
    root, containers = source.index.root, source.index.containers
    if source.index.access == "archive":
        return int(source.index.places["size"].sum(dtype=np.int64))
    if source.index.access == "parquet":
        return sum((root / name).stat().st_size for name in containers)
    # without folders of classes that were not chosen
    used = [containers[i] for i in np.unique(source.index.places["container"])]
    folders = tqdm(used, desc=f"sizes of {source.index.split}", unit="folder", delay=1, leave=False)
    return sum(entry.stat().st_size for name in folders for entry in os.scandir(root / name) if entry.is_file())


def undecodable(source: Source, indices: range) -> list[str]:
    """A line for each of ``indices`` that does not decode, with the reason."""
    said = []
    for index in indices:
        try:
            decode(source, index)
        except UserError as error:
            said.append(str(error))
    return said


def decode_all(source: Source, workers: int) -> Iterator[str]:
    with worker_pool(workers) as pool:
        whole = range(len(source))
        jobs = [whole[start : start + CHUNK] for start in whole[::CHUNK]]
        with tqdm(total=len(source), desc=f"decoding {source.index.split}", unit="img", unit_scale=True) as bar:
            for job, said in zip(jobs, pool.map(undecodable, repeat(source), jobs), strict=True):
                bar.update(len(job))
                yield from said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="DIR", type=Path)
    parser.add_argument("--classes-from", metavar="FILE", type=Path, help="as data.classes_from=FILE")
    parser.add_argument("--decode", action="store_true", help="decode every image and list those that fail")
    parser.add_argument("--workers", type=int, default=cores(), help="processes that decode (default: cores)")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: at least 1")
    classes_from = arguments.classes_from and arguments.classes_from.expanduser()
    train, val = open_sources(arguments.root.expanduser().absolute(), classes_from)
    print(describe(train, val), flush=True)
    if not arguments.decode:
        return 0
    failed = [line for source in (train, val) for line in decode_all(source, arguments.workers)]
    print("\n".join([*failed, f"{len(failed):,} of {len(train) + len(val):,} images do not decode"]))
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with(main)
