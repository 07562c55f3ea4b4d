"""Write a resized copy of a data set, as WebDataset shards that this app and any WebDataset reader open.

Usage: python scripts/pack.py DIR OUT [--shorter N | --square N | --original] [--quality Q] [--workers N]
                                     [--classes-from FILE]

    --square 256    every image to 256 x 256 pixels whatever its aspect, as in the paper's own LMDB (the default)
    --shorter N     the shorter side to N pixels, the aspect kept
    --original      the files as they are, for data that are slow to read at random (parquet)

Images are spread over the shards at random, those of parquet files with their row group. Stopped and
started again, it resumes. Train from it with data.root=OUT: order and crops are those of DIR. So are
the names, unless one has a dot or more than 80 bytes, or is that of two images of a class: then the
images of that split are numbered.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from train.cores import cores
from train.data.decode import decode
from train.data.index import stem
from train.data.layouts.layout import PACK
from train.data.layouts.shards import CLASS_NAMES
from train.data.randomness import ORDER, epoch_order, random_bits
from train.data.sources import Source, open_sources
from train.data.stream import worker_pool
from train.errors import Stopped, UserError, print_error
from train.output.files import whole, write_whole

LONGEST = 80  # bytes of a name
LONGEST_SIDE = 65_500  # pixels that libjpeg writes
IN_A_SHARD = 2048
SAMPLE = 64  # images from which the size is estimated


@dataclass(frozen=True)
class Form:
    """What becomes of each image: "square", "shorter" or "original", pixels of a side, JPEG quality."""

    kind: str
    side: int
    quality: int

    def of(self, source: Source, index: int) -> bytes:
        if self.kind == "original":
            return source.read(index)
        image = decode(source, index)
        width = height = self.side
        if self.kind == "shorter":
            shorter = min(image.size)
            width, height = (self.side * length // shorter for length in image.size)
        if max(width, height) > LONGEST_SIDE:
            raise UserError(
                f"{source.name(index)} would be {width:,} x {height:,} pixels, and a JPEG has at most {LONGEST_SIDE:,} "
                "a side: give fewer pixels, or remove the file"
            )
        out = io.BytesIO()
        image.resize((width, height), Image.Resampling.BILINEAR).save(out, "JPEG", quality=self.quality)
        return out.getvalue()

    def __str__(self) -> str:
        if self.kind == "original":
            return "files as they are"
        size = f"{self.side} x {self.side}" if self.kind == "square" else f"shorter side {self.side}"
        return f"{size} pixels, JPEG quality {self.quality}"


@dataclass(frozen=True)
class Shard:
    """One file to write, and the images that go into it."""

    path: Path
    source: Source
    indices: list[int]
    form: Form
    keys: list[str]  # their names in it

    def write(self) -> int:
        """Write the file, whole or not at all, an image at a time; the number of images."""
        labels = self.source.labels(np.array(self.indices))
        with whole(self.path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index, label, key in zip(self.indices, labels.tolist(), self.keys, strict=True):
                for ending, content in (("jpg", self.form.of(self.source, index)), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        return len(self.indices)


def keys_of(source: Source) -> list[str]:
    """A name for each image: its own, its class before it where names repeat; for all a number if one cannot be kept.

    Other names of single images would change the order.
    """
    names = [os.fsdecode(stem(name)) for name in source.index.names.tolist()]
    # to WebDataset all after the first dot is the ending, and a tar has 100 bytes for a name with its class and ending
    can_be_kept = all("." not in name and 0 < len(os.fsencode(name)) <= LONGEST for name in names)
    if len(set(names)) < len(names):
        labels = source.labels(np.arange(len(source)))
        names = [f"{label:05d}/{name}" for label, name in zip(labels.tolist(), names, strict=True)]
    if not can_be_kept or len(set(names)) < len(names):
        return [f"{i:08d}" for i in range(len(names))]
    return names


def order_in_shards(source: Source) -> NDArray[np.int64]:
    """At random; of parquet files row groups at random, each with its images together: to read one is to read all."""
    order = epoch_order(0, 0, len(source))
    if source.index.access == "parquet":
        places = source.index.places[order]
        order = order[np.argsort(random_bits(ORDER, 0, places["container"], places["offset"]), kind="stable")]
    return order


def shards(sources: tuple[Source, Source], out: Path, form: Form) -> Iterator[Shard]:
    for source in sources:
        order = order_in_shards(source)
        keys = keys_of(source)
        for number, start in enumerate(range(0, len(source), IN_A_SHARD)):
            path = out / f"{source.index.split}-{number:05d}.tar"
            indices = order[start : start + IN_A_SHARD].tolist()
            yield Shard(path, source, indices, form, [keys[i] for i in indices])


def estimate(sources: tuple[Source, Source], form: Form) -> int:
    """Bytes of all shards, from images spread over the data set."""
    total = 0.0
    for source in sources:
        some = np.linspace(0, len(source) - 1, min(SAMPLE, len(source))).astype(int).tolist()
        # a tar has a header and half a block of padding for each of two files
        mean = sum(len(form.of(source, i)) for i in some) / len(some) + 2 * (512 + 256)
        total += mean * len(source)
    return int(total)


def pack(root: Path, out: Path, form: Form, workers: int, classes_from: Path | None = None) -> None:
    if root in (out, *out.parents):
        raise UserError(f"{out} lies in {root}, whose images its shards would be taken for: give an OUT beside it")
    sources = open_sources(root, classes_from)
    names = sources[0].classes
    if not_utf8 := [name for name in names if name.encode(errors="ignore").decode() != name]:
        raise UserError(f"the class {os.fsencode(not_utf8[0])!r} of {root} has a name that is not UTF-8: rename it")
    out.mkdir(parents=True, exist_ok=True)
    todo = list(shards(sources, out, form))
    made_from = hashlib.sha256("".join(s.index.fingerprint for s in sources).encode())
    for shard in todo:
        # which images it holds differs between layouts of the same images
        made_from.update(os.fsencode("\n".join(shard.keys)))
    about = json.dumps({
        "form": asdict(form),
        "made_from": made_from.hexdigest(),
        "shards": [shard.path.name for shard in todo],
    }, indent=1)  # fmt: skip
    record = out / PACK
    if record.exists() and record.read_text() != about:
        raise UserError(f"{out} holds a pack of other images or in another form: give another OUT, or delete it")
    if not record.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no pack: give a new folder as OUT")
    write_whole(record, about.encode())
    write_whole(out / CLASS_NAMES, ("\n".join(names) + "\n").encode())
    images = sum(len(source) for source in sources)
    size, left = estimate(sources, form), [shard for shard in todo if not shard.path.exists()]
    needed, free = int(size * len(left) / len(todo)), shutil.disk_usage(out).free
    print(f"{images:,} images in {len(todo):,} shards, {form}: about {size / 1e9:,.2f} GB", flush=True)
    if needed > free:
        raise UserError(f"{out} has {free / 1e9:,.2f} GB free, and {needed / 1e9:,.2f} GB are to come: make room")
    done = images - sum(len(shard.indices) for shard in left)
    with (
        worker_pool(workers) as pool,
        tqdm(total=images, initial=done, unit="img", unit_scale=True, desc="packing") as bar,
    ):
        try:
            for written in pool.map(Shard.write, left):
                bar.update(written)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"packed: python train/main.py data.root={out}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="DIR", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--classes-from", metavar="FILE", type=Path, help="as data.classes_from=FILE")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--square", metavar="N", type=int, help="N x N pixels (default 256)")
    form.add_argument("--shorter", metavar="N", type=int, help="shorter side N pixels")
    form.add_argument("--original", action="store_true", help="files as they are")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEGs, 1 to 95 (default 95)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes that resize (default: cores)")
    chosen = parser.parse_args()
    kind = "original" if chosen.original else "shorter" if chosen.shorter is not None else "square"
    side = next((side for side in (chosen.shorter, chosen.square) if side is not None), 256)
    if side < 1 or not 1 <= chosen.quality <= 95 or chosen.workers < 1:
        parser.error("sides and workers must be at least 1, and --quality from 1 to 95")
    try:
        root, out = (path.expanduser().absolute() for path in (chosen.root, chosen.out))
        form_of_images = Form(kind, 0 if kind == "original" else side, chosen.quality)
        classes_from = chosen.classes_from and chosen.classes_from.expanduser()
        pack(root, out, form_of_images, chosen.workers, classes_from)
    except UserError as error:
        return print_error(error)
    except BrokenProcessPool:
        why = f"perhaps for want of memory: what was packed is intact, give fewer than --workers {chosen.workers}"
        return print_error(UserError(f"a process that packs images was ended, {why}"))
    except OSError as error:
        what = f"{error.filename or chosen.out}: {error.strerror or error}"
        return print_error(UserError(f"{what}: what was packed is intact"))
    except KeyboardInterrupt:
        return print_error(Stopped("stopped: start the same command again to go on"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
