"""scripts/pack.py."""

import io
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.pack import Form, pack, shards
from tests.helpers import ROOT, WNIDS, content, everything, expected, image_folder, parquet, script
from train.data.sources import Source, open_sources
from train.errors import UserError

ORIGINAL = Form("original", 0, 95)


def packed_here(root: Path, out: Path) -> tuple[Source, Source]:
    """The shards of ``root``, written by this process."""
    out.mkdir()
    for shard in shards(open_sources(root), out, ORIGINAL):
        shard.write()
    return open_sources(out)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_a_pack_has_the_same_images_smaller_and_any_webdataset_reader_opens_it(tmp_path: Path):
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder(root)
    done = script("pack", root, out, "--square", 48, "--workers", 2)
    assert done.returncode == 0, done.stderr
    within = script("pack", root, root / "pack")
    assert within.returncode == 2 and "give an OUT beside it" in within.stderr and not (root / "pack").exists()
    assert "33 images in 2 shards, 48 x 48 pixels, JPEG quality 95: about 0.00 GB" in done.stdout
    originals, packed = open_sources(root), open_sources(out)
    for a, b in zip(originals, packed, strict=True):
        assert a.labels(slice(None)).tolist() == b.labels(slice(None)).tolist() and a.classes == b.classes
        for i in range(len(a)):
            small = Image.open(io.BytesIO(a.read(i))).resize((48, 48), Image.Resampling.BILINEAR)
            assert np.abs(pixels(b.read(i)) - np.asarray(small).astype(int)).mean() < 4
    (tmp_path / "list").write_text(f"{WNIDS[1]}\n")
    done = script("pack", root, tmp_path / "one", "--classes-from", tmp_path / "list", "--workers", 1)
    assert done.returncode == 0 and open_sources(tmp_path / "one")[0].classes == [WNIDS[1]]
    names, how = packed[0].index.fingerprint.split("-")
    assert names == originals[0].index.fingerprint and how
    wds = pytest.importorskip("webdataset")
    read = [(s["cls"], s["jpg"]) for s in wds.WebDataset(str(out / "train-00000.tar"), shardshuffle=False)]
    assert sorted((int(label), jpg) for label, jpg in read) == sorted(everything(packed[0]))


@pytest.mark.slow
def test_packing_goes_on_where_it_was_and_keeps_to_its_form(tmp_path: Path):
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    parquet(root)
    assert script("pack", root, out, "--original").returncode == 0
    assert everything(open_sources(out)[0]) == expected("train")
    shard = out / "val-00000.tar"
    whole, stamp = shard.read_bytes(), (out / "train-00000.tar").stat().st_mtime_ns
    shard.unlink()
    with pytest.raises(UserError, match="lacks 1 of 2 shards, such as val-00000.tar: start scripts/pack.py again"):
        open_sources(out)
    assert script("pack", root, out, "--original").returncode == 0
    assert shard.read_bytes() == whole and (out / "train-00000.tar").stat().st_mtime_ns == stamp
    done = script("pack", root, out, "--shorter", 32)
    assert done.returncode == 2 and "holds a pack of other images or in another form" in done.stderr
    done = script("pack", out, root)
    assert done.returncode == 2 and "is not empty and holds no pack" in done.stderr


def test_images_of_one_name_and_of_a_long_one_are_all_in_the_pack(tmp_path: Path):
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder(root)
    folder = root / "train" / WNIDS[0]
    original = sorted(folder.iterdir())[0].read_bytes()
    for name in ("p.q.jpg", "p_q.jpg", "z.jpg", "z.jpeg", f"{'long' * 40}.jpg"):
        (folder / name).write_bytes(original)
    done = script("pack", root, out, "--original", "--workers", 1)
    assert done.returncode == 0, done.stderr
    originals, packed = open_sources(root), open_sources(out)
    assert [len(source) for source in packed] == [len(source) for source in originals] == [29, 9]
    assert everything(packed[0]) == everything(originals[0])


@pytest.mark.parametrize(
    "names", [["img.1.jpg", "img01.jpg", "img2.jpg"], [f"{'z' * 81}.jpg", "img.jpg"], ["z.jpg", "z.jpeg", "z-0.jpg"]]
)
def test_a_pack_keeps_the_order_of_images_whose_names_it_cannot_keep(names: list[str], tmp_path: Path):
    root = tmp_path / "root"
    image_folder(root)
    for i, name in enumerate(names):
        (root / "train" / WNIDS[0] / name).write_bytes(content(0, 20 + i))
    packed = packed_here(root, tmp_path / "out")
    assert everything(packed[0]) == everything(open_sources(root)[0])


def test_a_pack_keeps_names_that_every_class_has(tmp_path: Path):
    root = tmp_path / "root"
    image_folder(root)
    for wnid in WNIDS:
        for i, path in enumerate(sorted((root / "train" / wnid).iterdir())):
            path.rename(path.with_name(f"{i}.JPEG"))
    packed, originals = packed_here(root, tmp_path / "out"), open_sources(root)
    assert [s.index.fingerprint for s in packed] == [s.index.fingerprint for s in originals]
    assert everything(packed[0]) == everything(originals[0])


def test_a_shard_is_never_in_memory_as_a_whole(tmp_path: Path):
    root = tmp_path / "root"
    image_folder(root)
    for path in (root / "train").rglob("*.JPEG"):
        path.write_bytes(path.read_bytes() + bytes(2**20))
    shard, _ = shards(open_sources(root), tmp_path, ORIGINAL)
    tracemalloc.start()
    try:
        shard.write()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shard.path.stat().st_size > 24 * 2**20 and most < 4 * 2**20


def test_every_row_group_of_parquet_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "root"
    root.mkdir()
    parquet(root)
    open_sources(root)
    from pyarrow.parquet import ParquetFile

    read, groups = ParquetFile.read_row_group, []

    def read_and_noted(file: ParquetFile, *arguments: object, **options: object) -> object:
        groups.append(arguments)
        return read(file, *arguments, **options)

    monkeypatch.setattr(ParquetFile, "read_row_group", read_and_noted)
    packed = packed_here(root, tmp_path / "out")
    # three images in each, 24 images in two files and nine in two
    assert len(groups) == 2 * 4 + 2 + 2
    assert everything(packed[0]) == expected("train") and everything(packed[1]) == expected("val")


def test_a_pack_is_not_continued_from_a_layout_whose_shards_hold_other_images(tmp_path: Path):
    of_parquet, of_folders, out = (tmp_path / name for name in ("parquet", "folders", "out"))
    of_parquet.mkdir()
    parquet(of_parquet)
    image_folder(of_folders)
    assert script("pack", of_parquet, out, "--original", "--workers", 1).returncode == 0
    (out / "val-00000.tar").unlink()
    with pytest.raises(UserError, match="holds a pack of other images or in another form"):
        pack(of_folders, out, ORIGINAL, 1)


def test_a_worker_that_is_killed_ends_packing_with_one_line_and_code_2(tmp_path: Path):
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder(root)
    command = [sys.executable, ROOT / "scripts" / "pack.py", root, out, "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (workers := workers_of(process.pid)):
        assert process.poll() is None
        time.sleep(0.01)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in said, said
    assert "error: a process that packs images was ended, perhaps for want of memory" in said.splitlines()[-1]
    assert not list(out.glob("*.tar"))
    assert script("pack", root, out, "--workers", 1).returncode == 0


def workers_of(pid: int) -> list[int]:
    """Processes that the fork server of ``pid`` has forked; they keep its command line."""
    try:
        forked = [worker for server in children(pid) for worker in children(server)]
        return [worker for worker in forked if b"forkserver" in Path(f"/proc/{worker}/cmdline").read_bytes()]
    except OSError:  # one has ended meanwhile
        return []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_class_whose_name_is_not_utf_8_is_named(tmp_path: Path):
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder(root)
    for split in ("train", "val"):
        (root / split / WNIDS[0]).rename(root / split / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"the class b'caf\\xe9' of .* has a name that is not UTF-8"):
        pack(root, out, ORIGINAL, 1)
    assert not out.exists()


def test_an_image_too_long_for_a_jpeg_is_named_and_leaves_nothing_of_its_shard(tmp_path: Path):
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder(root)
    narrow = root / "train" / WNIDS[0] / "narrow.png"
    Image.new("RGB", (2, 400)).save(narrow)
    out.mkdir()
    shard, _ = shards(open_sources(root), out, Form("shorter", 400, 95))
    with pytest.raises(UserError, match=f"{narrow} would be 400 x 80,000 pixels, and a JPEG has at most 65,500"):
        shard.write()
    assert not list(out.iterdir())
