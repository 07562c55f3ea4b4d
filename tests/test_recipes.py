"""The recipes: their published numbers, that every one trains, and the options that they brought."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from scripts import experiments
from tests.test_resume import assert_same_run, rows
from train import app, command_line, config
from train.average import Average
from train.bands import Bands
from train.data import open_data
from train.main import composed
from train.model import resnet8, resnet50
from train.optimizer import make_optimizer
from train.schedule import learning_rate, schedule_of
from train.signals import StopRequest
from train.world import World

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
        "4k": (4096, 11.31, 1.25, 90, 1e-4, 0.9),
        "8k": (8192, 16, 2.5, 90, 1e-4, 0.9),
        "16k": (16384, 22.63, 5, 90, 1e-4, 0.9),
        "32k": (32768, 32, 14, 90, 1e-4, 0.9),
    },
    "mlperf": {
        "4k": (4096, 10, 5, 47, 2e-4, 0.9),
        "8k": (8192, 17, 5, 44, 2e-4, 0.9),
        "16k": (16384, 22, 9, 48, 2e-4, 0.9),
        "32k": (32768, 21.2, 16, 58, 2.5e-5, 0.94),
        "48k": (49152, 19.405, 24, 71, 1e-4, 0.951807),
        "64k": (65536, 24.699, 31, 90, 1e-4, 0.951807),
    },
    "goyal": {
        "256": (256, 0.1, 0, 90, 1e-4, 0.9),
        "4k": (4096, 1.6, 5, 90, 1e-4, 0.9),
        "8k": (8192, 3.2, 5, 90, 1e-4, 0.9),
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
    "nesterov": {
        "optimizer.name": "sgd", "optimizer.nesterov": True, "schedule.decay": "step", "label_smoothing": 0.0,
        "schedule.warmup_lr": 0.0,
    },
}  # fmt: skip


def flat(*overrides: str) -> dict[str, object]:
    from dataclasses import asdict

    return config.flatten(asdict(composed(*overrides)))


@pytest.mark.parametrize(("recipe", "batch"), COMBINATIONS)
def test_a_recipe_has_its_published_numbers_at_every_batch(recipe, batch):
    c = flat("data=imagenet", f"recipe={recipe}", f"batch={batch}")
    keys = ("batch.total", "optimizer.lr", "schedule.warmup_epochs", "epochs", "optimizer.weight_decay")
    assert tuple(c[key] for key in (*keys, "optimizer.momentum")) == pytest.approx(PUBLISHED[recipe][batch])
    assert {key: c[key] for key in TRAITS[recipe]} == TRAITS[recipe]
    # ImageNet and ResNet-50 take up what the recipe says of them
    taken = ("data.train_crop", "data.min_area", "data.eval_resize", "model.stride_in_1x1")
    assert [c[key] for key in taken] == [c[f"recipe.{key.partition('.')[2]}"] for key in taken]


@pytest.mark.parametrize(
    ("batch", "lr", "eps", "ghost"),
    [("4k", 11.31, 1e-5, 128), ("8k", 16, 1e-5, 128), ("16k", 22.63, 1e-5, 128), ("32k", 32, 0, 64)],
)
def test_lr_of_nus_grows_with_the_root_of_the_batch(batch, lr, eps, ghost):
    c = composed("data=imagenet", "recipe=nus", f"batch={batch}")
    assert c.optimizer.lr == pytest.approx(4 * math.sqrt(c.batch.total / 512), rel=1e-3) == lr
    assert (c.optimizer.eps, c.batch.micro) == (eps, ghost)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], object]:
    """Overrides for a data set of 16 images, and that data set open."""
    root = tmp_path_factory.mktemp("tiny") / "fractals"
    small = [
        "data.classes=4", "data.train_per_class=16", "data.val_per_class=4", "batch.total=32", "batch.micro=16",
        f"data.root={root}", "data=fractals", "precision=fp32",
    ]  # fmt: skip
    return small, open_data(composed(*small).data)


@pytest.mark.parametrize(("recipe", "batch"), COMBINATIONS)
def test_every_combination_is_built_and_steps_twice_on_fractals(tiny, tmp_path, recipe, batch):
    small, _ = tiny
    c = composed(f"recipe={recipe}", f"batch={batch}", *small, f"runs_dir={tmp_path}", "name=run", "max_steps=2")
    app.train(replace(c, log=replace(c.log, layers_every_epochs=1)), World(), StopRequest(), "test")
    (row,) = rows(tmp_path / "run")
    assert row["step"] == 2 and math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])


def test_on_fractals_the_batch_is_an_eighth_and_only_the_lr_of_sgd_follows():
    for recipe, batches in PUBLISHED.items():
        batch = list(batches)[-1]
        c = composed(f"recipe={recipe}", f"batch={batch}")
        total, lr, warmup, *_ = PUBLISHED[recipe][batch]
        share = 8 if c.optimizer.name == "sgd" else 1
        assert (c.batch.total * 8, c.optimizer.lr * share) == pytest.approx((total, lr)), (recipe, batch)
        assert c.schedule.warmup_epochs == warmup and c.model.name == "resnet8"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["batch=4k"], ["recipe=torchlars", "batch=4k", "batch=256|8k|16k|32k", "optimizer.lr=X schedule.warmup"]),
        (["recipe=nus", "batch=256"], ["recipe=nus", "batch=256", "batch=4k|8k|16k|32k"]),
        (["recipe=goyal", "batch=32k"], ["batch=256|4k|8k", "by schedule.warmup_epochs=X"]),
        (["recipe=mlperf", "batch=256"], ["batch=4k|8k|16k|32k|48k|64k"]),
        (["recipe=adam"], ["recipe=adam does not exist: choose recipe=goyal|mlperf|nesterov|nus|paper|torchlars"]),
        (["recipe=nus", "optimizer=sgd"], ["is a key of optimizer=lars", "the recipe= that sets it"]),
        (["schedule.decay=step", "schedule.milestones=[30,20]"], ["schedule.milestones=[30, 20]", "ascending"]),
        (["data.progressive.start=20"], ["data.progressive.start=20 must be a multiple"]),
        (["data.progressive.epochs=[1,2,3]"], ["must be two epochs"]),
        (["optimizer.momentum_correction=true"], ["momentum_form=caffe"]),
        (["recipe=goyal", "batch=8k", "optimizer.momentum=0"], ["optimizer.nesterov=true needs a momentum"]),
        (["stop_at_top1=101"], ["stop_at_top1=101.0 must be at most 100"]),
        (["optimizer.momentum_form=tf"], ["is not one of torch, caffe, nus"]),
    ],
)
def test_what_a_recipe_does_not_have_is_said_in_one_line(overrides, said):
    from train.main import MISTAKES

    with pytest.raises(MISTAKES) as refused:
        composed(*overrides)
    line = command_line.explain(refused.value)
    assert "\n" not in line and all(part in line for part in said), line


def test_values_of_ones_own_stand_in_for_published_ones_and_are_in_the_name():
    overrides = ["batch=4k", "optimizer.lr=9", "schedule.warmup_epochs=3"]
    c = composed(*overrides)
    assert (c.batch.total, c.optimizer.lr, c.schedule.warmup_epochs) == (512, 9, 3)
    from hydra import initialize_config_dir

    from train.main import CONFIGS

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        name = command_line.default_name(c, command_line.spell(overrides, under_torchrun=False))
        nus = command_line.default_name(composed_here("recipe=nus"), ["recipe=nus"])
    assert name == "fractals-resnet8-4k-lars-seed0-optimizer.lr=9.0-schedule.warmup_epochs=3.0"
    assert nus == "fractals-resnet8-32k-nus-lars-seed0"


def composed_here(*overrides: str) -> config.Config:
    import hydra

    return command_line.typed(hydra.compose("config", overrides=list(overrides)))


def test_a_batch_that_torchlars_did_not_publish_has_no_expected_range():
    assert Bands("4k").remark(3, 5.0) is None and "normal at batch=32k" in str(Bands("32k").remark(3, 5.0))


# Schedule --------------------------------------------------------------------------------------------------------


def torchs(scheduler: type, steps: int, lr: float, **options: object) -> Iterator[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = scheduler(optimizer, **options)
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


def test_cosine_is_torchs_from_the_end_of_the_warm_up():
    theirs = torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 80, 3.2, T_max=80, eta_min=0.01)
    for step, lr in enumerate(theirs, start=20):
        ours = learning_rate(
            step, base=3.2, steps=100, warmup_steps=20, power=2, from_warmup=True, decay="cosine", end=0.01
        )
        assert ours == pytest.approx(lr, rel=1e-9)


def test_steps_are_torchs_at_goyals_epochs():
    plan = config.Plan(32, 32, 1, 1, 320, 90)  # 10 steps an epoch
    lr = schedule_of(composed("recipe=goyal", "batch=8k", "schedule.warmup_epochs=0", "data=imagenet"), plan)
    theirs = torchs(torch.optim.lr_scheduler.MultiStepLR, 900, 3.2, milestones=[300, 600, 800], gamma=0.1)
    assert [lr(step) for step in range(900)] == pytest.approx(list(theirs), rel=1e-9)


def test_warm_up_starts_where_goyals_does():
    plan = config.Plan(32, 32, 1, 1, 320, 90)
    lr = schedule_of(composed("recipe=goyal", "batch=8k", "data=imagenet"), plan)
    rises = [b - a for a, b in zip([0.1, *map(lr, range(49))], map(lr, range(50)), strict=True)]
    assert rises == pytest.approx([3.1 / 50] * 50) and lr(49) == lr(50) == pytest.approx(3.2)


def test_mlperfs_polynomial_ends_at_its_end_lr():
    # training_rules.adoc: end + (base - end) (1 - done)^2, counted from the end of the warm-up
    lr = schedule_of(composed("recipe=mlperf", "batch=8k", "data=imagenet"), config.Plan(32, 32, 1, 1, 320, 44))
    assert lr(49) == lr(50) == 17
    for step in range(50, 440):
        assert lr(step) == pytest.approx(1e-4 + (17 - 1e-4) * (1 - (step - 50) / 390) ** 2, rel=1e-12)


# Optimizer -------------------------------------------------------------------------------------------------------


def goyals_equation_10(lrs: list[float], gradients: torch.Tensor, *, corrected: bool) -> torch.Tensor:
    """arXiv 1706.02677: v = m (lr_t / lr_{t-1}) v + lr_t g; w = w - v, in float64 from w = 0."""
    w, v, before = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), lrs[0]
    for lr, g in zip(lrs, gradients, strict=True):
        v = 0.9 * (lr / before if corrected else 1.0) * v + lr * g
        w, before = w - v, lr
    return w


def walked(optimizer: torch.optim.Optimizer, w: nn.Parameter, lrs: list[float], gradients: torch.Tensor) -> None:
    for lr, g in zip(lrs, gradients, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr
        w.grad = g.clone()
        optimizer.step()


LRS = [0.1, 0.5, 1.0, 1.0, 0.1, 0.01]


def linear(w: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(3, 1, bias=False).double()
    layer.weight.data = w.clone()[None]
    return layer


def test_sgd_is_goyals_with_momentum_correction():
    gradients = torch.randn(6, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = linear(torch.zeros(3, dtype=torch.float64))
    walked(
        make_optimizer(layer, composed("optimizer=sgd", "optimizer.weight_decay=0").optimizer), layer.weight, LRS,
        gradients,
    )  # fmt: skip
    expected = [goyals_equation_10(LRS, gradients[:, 0], corrected=corrected) for corrected in (True, False)]
    torch.testing.assert_close(layer.weight[0].detach(), expected[0], rtol=1e-12, atol=0)
    assert (expected[0] - expected[1]).norm() > 0.1 * expected[0].norm()


@pytest.mark.parametrize("corrected", [True, False])
def test_momentum_correction_scales_the_buffer_of_lars_when_lr_changes(corrected):
    generator = torch.Generator().manual_seed(0)
    w, v = (torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(2))
    gradients = torch.randn(6, 1, 3, dtype=torch.float64, generator=generator)
    chosen = composed("optimizer.momentum_form=caffe", f"optimizer.momentum_correction={corrected}").optimizer
    layer = linear(w)
    walked(make_optimizer(layer, chosen), layer.weight, [100 * lr for lr in LRS], gradients)
    v, before = torch.zeros(3, dtype=torch.float64), LRS[0]
    for lr, g in zip(LRS, gradients[:, 0], strict=True):
        ratio = 0.001 * w.norm() / (g.norm() + 1e-4 * w.norm() + 1e-8)
        v = 0.9 * (lr / before if corrected else 1.0) * v + 100 * lr * ratio * (g + 1e-4 * w)
        w, before = w - v, lr
    torch.testing.assert_close(layer.weight[0].detach(), w, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("optimizer.ratio=decayed", {"form": "decayed"}), ("optimizer.clip=true", {"clip": True}),
        ("optimizer.max_ratio=50", {"cap": 50}), ("optimizer.clamp=10", {"clamp": 10}),
        ("optimizer.momentum_form=nus", {"momentum": "nus"}), ("optimizer.eps=0", {"eps": 0}),
    ],
)  # fmt: skip
def test_each_option_of_lars_reaches_it(override, changed):
    def options(*overrides: str) -> dict[str, object]:
        lars = make_optimizer(resnet8(4), composed(*overrides).optimizer)
        (group,) = lars.param_groups
        variant = lars.variant  # type: ignore[attr-defined]
        return {"eps": group["lars_eps"], "momentum": variant.momentum, "clamp": variant.clamp, **vars(variant.rule)}

    assert options(override) == {**options(), **changed}


@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_excluded_norm_layers_and_biases_have_neither_lars_nor_decay(optimizer):
    model = resnet8(4)
    chosen = composed(f"optimizer={optimizer}", "optimizer.exclude_norm_and_bias=true").optimizer
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stepped = make_optimizer(model, chosen)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for group in stepped.param_groups:
        group["lr"] = 0.5
    stepped.step()
    excluded = [name for name, p in model.named_parameters() if p.dim() == 1]
    assert len(excluded) == 19  # 9 BatchNorms' weights and biases, and fc's bias
    for name, p in model.named_parameters():
        plain = torch.allclose(p, before[name] - 0.5, rtol=0, atol=1e-7)
        assert plain == (name in excluded), name


# Model -----------------------------------------------------------------------------------------------------------


def test_with_zero_gamma_a_block_begins_as_its_shortcut():
    net = resnet8(4, zero_gamma=True)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(net.block1(x), x) and not torch.equal(resnet8(4).block1(x), x)
    big = resnet50(4, zero_gamma=True)
    x = torch.rand(2, 256, 8, 8)
    assert torch.equal(big.layer1[1](x), x)  # type: ignore[operator, index]
    assert sum(not m.weight.any() for m in big.modules() if isinstance(m, nn.BatchNorm2d)) == 16


def test_the_stride_in_the_1x1_is_he_et_als_network():
    def billions(net: nn.Module) -> float:
        """Multiply-adds of one image of 224 pixels."""
        counted: list[int] = []
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda m, _, out: counted.append(out.numel() * m.weight[0].numel()))
        with torch.device("meta"):
            net.to("meta")(torch.empty(1, 3, 224, 224))
        return sum(counted) / 1e9

    # He et al. 2015, Table 1: 3.8e9; torchvision's documentation of ResNet50_Weights: 4.09 GFLOPS
    assert billions(resnet50(1000, stride_in_1x1=True)) == pytest.approx(3.8, abs=0.06)
    assert billions(resnet50(1000)) == pytest.approx(4.09, abs=0.005)
    a, b = (resnet50(4, stride_in_1x1=v1).state_dict() for v1 in (True, False))
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


# Average ---------------------------------------------------------------------------------------------------------


def test_the_average_is_torchs_ema():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = resnet8(4)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # its first update copies
    ours = Average(model, 0.9)
    for _ in range(5):
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor))
        ours.update()
        theirs.update_parameters(model)
    for (name, a), b in zip(ours.model.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_the_average_is_what_is_evaluated_kept_and_resumed_bit_for_bit(tiny, tmp_path):
    small, _ = tiny
    chosen = ["optimizer=sgd", "schedule.warmup_epochs=0", "ema=0.5", "epochs=3", "name=run"]

    def train(folder: str, *overrides: str) -> Path:
        app.train(composed(*small, *chosen, f"runs_dir={tmp_path / folder}", *overrides), World(), StopRequest(), "")
        return tmp_path / folder / "run"

    whole = train("whole")
    train("stopped", "max_steps=3")
    assert_same_run(whole, train("stopped"))
    plain = train("plain", "ema=0")
    (state,) = (torch.load(path) for path in (whole / "checkpoints").glob("best-*"))
    assert state["average"].keys() == state["model"].keys()
    assert rows(plain)[-1]["train_loss"] == rows(whole)[-1]["train_loss"]
    assert rows(plain)[-1]["val_loss"] != rows(whole)[-1]["val_loss"]
    kept, last = (torch.load(run / "weights.pt")["fc.weight"] for run in (whole, plain))
    assert not torch.equal(kept, last)


# Data and end ----------------------------------------------------------------------------------------------------


def test_images_grow_in_multiples_and_are_whole_at_the_end():
    # FFCV's rn50_88_epochs.yaml: from 160 to 192 over epochs 65 to 76 of 88
    grow = ["data=imagenet", "data.size=192", "data.progressive.start=160", "data.progressive.epochs=[65,76]"]
    data = composed(*grow).data
    sizes = [config.train_size(data, epoch) for epoch in range(88)]
    assert sizes == sorted(sizes) and set(sizes[:76]) == {160} and set(sizes[76:]) == {192}
    data = composed("data=imagenet", "data.progressive.start=128").data
    sizes = [config.train_size(data, epoch) for epoch in range(62)]
    assert sorted({*sizes}) == [128, 160, 192, 224] and sizes[0] == 128 and sizes[60] == 224 > sizes[59]
    data = composed("data=imagenet").data
    assert {config.train_size(data, epoch) for epoch in range(90)} == {224}


def test_training_images_have_the_size_of_their_epoch_and_validation_images_their_own(tiny):
    small, data = tiny
    c = composed(*small, "data.progressive.start=16", "data.progressive.epochs=[0,2]", "epochs=3")
    loader = open_data(c.data).make_loader(config.make_plan(c, data.train_images, 1), 0, World())
    sizes = [next(loader.train(epoch, 0))[0].shape[2:] for epoch in range(3)]
    assert sizes == [(16, 16), (24, 24), (32, 32)]
    assert next(loader.validation())[0].shape[2:] == (32, 32)


def test_a_cut_on_imagenet_has_the_size_of_its_epoch():
    from train.data.stream import in_epoch

    c = composed("data=imagenet", "data.progressive.start=128", "data.progressive.epochs=[0,60]").data
    assert [(at.size, at.resize) for at in (in_epoch(c, 0), in_epoch(c, 90))] == [(128, 146), (224, 256)]  # type: ignore


def test_min_area_is_the_least_share_of_an_image_that_a_cut_has():
    import numpy as np

    from train.data import augment

    tries = augment.tries(0, 0, np.arange(2000))
    for least in (0.05, 0.5):
        boxes = np.array([augment.scale_and_aspect_box(500, 500, numbers, least) for numbers in tries])
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 500**2
        assert least - 0.005 < area.min() < least + 0.02


def test_a_run_ends_finished_after_the_evaluation_that_reaches_its_top1(tiny, tmp_path):
    small, _ = tiny
    chosen = [*small, "epochs=6", "stop_at_top1=1", f"runs_dir={tmp_path}", "name=run"]
    app.train(composed(*chosen), World(), StopRequest(), "test")
    result = json.loads((tmp_path / "run/result.json").read_text())
    reached = [row["val_top1"] >= 1 for row in rows(tmp_path / "run")]
    assert reached == [False] * (len(reached) - 1) + [True] and len(reached) < 6
    assert result["reached_top1"] == 1 and result["steps"] == 2 * len(reached)
    never = [*small, "epochs=1", "stop_at_top1=100", f"runs_dir={tmp_path}", "name=never"]
    app.train(composed(*never), World(), StopRequest(), "test")
    assert json.loads((tmp_path / "never/result.json").read_text())["reached_top1"] is None


def test_the_experiments_take_each_recipe_at_every_batch_that_it_publishes():
    others = {recipe: tuple(batches) for recipe, batches in PUBLISHED.items() if recipe != "torchlars"}
    assert experiments.RECIPES == others


@pytest.mark.parametrize("chosen, said", [("cols", "no experiment cols"), ("rows/1m", "no run of rows begins with 1m")])
def test_an_experiment_that_does_not_exist_is_told_before_anything_runs(chosen: str, said: str):
    done = subprocess.run(
        [sys.executable, experiments.__file__, chosen], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]
