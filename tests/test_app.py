"""A run from its configuration: what is refused, and what a failure leaves intact."""

import resource
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers import SMALL, App, assert_same_run, build, train_here
from train import app as application
from train.config.compose import compose
from train.errors import UserError


def test_an_image_that_does_not_decode_is_named(app: App, tmp_path: Path):
    for split, count in (("train", 4), ("val", 2)):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (64, 48), "red").save(tmp_path / split / name / f"{i}.jpg")
    bad = tmp_path / "train" / "b" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    small = ["model=resnet8", "data.size=32", "data.resize=40", "batch.total=8", "batch.micro=4", "epochs=1"]
    with pytest.raises(UserError, match=f"cannot decode {bad}"):
        train_here(tmp_path / "runs", f"data.root={tmp_path}", *small, "data.workers=0")
    done = app(f"data.root={tmp_path}", *small, "data.workers=1", "name=by_a_worker")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: cannot decode {bad}")
    assert "Traceback" not in done.stderr


def test_a_checkpoint_of_another_model_is_refused(app: App, tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    done = app(*SMALL, f"evaluate={tmp_path}/other.pt")
    assert done.returncode == 2 and "does not fit model=resnet8 with 8 classes" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_out_of_gpu_memory_names_the_micro_batch():
    config = compose("batch=8k", "data=imagenet")
    with pytest.raises(UserError, match="batch.micro=64"), application.process_group(config):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_images_under_the_same_name_are_refused(app: App, tmp_path):
    from PIL import Image

    for root, count in (("one", 4), ("other", 5)):
        for split in ("train", "val"):
            for label in "ab":
                (tmp_path / root / split / label).mkdir(parents=True)
                for i in range(count):
                    Image.new("RGB", (64, 48), "red").save(tmp_path / root / split / label / f"{i}.jpg")
    arguments = [
        "model=resnet8", "data.size=32", "data.resize=40", "batch.total=4", "batch.micro=4", "epochs=2", "name=run",
        "data.workers=0", "precision=fp32",
    ]  # fmt: skip
    train_here(tmp_path / "runs", f"data.root={tmp_path}/one", *arguments, "max_steps=1")
    refused = app(f"data.root={tmp_path}/other", *arguments)
    assert refused.returncode == 2 and "was begun on other images than data.root holds now" in refused.stderr
    (tmp_path / "one").rename(tmp_path / "moved")
    train_here(tmp_path / "runs", f"data.root={tmp_path}/moved", *arguments)


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_is_intact(app: App, tmp_path, uninterrupted):
    """A limit on a file's size stands for a full disk: writes fail in the middle, as they do on one."""
    arguments = [*SMALL, "epochs=6", "name=run"]
    assert app(*arguments, "max_steps=3").returncode == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = app(*arguments, "max_steps=5", preexec_fn=limit)
    assert full.returncode == 2, full.stderr
    assert full.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in full.stderr
    checkpoints = tmp_path / "runs" / "run" / "checkpoints"
    assert [p.name[:15] for p in checkpoints.iterdir()] == ["step-000000003-"]
    assert app(*arguments).returncode == 0
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def test_a_connected_step_has_the_configured_loss_and_precision():
    world, data, plan, model, config = build(0, 1, 0, "label_smoothing=0.3", "precision=bf16")
    step = application.connect_step(config, plan, world, model)
    images, labels = next(data.make_loader(world, 0).training_batches(plan, 0, 0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model.train()(images).float()
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)
    assert step([(images, labels)] * 4, lr=0.0).item() == pytest.approx(expected.item(), rel=1e-6)
