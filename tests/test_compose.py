"""The presets and overrides: published numbers, the scale-down rule, and the name that follows from them."""

from dataclasses import asdict

import pytest
from omegaconf.errors import OmegaConfBaseException

from tests.helpers import name_of, plan_for
from train.config.compose import compose
from train.errors import UserError

PRESETS = ("256", "8k", "16k", "32k")


@pytest.mark.parametrize(
    ("preset", "optimizer", "total", "lr", "warmup"),
    [
        ("256", "sgd", 256, 0.2, 0),
        ("8k", "lars", 8192, 12.8, 5),
        ("16k", "lars", 16384, 25.0, 5),
        ("32k", "lars", 32768, 29.0, 5),
    ],
)
def test_preset_on_imagenet_is_the_published_row(preset, optimizer, total, lr, warmup):
    c = compose(f"batch={preset}", "data=imagenet")
    assert (c.optimizer.name, c.batch.total, c.optimizer.lr) == (optimizer, total, lr)
    assert (c.schedule.warmup_epochs, c.epochs, c.schedule.power, c.schedule.origin) == (
        warmup,
        90,
        2,
        "start",
    )
    assert (c.optimizer.momentum, c.optimizer.weight_decay, c.model.name) == (0.9, 1e-4, "resnet50")
    assert c.batch.micro == (32 if preset == "256" else 64)


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [
        (["batch.total=512"], 12.8 / 4),  # as far from 8k as from 256, whose lr is 8k's by the same rule
        (["batch.total=4096"], 12.8 / 2**0.5),
        (["batch.total=65536"], 29 * 2**0.5),
        (["batch=8k", "batch.total=16384"], 25.0),
        (["recipe=nus", "batch.total=2048"], 8.0),  # its own rule: 4 sqrt(batch / 512)
        (["recipe=paper", "batch.total=128", "batch.micro=32"], 4 / 2**0.5),
        (["recipe=mlperf", "batch.total=40960", "batch.micro=128"], 19.4 * (40960 / 40448) ** 0.5),
        (["optimizer=sgd", "batch.total=512"], 0.4),
        (["recipe=goyal", "batch=256", "batch.total=512"], 0.2),
    ],
)
def test_lr_of_a_batch_that_is_no_preset_is_scaled_from_the_nearest_row(overrides, lr):
    assert compose("data=imagenet", *overrides).optimizer.lr == pytest.approx(lr, abs=0.005)


@pytest.mark.parametrize("overrides", [["data=imagenet", "optimizer.lr=29"], ["data=fractals"], ["data=cifar10"]])
def test_a_given_lr_stays_and_so_does_that_of_a_batch_on_divided_data(overrides):
    scaled = overrides == ["data=cifar10"]
    lr = compose(*overrides, "batch.total=512").optimizer.lr
    assert lr == pytest.approx(12.8 / 4 if scaled else 29, abs=0.005)


@pytest.mark.parametrize("total", ["x", "0", "-4", "1.5", "null", "[1]"])
def test_a_batch_that_is_no_number_of_images_is_refused_by_its_own_key(total):
    with pytest.raises((UserError, OmegaConfBaseException), match=r"batch\.total"):
        compose("data=imagenet", f"batch.total={total}")


@pytest.mark.parametrize(
    ("preset", "total", "sgd_lr", "lars_lr", "micro"),
    [
        ("256", 32, 0.025, 2.26, 32),
        ("8k", 1024, 0.8, 12.8, 32),
        ("16k", 2048, 1.6, 25.0, 32),
        ("32k", 4096, 3.2, 29.0, 32),
    ],
)
def test_fractals_divide_the_batch_by_8_and_only_the_sgd_lr_follows(preset, total, sgd_lr, lars_lr, micro):
    sgd, lars = (compose(f"batch={preset}", f"optimizer={o}") for o in ("sgd", "lars"))
    assert sgd.batch.total == lars.batch.total == total and sgd.batch.micro == micro
    assert (sgd.optimizer.lr, lars.optimizer.lr) == pytest.approx((sgd_lr, lars_lr))
    assert sgd.schedule.warmup_epochs == lars.schedule.warmup_epochs == (0 if preset == "256" else 5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
@pytest.mark.parametrize("data", ["fractals", "imagenet"])
def test_every_preset_composes_with_both_optimizers(preset, optimizer, data):
    c = compose(f"batch={preset}", f"optimizer={optimizer}", f"data={data}")
    assert c.optimizer.name == optimizer and c.data.name == data and c.batch.preset == preset
    if optimizer == "sgd":
        assert c.optimizer.lr == pytest.approx(0.2 * c.batch.total / 256)
    images = 1_281_167 if data == "imagenet" else 20_480
    assert plan_for(c, images).steps > 0


def test_default_is_the_32k_row_on_fractals():
    assert asdict(compose()) == asdict(compose("batch=32k", "data=fractals", "optimizer=lars", "model=resnet8"))


def test_a_total_given_by_hand_is_taken_as_it_is():
    assert compose("batch=8k", "batch.total=96", "batch.micro=32").batch.total == 96


def test_data_root_alone_means_imagenet_and_an_explicit_data_wins(tmp_path):
    assert compose(f"data.root={tmp_path}").data.name == "imagenet"
    assert compose(f"data.root={tmp_path}", "data=fractals").data.name == "fractals"


def test_imagenet_dir_supplies_the_root(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGENET_DIR", str(tmp_path))
    assert compose("data=imagenet").data.root == str(tmp_path)
    assert compose("data=imagenet", "data.root=/x").data.root == "/x"
    assert compose().data.root is None


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "fractals-resnet8-32k-lars-seed0"),
        (["batch=256", "seed=3"], "fractals-resnet8-256-sgd-seed3"),
        (["optimizer=sgd", "optimizer.lr=1.5"], "fractals-resnet8-32k-sgd-seed0-optimizer.lr=1.5"),
        (["epochs=90", "optimizer.lr=29"], "fractals-resnet8-32k-lars-seed0"),
        (
            ["epochs=3", "max_steps=2", "nproc=2", "data.workers=1"],
            "fractals-resnet8-32k-lars-seed0-epochs=3",
        ),
        (["data=imagenet", "data.root=/x", "batch=8k"], "imagenet-resnet50-8k-lars-seed0"),
        (
            ["model=torchvision", "model.arch=resnet18"],
            "fractals-torchvision-32k-lars-seed0-model.arch=resnet18",
        ),
        (
            ["+model.options.dropout=0.1", "model=torchvision", "model.arch=squeezenet1_1"],
            "fractals-torchvision-32k-lars-seed0-model.arch=squeezenet1_1-model.options.dropout=0.1",
        ),
        (["data.mean.0=0.1"], "fractals-resnet8-32k-lars-seed0-data.mean.0=0.1"),
        (["data.mean.0=0.485"], "fractals-resnet8-32k-lars-seed0"),
    ],
)
def test_default_name_says_what_changes_the_result_and_nothing_else(overrides, name):
    assert name_of(*overrides) == name


def test_values_of_ones_own_stand_in_for_published_ones_and_are_in_the_name():
    overrides = ["batch=4k", "optimizer.lr=9", "schedule.warmup_epochs=3"]
    c = compose(*overrides)
    assert (c.batch.total, c.optimizer.lr, c.schedule.warmup_epochs) == (512, 9, 3)

    assert name_of(*overrides) == "fractals-resnet8-4k-lars-seed0-optimizer.lr=9.0-schedule.warmup_epochs=3.0"
    assert name_of("recipe=nus") == "fractals-resnet8-32k-nus-lars-seed0"
