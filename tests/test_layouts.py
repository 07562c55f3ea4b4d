"""One small data set in every form in which people have ImageNet: the same images, in the same order."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, App
from train.data import layouts
from train.data.cache import made_once
from train.data.index import FOLDER
from train.data.sources import Source, open_sources
from train.errors import UserError

WNIDS = ["n00000007", "n00000042", "n00000099"]
Image_ = tuple[str, str, int, bytes]  # split, file name, label, content


def images() -> Iterator[Image_]:
    """24 training and 9 validation images; class 1 has one whose name sorts elsewhere with its ending than without."""
    number = 0
    for label, wnid in enumerate(WNIDS):
        for i in range(8):
            name = f"{wnid}_{i}.JPEG" if (label, i) != (1, 3) else f"{wnid}_2-1.JPEG"
            yield "train", name, label, content(label, i)
    for i in range(3):
        for label in (2, 0, 1):
            number += 1
            yield "val", f"ILSVRC2012_val_{number:08d}.JPEG", label, content(label, 50 + i)


def content(label: int, number: int) -> bytes:
    generator = np.random.default_rng(100 * label + number)
    pixels = generator.integers(80 * label, 80 * label + 80, (40 + number % 9, 60, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return out.getvalue()


def image_folder(root: Path) -> None:
    for split, name, label, data in images():
        path = root / split / WNIDS[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def official(root: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    train = {
        f"{wnid}.tar": tar_of({n: d for s, n, label, d in images() if s == "train" and WNIDS[label] == wnid})
        for wnid in reversed(WNIDS)
    }
    (root / layouts.TRAIN_TAR).write_bytes(tar_of(train))
    (root / layouts.VAL_TAR).write_bytes(tar_of({n: d for s, n, _, d in images() if s == "val"}))
    # ids are in no order of the names
    ids = {0: 3, 1: 1, 2: 2}
    synsets = np.zeros(4, dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for label, number in ids.items():
        synsets[number - 1] = (number, WNIDS[label], "a thing")
    synsets[3] = (4, "n99999999", "what has children")
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": synsets})
    truth = "".join(f"{ids[label]}\n" for s, _, label, _ in images() if s == "val")
    folder = "ILSVRC2012_devkit_t12/data/"
    with tarfile.open(root / layouts.DEVKIT, "w:gz") as tar:
        add(tar, folder + "meta.mat", meta.getvalue())
        add(tar, folder + "ILSVRC2012_validation_ground_truth.txt", truth.encode())


def kaggle(root: Path) -> None:
    lines = ["ImageId,PredictionString"]
    for split, name, label, data in images():
        path = root / layouts.KAGGLE / split / (WNIDS[label] if split == "train" else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if split == "val":
            lines.append(f"{path.stem},{WNIDS[label]} 1 2 3 4 {WNIDS[label]} 5 6 7 8 ")
    (root / layouts.KAGGLE_LABELS).write_text("\n".join(lines) + "\n")


def shards(root: Path) -> None:
    """As timm/imagenet-1k-wds: shuffled over shards, a class number in .cls, the rest in .json."""
    for split, word in (("train", "train"), ("val", "validation")):
        mine = [image for image in images() if image[0] == split]
        for i in range(3):
            files = {}
            for _, name, label, data in mine[i::3]:
                stem = Path(name).stem
                files |= {f"{stem}.cls": str(label).encode(), f"{stem}.jpg": data}
                files[f"{stem}.json"] = json.dumps({"label": label, "filename": name}).encode()
            (root / f"imagenet1k-{word}-{i:04d}.tar").write_bytes(tar_of(files))


def parquet(root: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (root / "data").mkdir()
    features = {"info": {"features": {"label": {"names": ["zebra", "ant", "mole"], "_type": "ClassLabel"}}}}
    for split, word in (("train", "train"), ("val", "validation")):
        mine = [image for image in images() if image[0] == split]
        for i in range(2):
            part = mine[i::2]
            paths = [f"{Path(n).stem}_{WNIDS[label]}.JPEG" for _, n, label, _ in part]
            pictures = [{"bytes": d, "path": p} for (_, _, _, d), p in zip(part, paths, strict=True)]
            table = pa.table({"image": pictures, "label": [label for _, _, label, _ in part]})
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
            pq.write_table(table, root / "data" / f"{word}-{i:05d}-of-00002.parquet", row_group_size=3)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "ImageFolder": image_folder,
    "the official archives": official,
    "Kaggle's tree": kaggle,
    "WebDataset shards": shards,
    "Hugging Face's parquet files": parquet,
}


@pytest.fixture(params=LAYOUTS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    LAYOUTS[request.param](root)
    return root


def everything(source: Source) -> list[tuple[int, bytes]]:
    labels = source.labels(slice(None)).tolist()
    return [(labels[i], source.read(i)) for i in range(len(source))]


def expected(split: str) -> list[tuple[int, bytes]]:
    mine = [image for image in images() if image[0] == split]
    return [(label, data) for _, _, label, data in sorted(mine, key=lambda i: (i[2], Path(i[1]).stem))]


def test_every_layout_gives_the_same_images_in_the_order_of_class_and_name(root: Path, tmp_path: Path):
    train, val = open_sources(root)
    assert everything(train) == expected("train")
    assert everything(val) == expected("val")
    (tmp_path / "folder").mkdir()
    image_folder(tmp_path / "folder")
    as_folder = open_sources(tmp_path / "folder")
    assert [s.index.fingerprint for s in as_folder] == [train.index.fingerprint, val.index.fingerprint]
    assert len(train.classes) == 3 and train.index.is_named
    assert "n00000007_0" in train.name(0) and str(root) in train.name(0)


@pytest.mark.slow
def test_every_layout_trains_to_the_same_weights(app: App, tmp_path: Path):
    import hashlib

    ends = {}
    for i, (name, make) in enumerate(LAYOUTS.items()):
        root = tmp_path / f"root{i}"
        root.mkdir()
        make(root)
        done = app(
            f"data.root={root}", "batch=8k", "batch.total=12", "batch.micro=6", "model=resnet8", "data.size=32",
            "data.resize=40", "epochs=2", "precision=fp32", f"data.workers={i % 2}", f"name=run{i}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"24 training and 9 validation images of 3 classes, from {name}" in done.stdout
        ends[name] = hashlib.sha256((tmp_path / f"runs/run{i}/weights.pt").read_bytes()).hexdigest()
    assert len(set(ends.values())) == 1, ends


def test_names_that_are_missing_leave_the_stored_order(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for word in ("train", "val"):
        pictures = [{"bytes": bytes([i]), "path": None} for i in (5, 3, 4)]
        pq.write_table(pa.table({"image": pictures, "label": [1, 0, 0]}), tmp_path / f"{word}-0.parquet")
    train, _ = open_sources(tmp_path)
    assert everything(train) == [(0, b"\3"), (0, b"\4"), (1, b"\5")] and not train.index.is_named
    assert train.name(0) == f"row 1 of row group 0 in {tmp_path}/train-0.parquet"


# The index -------------------------------------------------------------------------------------------------------


def test_the_index_is_made_once_and_again_when_the_data_change(tmp_path: Path, capsys: pytest.CaptureFixture):
    image_folder(tmp_path)
    open_sources(tmp_path)
    assert "index of 33 images made" in capsys.readouterr().err
    open_sources(tmp_path)
    assert capsys.readouterr().err == ""
    (tmp_path / "train" / WNIDS[0] / "new.JPEG").write_bytes(content(0, 30))
    assert len(open_sources(tmp_path)[0]) == 25
    assert "index of 34 images made" in capsys.readouterr().err
    assert sum(p.is_dir() for p in (tmp_path / FOLDER).iterdir()) == 1


def test_a_read_only_root_is_indexed_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image_folder(tmp_path)

    def read_only(folder: Path, make: Callable[[Path], None]) -> Path:
        if tmp_path / FOLDER in folder.parents:
            raise PermissionError(13, "Permission denied", str(folder))
        return made_once(folder, make)

    monkeypatch.setattr("train.data.index.made_once", read_only)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(open_sources(tmp_path)[0]) == 24
    assert not (tmp_path / FOLDER).exists() and list((tmp_path / "cache").rglob("train.npy"))


def test_jobs_that_start_together_make_one_index(tmp_path: Path):
    image_folder(tmp_path)
    code = (
        "import sys; from pathlib import Path; from train.data.sources import open_sources as o; o(Path(sys.argv[1]))"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [job.communicate()[1] for job in jobs]
    assert all(job.returncode == 0 for job in jobs)
    assert sum("index of 33 images made" in text for text in said) == 1


def test_what_one_process_makes_others_wait_for(tmp_path: Path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "a", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / "a" / "file").read_text() == "whole"


# Damage ----------------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def overwrite(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 512)


def second_class(root: Path) -> tuple[Path, int]:
    with tarfile.open(root / layouts.TRAIN_TAR) as tar:
        return root / layouts.TRAIN_TAR, tar.getmembers()[1].offset


def unlabelled(path: Path) -> None:
    path.write_bytes(tar_of({"a.jpg": content(0, 0)}))


def one_class_less(root: Path) -> None:
    for path in root.glob("*train*.tar"):
        path.unlink()
    label_0 = {f"{i}.{end}": d for i in range(2) for end, d in (("jpg", content(0, i)), ("cls", b"0"))}
    (root / "x-train-0.tar").write_bytes(tar_of(label_0))


@pytest.mark.parametrize(
    ("make", "harm", "said"),
    [
        (official, lambda r: cut(r / layouts.TRAIN_TAR, 0.6), f"{layouts.TRAIN_TAR} is damaged or cut short"),
        (official, lambda r: cut(r / layouts.VAL_TAR, 0.5), f"{layouts.VAL_TAR} is .*cut short.*download it again"),
        (official, lambda r: (r / layouts.DEVKIT).unlink(), "lacks ILSVRC2012_devkit_t12.tar.gz .validation labels"),
        (official, lambda r: cut(r / layouts.DEVKIT, 0.5), f"cannot read .*{layouts.DEVKIT}.*download it again"),
        (official, lambda r: (r / layouts.VAL_TAR).unlink(), "lacks ILSVRC2012_img_val.tar.*download"),
        (official, lambda r: (r / layouts.VAL_TAR).write_text("<html>"), "is no tar file, or cut short.*download"),
        (official, lambda r: overwrite(*second_class(r)), "damaged or cut short at byte.*download"),
        (kaggle, lambda r: (r / layouts.KAGGLE_LABELS).unlink(), "has no labels: .*LOC_val_solution.csv is missing"),
        (official, lambda r: flip_a_bit(r / layouts.DEVKIT), f"cannot read .*{layouts.DEVKIT}.*download it again"),
        (kaggle, lambda r: (r / layouts.KAGGLE_LABELS).write_text("a,b\n1,2\n"), "no ImageId and PredictionString"),
        (kaggle, lambda r: (r / layouts.KAGGLE_LABELS).write_text("ImageId,PredictionString\n1\n"), "no ImageId and"),
        (shards, lambda r: (r / layouts.PACK).write_text("{"), "pack.json is damaged .*pack anew into another folder"),
        (kaggle, lambda r: shutil.rmtree(r / layouts.KAGGLE / "val"), "must hold train/<class>/. and val"),
        (shards, lambda r: cut(r / "imagenet1k-train-0001.tar", 0.7), "imagenet1k-train-0001.tar is .*cut short"),
        (shards, lambda r: unlabelled(r / "imagenet1k-train-0001.tar"), "no label .* for a: is it a WebDataset shard"),
        (shards, lambda r: [p.unlink() for p in r.glob("*validation*")], "none whose name says val"),
        (shards, one_class_less, "train has 1 classes and val 3; in only one of them: 00001, 00002"),
        (parquet, lambda r: cut(r / "data/train-00000-of-00002.parquet", 0.5), "cannot read .*train-00000.*download"),
        (image_folder, lambda r: shutil.rmtree(r / "val" / WNIDS[1]), "in only one of them: n00000042"),
    ],
)  # fmt: skip
def test_a_data_set_that_is_not_whole_is_told_in_one_line(tmp_path: Path, make, harm, said):
    make(tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        open_sources(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.glob(f"{FOLDER}/????????????????"))


def test_a_member_that_does_not_decode_is_named(app: App, tmp_path: Path):
    shards(tmp_path)
    with tarfile.open(tmp_path / "imagenet1k-train-0001.tar") as tar:
        member = next(m for m in tar if m.name.endswith(".jpg"))
    overwrite(tmp_path / "imagenet1k-train-0001.tar", member.offset_data)
    done = app(f"data.root={tmp_path}", "batch.total=12", "batch.micro=6", "data.workers=2", "epochs=1")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert f"{member.name} in {tmp_path}/imagenet1k-train-0001.tar" in last and "mend or remove" in last


@pytest.mark.parametrize("first", [0.0, 0.5], ids=["data", "footer"])
def test_a_parquet_file_damaged_while_it_is_read_is_named(tmp_path: Path, first: float):
    parquet(tmp_path)
    source, _ = open_sources(tmp_path)
    file = tmp_path / "data" / "train-00000-of-00002.parquet"
    content = bytearray(file.read_bytes())
    start, half = int(first * len(content)), len(content) // 2
    content[start : start + half] = bytes(half)
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read .* in {file}: ") as caught:
        source.read(0)
    assert "\n" not in str(caught.value)


# Scripts ---------------------------------------------------------------------------------------------------------


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_check_data_counts_and_lists_what_does_not_decode(tmp_path: Path):
    image_folder(tmp_path)
    bad = tmp_path / "train" / WNIDS[2] / f"{WNIDS[2]}_5.JPEG"
    bad.write_bytes(bad.read_bytes()[:500])
    (tmp_path / "val" / WNIDS[0] / "extra.JPEG").write_text("<html>404</html>")
    done = script("check_data", tmp_path)
    assert done.returncode == 0
    assert f"layout    ImageFolder in {tmp_path}" in done.stdout and "NOT ILSVRC-2012" in done.stdout
    assert "train     24 images (ILSVRC-2012: 1,281,167), 0.0 GB, 8 to 8 of each class" in done.stdout
    done = script("check_data", tmp_path, "--decode", "--workers", 2)
    assert done.returncode == 1 and "2 of 34 images do not decode" in done.stdout
    assert f"cannot decode {bad}" in done.stdout and "extra.JPEG" in done.stdout
    assert script("check_data", tmp_path / "none").returncode == 2


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
