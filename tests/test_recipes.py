"""The recipes: their published numbers, and that every one trains."""

import math
from dataclasses import replace

import pytest

from scripts.reporting.mlperf import best_systems
from tests.helpers import rows
from train import app
from train.config.compose import compose
from train.keys import values
from train.processes.signals import StopRequest
from train.processes.world import World

# from the sources named in configs/recipe: batch, lr, warm-up, epochs, weight decay, momentum
PUBLISHED = {
    "torchlars": {
        "256": (256, 0.2, 0, 90, 1e-4, 0.9),
        "8k": (8192, 12.8, 5, 90, 1e-4, 0.9),
        "16k": (16384, 25, 5, 90, 1e-4, 0.9),
        "32k": (32768, 29, 5, 90, 1e-4, 0.9),
    },
    "paper": {
        "256": (256, 4, 0, 100, 5e-4, 0.9),
        "8k": (8192, 30, 5, 100, 5e-4, 0.9),
        "16k": (16384, 33, 12, 100, 5e-4, 0.9),
        "32k": (32768, 40, 12, 100, 5e-4, 0.9),
    },
    "nus": {
        "512": (512, 4, 0.15625, 90, 1e-4, 0.9),
        "1k": (1024, 5.66, 0.3125, 90, 1e-4, 0.9),
        "4k": (4096, 11.31, 1.25, 90, 1e-4, 0.9),
        "8k": (8192, 16, 2.5, 90, 1e-4, 0.9),
        "16k": (16384, 22.63, 5, 90, 1e-4, 0.9),
        "32k": (32768, 32, 14, 90, 1e-4, 0.9),
    },
    "mlperf": {
        "4k": (4096, 10, 5, 47, 2e-4, 0.9),
        "8k": (8192, 17, 5, 44, 2e-4, 0.9),
        "16k": (16384, 22, 9, 48, 2e-4, 0.9),
        "20k": (20480, 22, 12, 52, 2.5e-5, 0.9),
        "32k": (32768, 21.2, 16, 58, 2.5e-5, 0.94),
        "40k": (40448, 19.4, 24, 70, 1e-4, 0.95),
        "48k": (49152, 19.405, 24, 71, 1e-4, 0.951807),
        "56k": (57344, 23, 32, 78, 2.5e-5, 0.95),
        "64k": (65536, 24.699, 31, 90, 1e-4, 0.951807),
    },
    "goyal": {
        "256": (256, 0.1, 0, 90, 1e-4, 0.9),
        "4k": (4096, 1.6, 5, 90, 1e-4, 0.9),
        "8k": (8192, 3.2, 5, 90, 1e-4, 0.9),
        "16k": (16384, 6.4, 5, 90, 1e-4, 0.9),
        "32k": (32768, 12.8, 5, 90, 1e-4, 0.9),
    },
    # lr and warm-up are those of nus
    "vr": {
        "8k": (8192, 16, 2.5, 90, 1e-4, 0.9),
        "16k": (16384, 22.63, 5, 90, 1e-4, 0.9),
        "32k": (32768, 32, 14, 90, 1e-4, 0.9),
        "64k": (65536, 45.25, 20, 90, 1e-4, 0.9),
    },
    "nesterov": {
        "256": (256, 0.1, 5, 90, 1e-4, 0.9),
        "4k": (4096, 1.6, 5, 90, 1e-4, 0.9),
        "32k": (32768, 12.8, 5, 90, 1e-4, 0.9),
    },
}


COMBINATIONS = [(recipe, batch) for recipe, batches in PUBLISHED.items() for batch in batches]


# what a recipe is about, beside its numbers
TRAITS = {
    "torchlars": {"recipe.train_crop": "minimal", "label_smoothing": 0.0, "schedule.origin": "start"},
    "paper": {
        "recipe.train_crop": "minimal", "optimizer.momentum_form": "caffe", "optimizer.eps": 0,
        "recipe.stride_in_1x1": True, "schedule.origin": "start", "label_smoothing": 0.0,
        "optimizer.exclude_norm_and_bias": False,
    },
    "nus": {
        "recipe.train_crop": "scale_and_aspect", "recipe.min_area": 0.08, "recipe.eval_resize": "shorter",
        "label_smoothing": 0.1, "optimizer.momentum_form": "nus", "optimizer.max_ratio": 50, "optimizer.clamp": 10,
        "optimizer.exclude_norm_and_bias": True, "schedule.origin": "warmup", "model.zero_gamma": False,
    },
    "mlperf": {
        "recipe.train_crop": "scale_and_aspect", "recipe.min_area": 0.05, "label_smoothing": 0.1, "optimizer.eps": 0,
        "optimizer.momentum_form": "caffe", "schedule.power": 2, "schedule.end_lr": 1e-4, "schedule.origin": "warmup",
        "stop_at_top1": 75.9, "optimizer.exclude_norm_and_bias": True,
    },
    "goyal": {
        "optimizer.name": "sgd", "optimizer.nesterov": True, "model.zero_gamma": True, "schedule.decay": "step",
        "schedule.milestones": [30, 60, 80], "schedule.factor": 0.1, "schedule.warmup_lr": 0.1,
        "batch.reference_micro": 32, "recipe.train_crop": "scale_and_aspect",
    },
    "vr": {
        "optimizer.name": "lars", "optimizer.variance_reduction": True, "optimizer.variance_groups": None,
        "schedule.decay": "cosine", "label_smoothing": 0.1, "optimizer.momentum_form": "torch",
    },
    "nesterov": {
        "optimizer.name": "sgd", "optimizer.nesterov": True, "schedule.decay": "step", "label_smoothing": 0.0,
        "schedule.warmup_lr": 0.0,
    },
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "batch"), COMBINATIONS)
def test_a_recipe_has_its_published_numbers_at_every_batch(recipe, batch):
    c = values(compose("data=imagenet", f"recipe={recipe}", f"batch={batch}"))
    keys = ("batch.total", "optimizer.lr", "schedule.warmup_epochs", "epochs", "optimizer.weight_decay")
    assert tuple(c[key] for key in (*keys, "optimizer.momentum")) == pytest.approx(PUBLISHED[recipe][batch])
    assert {key: c[key] for key in TRAITS[recipe]} == TRAITS[recipe]
    # ImageNet and ResNet-50 take up what the recipe says of them
    taken = ("data.train_crop", "data.min_area", "data.eval_resize", "model.stride_in_1x1")
    assert [c[key] for key in taken] == [c[f"recipe.{key.partition('.')[2]}"] for key in taken]


def test_the_recipe_for_cifar_has_its_published_numbers():
    """He et al. 2015 (arXiv 1512.03385), section 4.2."""
    c = values(compose("recipe=he", "data=cifar10", "data.root=/x"))
    published = {
        "batch.total": 128, "optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4, "schedule.decay": "step", "schedule.milestones": [82, 123],
        "schedule.factor": 0.1, "epochs": 164, "model.name": "resnet20", "data.shift": 4,
    }  # fmt: skip
    assert {key: c[key] for key in published} == published
    # "64k iterations", the lr divided by 10 at 32k and 48k, of 128 images out of 50,000
    assert [round(128 * steps / 50_000) for steps in (64_000, 32_000, 48_000)] == [164, 82, 123]


@pytest.mark.parametrize(
    ("batch", "lr", "eps", "ghost"),
    [("4k", 11.31, 1e-5, 128), ("8k", 16, 1e-5, 128), ("16k", 22.63, 1e-5, 128), ("32k", 32, 0, 64)],
)
def test_lr_of_nus_grows_with_the_root_of_the_batch(batch, lr, eps, ghost):
    c = compose("data=imagenet", "recipe=nus", f"batch={batch}")
    assert c.optimizer.lr == pytest.approx(4 * math.sqrt(c.batch.total / 512), rel=1e-3) == lr
    assert (c.optimizer.eps, c.batch.micro) == (eps, ghost)


@pytest.mark.parametrize(("recipe", "batch"), COMBINATIONS)
def test_every_combination_is_built_and_steps_twice_on_fractals(tiny, tmp_path, recipe, batch):
    small, _ = tiny
    c = compose(f"recipe={recipe}", f"batch={batch}", *small, f"runs_dir={tmp_path}", "name=run", "max_steps=2")
    app.train(replace(c, log=replace(c.log, layers_every_epochs=1)), World(), StopRequest(), "test")
    (row,) = rows(tmp_path / "run")
    assert row["step"] == 2 and math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])


def test_on_fractals_the_batch_is_an_eighth_and_only_the_lr_of_sgd_follows():
    for recipe, batches in PUBLISHED.items():
        batch = list(batches)[-1]
        c = compose(f"recipe={recipe}", f"batch={batch}")
        total, lr, warmup, *_ = PUBLISHED[recipe][batch]
        share = 8 if c.optimizer.name == "sgd" else 1
        assert (c.batch.total * 8, c.optimizer.lr * share) == pytest.approx((total, lr)), (recipe, batch)
        assert c.schedule.warmup_epochs == warmup and c.model.name == "resnet8"


@pytest.mark.parametrize(("preset", "epochs"), [("20k", 52), ("40k", 70), ("56k", 78)])
def test_large_presets_of_mlperf_have_the_settings_of_the_best_system_of_their_batch(preset: str, epochs: int):
    config = compose("data=imagenet", "recipe=mlperf", f"batch={preset}")
    (row,) = (r for r in best_systems() if int(r["batch"]) == config.batch.total)
    ours = (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay,
            config.schedule.warmup_epochs, config.epochs, config.batch.micro)  # fmt: skip
    keys = ("lr", "momentum", "weight_decay", "warmup_epochs", "decay_steps", "bn_span")
    assert ours == pytest.approx(tuple(float(row[key]) for key in keys)) and config.epochs == epochs
