"""The index of a data set of ImageNet's size, in the official archives: making it, opening it, and what it occupies."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.figures import spread, write
from train.data.dataset import ILSVRC_2012
from train.data.index import FOLDER
from train.data.layouts import archives

BLOCK = tarfile.BLOCKSIZE

# a second job's start: map the index and read what a process of training does
OPEN = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from train.data.sources import open_sources
before = int(open("/proc/self/statm").read().split()[1])
began = time.perf_counter()
train, val = open_sources(Path(sys.argv[1]))
opened = time.perf_counter() - began
for source in (train, val):
    source.labels(slice(None))
    for i in range(0, len(source), 7):
        source.index.places[i]
pages = int(open("/proc/self/statm").read().split()[1]) - before
print(json.dumps({"seconds": opened, "bytes": pages * resource.getpagesize(), "images": len(train) + len(val)}))
"""


def measure(rounds: int) -> None:
    """Archives with ImageNet's counts of members, each of one block: the headers are as many as in the real ones."""
    figures: dict[str, list[float]] = {"seconds to make": [], "seconds to open": [], "resident bytes": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train, val, classes = ILSVRC_2012
        wnids = archives.synsets()
        with open(root / archives.TRAIN_TAR, "wb") as file:
            for label, wnid in enumerate(wnids):
                names = [f"{wnid}_{i}.JPEG" for i in range(train // classes + (label < train % classes))]
                inner = archive(names)
                file.write(header(f"{wnid}.tar", len(inner)) + inner)
            file.write(bytes(2 * BLOCK))
        (root / archives.VAL_TAR).write_bytes(archive([f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, val + 1)]))
        truth = "".join(f"{1 + i % classes}\n" for i in range(val)).encode()
        with tarfile.open(root / archives.DEVKIT, "w:gz") as tar:
            member = tarfile.TarInfo(archives.TRUTH)
            member.size = len(truth)
            tar.addfile(member, io.BytesIO(truth))
        for _ in range(rounds):
            shutil.rmtree(root / FOLDER, ignore_errors=True)
            began = time.perf_counter()
            opened_now(root)
            figures["seconds to make"].append(time.perf_counter() - began)
            again = opened_now(root)
            figures["seconds to open"].append(again["seconds"])
            figures["resident bytes"].append(again["bytes"])
        files = sum(path.stat().st_size for path in (root / FOLDER).rglob("*.npy"))
    for name, values in figures.items():
        print(f"{name:18}{min(values):,.2f} to {max(values):,.2f}")
    what = f"the index of {again['images']:,} images in archives with real headers and one block for each image"
    spreads = {name: spread(values) for name, values in figures.items()}
    write("index", {"what": what, "file_bytes": files, **spreads})


def opened_now(root: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", OPEN, root], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def archive(names: list[str]) -> bytes:
    return b"".join(header(name, BLOCK) + bytes(BLOCK) for name in names) + bytes(2 * BLOCK)
