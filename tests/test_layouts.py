"""One small data set in every layout in which people have ImageNet: the same images, in the same order."""

import errno
import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from tests.helpers import (
    ROOT,
    WNIDS,
    App,
    add,
    content,
    everything,
    expected,
    image_folder,
    images,
    parquet,
    shards,
    tar_of,
)
from train.config.compose import compose
from train.data.cache import made_once
from train.data.index import FOLDER
from train.data.kinds import open_data
from train.data.layouts import archives, folders, layout
from train.data.sources import open_sources
from train.description import description
from train.errors import UserError
from train.plan import make_plan


def numbered(root: Path, number: int) -> None:
    with tarfile.open(root / archives.DEVKIT, "w:gz") as tar:
        add(tar, f"ILSVRC2012_devkit_t12/data/{archives.TRUTH}", f"{number}\n".encode())


def official(root: Path) -> None:
    train = {
        f"{wnid}.tar": tar_of({n: d for s, n, label, d in images() if s == "train" and WNIDS[label] == wnid})
        for wnid in reversed(WNIDS)
    }
    (root / archives.TRAIN_TAR).write_bytes(tar_of(train))
    (root / archives.VAL_TAR).write_bytes(tar_of({n: d for s, n, _, d in images() if s == "val"}))
    numbers = {0: 449, 1: 2, 2: 1}  # by label, as the development kit has them
    truth = "".join(f"{numbers[label]}\n" for s, _, label, _ in images() if s == "val")
    with tarfile.open(root / archives.DEVKIT, "w:gz") as tar:
        add(tar, f"ILSVRC2012_devkit_t12/data/{archives.TRUTH}", truth.encode())


def test_the_development_kits_labels_are_those_that_torchvision_reads_with_scipy(tmp_path: Path, monkeypatch):
    scipy_io = pytest.importorskip("scipy.io")
    from torchvision.datasets import imagenet

    synsets = archives.synsets()
    assert sorted(set(synsets)) == sorted(synsets) and len(synsets) == 1000
    digest = hashlib.sha256("".join(f"{wnid} {number}\n" for number, wnid in enumerate(synsets, 1)).encode())
    assert digest.hexdigest() == "1e26a867b25b7a4dece819932fb02f86a914791e3ac136ae2d99132c7cb808c3"
    # as in the real one, classes that contain others have numbers above 1,000
    rows = [*((number, wnid, "a word, another", 0) for number, wnid in enumerate(synsets, 1)), (1001, "n0", "all", 2)]
    meta = io.BytesIO()
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object),
              ("num_children", object)]  # fmt: skip
    table = np.array([(*row[:3], "what it is", row[3]) for row in rows], dtype=fields)
    scipy_io.savemat(meta, {"synsets": table})
    numbers = np.random.default_rng(0).integers(1, 1001, 500)
    with tarfile.open(tmp_path / archives.DEVKIT, "w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        add(tar, f"ILSVRC2012_devkit_t12/data/{archives.TRUTH}", "\n".join(map(str, numbers)).encode())
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *_: None)
    imagenet.parse_devkit_archive(str(tmp_path))
    _, theirs = imagenet.load_meta_file(str(tmp_path))
    assert list(archives._validation_synsets(tmp_path / archives.DEVKIT).values()) == theirs


def kaggle(root: Path) -> None:
    lines = ["ImageId,PredictionString"]
    for split, name, label, data in images():
        path = root / folders.KAGGLE / split / (WNIDS[label] if split == "train" else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if split == "val":
            lines.append(f"{path.stem},{WNIDS[label]} 1 2 3 4 {WNIDS[label]} 5 6 7 8 ")
    (root / folders.KAGGLE_LABELS).write_text("\n".join(lines) + "\n")


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


def test_every_layout_gives_the_same_images_in_the_order_of_class_and_name(root: Path, tmp_path: Path):
    train, val = open_sources(root)
    assert everything(train) == expected("train")
    assert everything(val) == expected("val")
    (tmp_path / "folder").mkdir()
    image_folder(tmp_path / "folder")
    as_folder = open_sources(tmp_path / "folder")
    assert [s.index.fingerprint for s in as_folder] == [train.index.fingerprint, val.index.fingerprint]
    assert len(train.classes) == 3 and train.index.is_named
    assert "n01440764_0" in train.name(0) and str(root) in train.name(0)


@pytest.mark.slow
def test_every_layout_trains_to_the_same_weights(app: App, tmp_path: Path):

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


def test_the_index_is_made_once_and_again_when_the_data_change(tmp_path: Path, capsys: pytest.CaptureFixture):
    image_folder(tmp_path)
    open_sources(tmp_path)
    assert "index of 33 images made" in capsys.readouterr().err
    open_sources(tmp_path)
    assert capsys.readouterr().err == ""
    (tmp_path / "train" / WNIDS[0] / "new.JPEG").write_bytes(content(0, 30))
    assert len(open_sources(tmp_path)[0]) == 25
    assert "index of 34 images made" in capsys.readouterr().err
    made = [path for path in (tmp_path / FOLDER).iterdir() if path.is_dir()]
    # a run may use the first one still
    assert len(made) == 2
    for path in made:
        os.utime(path, (0, 0))
    (tmp_path / "train" / WNIDS[0] / "more.JPEG").write_bytes(content(0, 31))
    open_sources(tmp_path)
    assert sum(path.is_dir() for path in (tmp_path / FOLDER).iterdir()) == 1


def test_a_folder_whose_time_was_set_back_is_indexed_anew(tmp_path: Path):
    image_folder(tmp_path)
    open_sources(tmp_path)
    of_class = tmp_path / "train" / WNIDS[0]
    before = of_class.stat()
    (of_class / "new.JPEG").write_bytes(content(0, 30))
    os.utime(of_class, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(open_sources(tmp_path)[0]) == 25


def test_an_index_that_is_open_outlives_a_change_of_the_data(tmp_path: Path):
    image_folder(tmp_path)
    _, val = open_sources(tmp_path)
    (tmp_path / "train" / WNIDS[0] / "new.JPEG").write_bytes(content(0, 30))
    open_sources(tmp_path)
    assert everything(val) == expected("val")


def test_a_root_without_locks_is_indexed_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image_folder(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flock = fcntl.flock

    def none_in_the_root(file: IO, operation: int) -> None:
        if FOLDER in file.name:
            raise OSError(errno.ENOSYS, "Function not implemented")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", none_in_the_root)
    assert len(open_sources(tmp_path)[0]) == 24
    assert list((tmp_path / "cache").rglob("train.npy"))


def test_an_index_of_another_user_that_cannot_be_read_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image_folder(tmp_path)
    open_sources(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    is_dir, access = Path.is_dir, os.access

    # the tests may run as root, who can enter every folder
    def is_dir_for_others(path: Path) -> bool:
        if FOLDER in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", is_dir_for_others)
    monkeypatch.setattr(os, "access", lambda path, mode: FOLDER not in Path(path).parts and access(path, mode))
    assert len(open_sources(tmp_path)[0]) == 24
    assert list((tmp_path / "cache").rglob("train.npy"))


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


def test_two_machines_whose_locks_do_not_hold_for_each_other_make_it_whole(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    both = threading.Barrier(2)

    def make(folder: Path) -> None:
        both.wait()
        (folder / "file").write_text("who")
        both.wait()
        (folder / "file").write_text("whole")

    def on(machine: str) -> None:
        names[threading.get_ident()] = machine
        made_once(tmp_path / "a", make)

    names: dict[int, str] = {}
    monkeypatch.setattr(platform, "node", lambda: names[threading.get_ident()])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(on, ("a", "b")))
    assert (tmp_path / "a" / "file").read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.lock"}


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
    with tarfile.open(root / archives.TRAIN_TAR) as tar:
        return root / archives.TRAIN_TAR, tar.getmembers()[1].offset


def unlabelled(path: Path) -> None:
    path.write_bytes(tar_of({"a.jpg": content(0, 0)}))


def shard(root: Path, members: dict[str, bytes]) -> None:
    (root / "imagenet1k-train-0001.tar").write_bytes(tar_of(members))


def in_one_folder(root: Path) -> None:
    (root / "train-val").mkdir()
    for path in root.glob("*.tar"):
        path.rename(root / "train-val" / path.name.replace("train", "").replace("validation", ""))


def copied(root: Path) -> None:
    (root / "backup").mkdir()
    shutil.copy(root / "imagenet1k-train-0001.tar", root / "backup")


def columns(root: Path, **of: object) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(of), root / "data/train-00000-of-00002.parquet")


PICTURE = [{"bytes": b"a", "path": "a.jpg"}]


def one_class_less(root: Path) -> None:
    for path in root.glob("*train*.tar"):
        path.unlink()
    label_0 = {f"{i}.{end}": d for i in range(2) for end, d in (("jpg", content(0, i)), ("cls", b"0"))}
    (root / "x-train-0.tar").write_bytes(tar_of(label_0))


@pytest.mark.parametrize(
    ("make", "harm", "said"),
    [
        (official, lambda r: cut(r / archives.TRAIN_TAR, 0.6), f"{archives.TRAIN_TAR} is damaged or cut short"),
        (official, lambda r: cut(r / archives.VAL_TAR, 0.5), f"{archives.VAL_TAR} is .*cut short.*download it again"),
        (official, lambda r: (r / archives.DEVKIT).unlink(), "lacks ILSVRC2012_devkit_t12.tar.gz .validation labels"),
        (official, lambda r: cut(r / archives.DEVKIT, 0.5), f"cannot read .*{archives.DEVKIT}.*download it again"),
        (official, lambda r: (r / archives.VAL_TAR).unlink(), "lacks ILSVRC2012_img_val.tar.*download"),
        (official, lambda r: (r / archives.VAL_TAR).write_text("<html>"), "is not a tar file, or cut short.*download"),
        (official, lambda r: overwrite(*second_class(r)), "damaged or cut short at byte.*download"),
        (kaggle, lambda r: (r / folders.KAGGLE_LABELS).unlink(), "has no labels: .*LOC_val_solution.csv is missing"),
        (official, lambda r: numbered(r, 0), f"cannot read .*{archives.DEVKIT} .0.: download it again"),
        (official, lambda r: numbered(r, 1001), f"cannot read .*{archives.DEVKIT} .1001.: download it again"),
        (official, lambda r: flip_a_bit(r / archives.DEVKIT), f"cannot read .*{archives.DEVKIT}.*download it again"),
        (kaggle, lambda r: (r / folders.KAGGLE_LABELS).write_text("a,b\n1,2\n"), "no ImageId and PredictionString"),
        (kaggle, lambda r: (r / folders.KAGGLE_LABELS).write_text("ImageId,PredictionString\n1\n"), "no ImageId and"),
        (shards, lambda r: (r / layout.PACK).write_text("{"), "pack.json is damaged .*pack anew into another folder"),
        (kaggle, lambda r: shutil.rmtree(r / folders.KAGGLE / "val"), "must hold train/<class>/. and val"),
        (shards, lambda r: cut(r / "imagenet1k-train-0001.tar", 0.7), "imagenet1k-train-0001.tar is .*cut short"),
        (shards, lambda r: unlabelled(r / "imagenet1k-train-0001.tar"), "no label .* for a: is it a WebDataset shard"),
        (shards, lambda r: [p.unlink() for p in r.glob("*validation*")], "none whose name says val"),
        (shards, one_class_less, "train has 1 classes and val 3, only val has 00001, 00002: complete"),
        (shards, lambda r: shard(r, {"a.jpg": b"", "a.cls": b"-1"}), "holds b'-1', not a class number"),
        (shards, lambda r: shard(r, {"a.jpg": b"", "a.cls": b"cat"}), "a.cls holds b'cat', not a class number"),
        (shards, lambda r: shard(r, {"a.jpg": b"", "a.json": b'{"label": Infinity}'}), "no label .* for a"),
        (shards, lambda r: shard(r, {"a.gif": b"", "a.cls": b"0"}), "a label but no image .* for a"),
        (shards, lambda r: shard(r, {"a.1.jpg": b"", "a.1.cls": b"0"}), "a.1.jpg, whose name holds a dot"),
        (shards, lambda r: shard(r, {"a.jpg": b"", "a.png": b"", "a.cls": b"0"}), "two images of one name, a.png and"),
        (shards, in_one_folder, "says both train and val: rename it"),
        (shards, copied, "holds backup/imagenet1k-train-0001.tar and .*, which look like copies"),
        (shards, lambda r: (r / "classes.txt").write_bytes(b"\xe9t\xe9\n"), "classes.txt is not UTF-8"),
        (parquet, lambda r: columns(r, image=PICTURE, label=["cat"]), "the label 'cat', which is not a class number"),
        (parquet, lambda r: columns(r, picture=PICTURE, label=[0]), "lacks image.bytes, image.path, which"),
        (parquet, lambda r: cut(r / "data/train-00000-of-00002.parquet", 0.5), "cannot read .*train-00000.*download"),
        (image_folder, lambda r: shutil.rmtree(r / "val" / WNIDS[1]), "only train has n02100735: complete"),
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
    assert f"{member.name} in {tmp_path}/imagenet1k-train-0001.tar" in last and "repair or remove" in last


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


def folder(root: Path, tree: dict[str, list[str]]) -> Path:
    for place, names in tree.items():
        (root / place).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (40, 30), "red").save(root / place / name, "JPEG")
    return root


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "holds nothing: expected train/<class>"),
        ({"train/a": ["1.jpg"]}, "no folder val"),
        ({"train": [], "val": []}, "no class folders"),
        (
            {"train/a": ["1.jpg"], "val/b": ["1.jpg"]},
            "only train has a and only val has b: complete them, or give data.classes_from=FILE",
        ),
        ({"train/a": [], "val/a": ["1.jpg"]}, "no image files"),
        ({"val/a": ["1.jpg"]}, "no folder train"),
        # a competition's test split has no labels; Tiny ImageNet has a folder between a class and its images
        ({"train/a": ["1.jpg"], "test": ["1.jpg"]}, "no folder val .*test has no class folders"),
        ({"train/a/images": ["1.jpg"], "val/a": ["1.jpg"]}, "train/a has no image files .*not in a folder below"),
        ({"imagenette2-160/train/a": ["1.jpg"]}, "give data.root=.*/root/imagenette2-160"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_named(tmp_path, tree, said):
    root = folder(tmp_path / "root", tree)
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=said) as caught:
        open_sources(root)
    assert str(root) in str(caught.value)


def test_compressed_archives_are_answered_with_the_command_that_unpacks_them(tmp_path):
    (tmp_path / "imagenette2-160.tgz").touch()
    for root in (tmp_path, tmp_path / "imagenette2-160.tgz"):
        with pytest.raises(
            UserError, match=f"unpack it .cd {tmp_path} && tar xzf imagenette2-160.tgz., and give"
        ) as caught:
            open_sources(root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [image_folder, shards], ids=["folders", "shards"])
@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_validation_images_are_found_under_each_of_their_names(tmp_path, make, name):
    make(tmp_path)
    for path in [tmp_path / "val", *tmp_path.glob("*validation*")]:
        if path.exists():
            path.rename(tmp_path / re.sub("val(idation)?", name, path.name))
    assert everything(open_sources(tmp_path)[1]) == expected("val")
    remark = open_data(compose("batch.total=12", "batch.micro=6", f"data.root={tmp_path}").data).remark
    assert ("test stands in for it" in remark) == (name == "test"), remark


def test_a_folder_called_test_is_left_alone_where_there_are_validation_images(tmp_path):
    image_folder(tmp_path)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    train, val = open_sources(tmp_path)
    assert everything(val) == expected("val") and val.index.val_split == "val"


def test_a_list_of_classes_leaves_the_images_of_the_others_out(root: Path, tmp_path: Path):
    whole = open_sources(root)
    names = whole[0].classes
    listed = tmp_path / "classes.txt"
    # out of order, with a description, as the lists of ImageNet-100 have them
    listed.write_text(f"{names[2].split()[0]} a description\n\n{names[0]}\n")
    chosen = open_sources(root, listed)
    for split, some in zip(whole, chosen, strict=True):
        assert everything(some) == [({0: 0, 2: 1}[label], data) for label, data in everything(split) if label != 1]
        assert some.classes == [names[0], names[2]]
    # neither index replaces the other
    assert [s.index.fingerprint for s in open_sources(root)] == [s.index.fingerprint for s in whole]
    assert len([path for path in (root / FOLDER).iterdir() if path.is_dir()]) == 2


def test_a_list_of_classes_makes_do_with_splits_that_differ(tmp_path):
    root = folder(tmp_path / "root", {"train/a": ["1.jpg"], "train/b b": ["1.jpg"], "val/b b": ["1.jpg"]})
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfb b\n")  # some editors begin a text file so
    assert open_sources(root, tmp_path / "list")[0].classes == ["b b"]
    (tmp_path / "list").write_text("b b\na\n")
    with pytest.raises(UserError, match="only train has a: complete"):
        open_sources(root, tmp_path / "list")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read .No such file or directory.: give a file"),
        (b" \n", "is empty: give"),
        (b"\xff", "cannot be read .not text."),
        (b"a\nn1\nn2 x\n", "names n1, n2, and data.root=.* has no such class: give one class name per line"),
    ],
)
def test_a_list_of_classes_that_cannot_be_used_is_told_in_one_line(tmp_path, content, said):
    root = folder(tmp_path / "root", {"train/a": ["1.jpg"], "val/a": ["1.jpg"]})
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        open_data(
            compose("batch.total=12", "batch.micro=6", f"data.root={root}", f"data.classes_from={tmp_path}/list").data
        )
    assert "\n" not in str(caught.value)


def test_the_banner_says_that_the_lr_of_a_batch_of_ones_own_is_not_published(tmp_path):
    image_folder(tmp_path)
    for overrides, said in (
        ([], "lars, lr 0.49 (not published for this batch)"),
        (["optimizer.lr=1"], "lr 1 (not pub"),
    ):
        config = compose(f"data.root={tmp_path}", "batch.total=12", "batch.micro=6", *overrides)
        data = open_data(config.data)
        assert said in description(config, make_plan(config.batch, 1, data.train_images, 1), data)
