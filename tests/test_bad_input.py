"""What a user in a hurry does: each ends in one line that names the value and the mend, exit code 2."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import SMALL, App
from train import app as application
from train.errors import UserError
from train.signals import StopRequest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["batch=48k"], ["recipe=torchlars has no published values for batch=48k", "choose batch=256|8k|16k|32k"]),
        (["batch=12k"], ["batch=12k does not exist", "batch=256|4k|8k|16k|32k|48k|64k", "batch.total=N"]),
        (["recipe=ours"], ["recipe=ours does not exist: choose recipe=goyal|mlperf|nesterov|nus|paper|torchlars"]),
        (["batch=12288"], ["batch=12288 does not exist", "batch.total=N"]),
        (["--batch=32k"], ["--batch=32k", "without dashes"]),
        (["batch", "32k"], ["batch"]),
        (["sed=1"], ["no key 'sed'", "'seed'"]),
        (["+sed=1"], ["no key 'sed'", "'seed'"]),
        (["optimizer.lrr=1"], ["'optimizer.lr'"]),
        (["~epochs"], ["epochs has no value"]),
        (["optimizer.lr=abc"], ["optimizer.lr", "abc"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1.0 must not be negative"]),
        (["optimizer.momentum=1"], ["optimizer.momentum=1.0 must be in [0, 1)"]),
        (["epochs=1.5"], ["epochs", "1.5"]),
        (["epochs=0"], ["epochs=0 must be at least 1"]),
        (["precision=fp8"], ["precision=fp8 is not one of auto, bf16, fp32"]),
        (["schedule.origin=middle"], ["schedule.origin=middle is not one of start, warmup"]),
        (["data=imagenet", "data.train_crop=big"], ["data.train_crop=big"]),
        (["data=imagenet", "data.size=300"], ["data.size=300", "data.resize=256"]),
        (["data=imagenet", "data.classes=3"], ["'data.classes' is a key of data=fractals, and another"]),
        (["lr=3"], ["no key 'lr': did you mean 'optimizer.lr'?"]),
        (["optimiser=lars"], ["did you mean 'optimizer'?"]),
        (["data=null"], ["data=null chooses nothing"]),
        (["--resolve"], ["--resolve", "--cfg job"]),
        (["plan.gpus=8"], ["plan.gpus=8", "is not a list, such as [1,2]"]),
        (["data=imagenet", "data.root="], ["data.root=DIR"]),
        (["data.root=/dev/null", "data=fractals"], ["data.root=/dev/null is not a folder"]),
        (["data.batch_divisor=7"], ["data.batch_divisor=7 does not divide", "32768"]),
        (["batch.total=1000"], ["batch.total=1000 is not a multiple of batch.micro=512", "batch.micro=500"]),
        (["batch.total=40960"], ["batch.total=40960 is more than the 20480 training images"]),
        (["nproc=3"], ["batch.total=4096", "by 3 processes", "nproc=2 or nproc=4"]),
        (["name=a/b"], ["name='a/b'"]),
        (["model=resnet101"], ["model=resnet101 does not exist: choose model=resnet50|resnet8"]),
        (["data=imagenet"], ["data.root=DIR", "IMAGENET_DIR"]),
        (["data.root=/nowhere/at/all"], ["data.root=/nowhere/at/all is not a folder"]),
        (["evaluate=/nowhere.pt"], ["there is no file /nowhere.pt"]),
        (["evaluate=/"], ["/ is a folder"]),
        (["runs_dir=/dev/null"], ["/dev/null"]),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(app: App, tmp_path: Path, arguments, said):
    small = SMALL if arguments == ["runs_dir=/dev/null"] else []
    done = app(*small, *arguments)
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and all(part in line for part in said), line
    assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / "outputs").exists()


def test_a_configuration_error_is_one_line_and_nothing_else(app: App):
    for arguments in (["batch=48k"], ["sed=1"], ["epochs=x"], ["data.batch_divisor=7"], ["batch.total=1000"]):
        done = app(*arguments)
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_an_image_that_does_not_decode_is_named(app: App, tmp_path: Path):
    for split, count in (("train", 4), ("val", 2)):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (64, 48), "red").save(tmp_path / split / name / f"{i}.jpg")
    bad = tmp_path / "train" / "b" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    small = ["model=resnet8", "data.size=32", "data.resize=40", "batch.total=8", "batch.micro=4", "epochs=1"]
    for workers in (0, 1):
        done = app(f"data.root={tmp_path}", *small, f"data.workers={workers}", f"name=w{workers}")
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"error: cannot decode {bad}")
        assert "Traceback" not in done.stderr


def test_a_checkpoint_of_another_model_is_refused(app: App, tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    done = app(*SMALL, f"evaluate={tmp_path}/other.pt")
    assert done.returncode == 2 and "does not fit model=resnet8 with 8 classes" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_out_of_gpu_memory_names_the_micro_batch(monkeypatch):
    from train.main import composed

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(application, "train", exhausted)
    settings = composed("batch=8k", "data=imagenet")
    with pytest.raises(UserError, match="batch.micro=64"):
        application.run(settings, "", StopRequest())
