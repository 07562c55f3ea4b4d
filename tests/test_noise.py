"""The gradient noise scale: unbiased, the same however a batch is split and shared, free of side effects and cheap."""

import json
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import SMALL, App, assert_same_run, build, connected, rows, spawn, train_here
from train import app
from train.config.compose import compose
from train.data.loader import MicroBatch
from train.engine.evaluation import Evaluation
from train.engine.noise import Noise, NoiseScale
from train.engine.stop import StopRequested
from train.errors import Stopped, UserError
from train.plan import make_plan
from train.processes.world import World
from train.resnet import resnet8

CLASSES, IMAGES = 10, 10_000


def network() -> nn.Module:
    """Without BatchNorm, so that each image has a gradient of its own."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, CLASSES))


def images(count: int) -> MicroBatch:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 6, 6, generator=g), torch.randint(CLASSES, (count,), generator=g)


def of_single_images(model: nn.Module, data: MicroBatch) -> tuple[Tensor, Tensor]:
    """|G|^2 and tr(Sigma) of each parameter over all images of ``data``, from the gradient of each one in float64."""
    weights = {name: p.detach().double() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, weights, image[None])
        return F.cross_entropy(logits, label[None], label_smoothing=0.1)

    each = vmap(grad(loss), (None, 0, 0))(weights, data[0].double(), data[1])
    means = {name: g.mean(0) for name, g in each.items()}
    return (
        torch.stack([means[name].square().sum() for name in weights]),
        torch.stack([(each[name] - means[name]).square().sum() / len(data[1]) for name in weights]),
    )


def measured(model: nn.Module, batches: list[list[MicroBatch]]) -> Noise:
    """What the app's own step measures over steps that move nothing, one for each of ``batches``."""
    noise = NoiseScale(model, World(), len(batches[0][0][1]))
    step = connected(model, len(batches[0]), noise=noise)
    for batch in batches:
        step(batch, lr=0.0)
    found = noise.read()
    assert found
    return found


SPLITS = [(1, 8), (5, 2), *(pytest.param(*split, marks=pytest.mark.slow) for split in [(2, 4), (10, 5)])]


@pytest.mark.parametrize(("micro", "count"), SPLITS)
def test_it_is_unbiased_against_the_gradients_of_10000_single_images_at_any_split(micro: int, count: int):
    model, data = network(), images(IMAGES)
    gradient_squared, variance = of_single_images(model, data)
    # drawn with replacement, as a distribution is
    drawn = torch.randint(IMAGES, (1000, count, micro), generator=torch.Generator().manual_seed(2))
    estimates = []
    for part in drawn.split(20):
        found = measured(model, [[(data[0][i], data[1][i]) for i in step] for step in part])
        estimates.append(torch.tensor([found.gradient_squared, found.variance], dtype=torch.float64))
    of_parts = torch.stack(estimates)
    truth = torch.stack([gradient_squared, variance])
    # of the mean of 1,000 steps, from their own scatter
    standard_error = of_parts.std(0) / len(of_parts) ** 0.5
    # 8 figures at each of 4 splits: one in 500 such tests goes beyond 4 by chance
    assert ((of_parts.mean(0) - truth).abs() < 4 * standard_error).all()
    # and the test can tell: a bias of a few percent of tr(Sigma) would show
    assert (standard_error[1] < 0.03 * truth[1]).all()


class Linear(nn.Module):
    """Whose gradient is the mean of its inputs, minus a constant that does not matter: the noise is the inputs' own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) * self.weight).sum(1)


def test_it_is_exact_on_gradients_whose_noise_is_known_by_construction():
    """Micro-batches of gradients ``G + e`` and ``G - e`` with e orthogonal to G: |G|^2 and |e|^2 are chosen numbers."""
    model, micro = Linear(4), 8
    noise = NoiseScale(model, World(), micro)
    mean, e = torch.tensor([3.0, 0, 0, 4]), torch.tensor([0.0, 2, 0, 0])
    for _ in range(3):
        noise.begin(4)
        model.zero_grad()
        for gradient in (mean + e, mean - e, mean + e, mean - e):
            model(gradient.expand(micro, 4)).mean().div(4).backward()
            noise.micro_batch()
        noise.end(torch.ones(()))
    found = noise.read()
    assert found
    # the sample variance of the four is 4/3 |e|^2, which is tr(Sigma) / micro; |G|^2 = 25 - 4/3 |e|^2 / 4
    assert found.variance == pytest.approx([micro * 16 / 3]) and found.gradient_squared == pytest.approx([25 - 4 / 3])
    assert found.scale == pytest.approx(micro * 16 / 3 / (25 - 4 / 3)) == found.scales["weight"]
    assert noise.read() is None


def test_without_noise_it_is_zero_and_a_negative_estimate_has_no_ratio():
    model, data = network(), images(4)
    found = measured(model, [[data] * 3])
    assert found.scale == pytest.approx(0, abs=1e-5)
    assert Noise(["a"], [-1.0], [2.0]).scale is None and Noise(["a"], [-1.0], [2.0]).scales == {"a": None}


def test_the_loss_scale_of_fp16_cancels_and_a_step_that_overflows_does_not_count():
    model = Linear(2)
    noise = NoiseScale(model, World(), 1)
    for scale, poison in ((1024.0, 1.0), (1024.0, float("inf"))):
        noise.begin(2)
        model.zero_grad()
        for gradient in (torch.tensor([2.0, 1]), torch.tensor([2.0, -1])):
            model(poison * gradient.expand(1, 2)).mean().mul(scale / 2).backward()
            noise.micro_batch()
        assert model.weight.grad is not None
        model.weight.grad /= scale
        noise.end(torch.tensor(scale))
    found = noise.read()
    assert found and (found.gradient_squared, found.variance) == (pytest.approx([3]), pytest.approx([2]))


def test_one_layer_has_the_same_noise_scale_for_lars_and_many_have_one_between():
    one = Noise(["a"], [2.0], [60.0])
    assert one.lars_scale({"a": 7.0}) == pytest.approx(30) == one.scale
    two = Noise(["a", "b", "bias"], [4.0, 1.0, 1.0], [40.0, 1000.0, 1e6])
    found = two.lars_scale({"a": 1.0, "b": 2.0})
    assert found and 10 < found < 1000
    # the defining equation: both layers weigh 2
    assert sum((1 + scale / found) ** -0.5 for scale in (10, 1000)) / 2 == pytest.approx(0.5**0.5)
    # between the limits for small and for large batches
    assert (sum(scale**-0.5 for scale in (10, 1000)) / 2) ** -2 < found < (10 + 1000) / 2
    # each layer's gradient times any factor, as in a network whose layers are scaled against one another
    scaled = Noise(two.names, [1e4 * 4.0, 1.0, 1.0], [1e4 * 40.0, 1000.0, 1e6])
    assert scaled.lars_scale({"a": 1e-2, "b": 2.0}) == pytest.approx(found)
    assert Noise(["a"], [-1.0], [3.0]).lars_scale({"a": 1.0}) is None


def measure_on(rank: int, size: int, port: int, out: Path, micro: int) -> None:
    """Two steps of LARS; what they measured, on every rank."""
    chosen = ("noise_scale=true", "optimizer.lr=1", "batch.total=192", f"batch.micro={micro}")
    world, data, plan, model, config = build(rank, size, port, *chosen)
    step = app.connect_step(config, plan, world, model)
    taken = data.make_loader(world, 0).training_batches(plan, 0, 0)
    for _ in range(2):
        step(islice(taken, plan.accumulation), lr=1.0)
    assert step.noise
    found = step.noise.read()
    assert found
    (out / f"{size}-{rank}.json").write_text(json.dumps([found.gradient_squared, found.variance]))
    world.leave()


@pytest.mark.parametrize(("micro", "size"), [(32, 2), (64, 3)], ids=["several each", "one each"])
def test_one_two_and_three_processes_measure_the_same(tmp_path: Path, micro: int, size: int):
    measure_on(0, 1, 0, tmp_path, micro)
    spawn(measure_on, size, tmp_path, micro)
    alone = torch.tensor(json.loads((tmp_path / "1-0.json").read_text()))
    for rank in range(size):
        other = torch.tensor(json.loads((tmp_path / f"{size}-{rank}.json").read_text()))
        # relative to tr(Sigma) of a whole batch, which is what |G|^2 is a difference of
        assert ((other - alone).abs() <= 1e-4 * (alone.abs() + alone[1] / 192)).all()


NOISE = {"noise_scale", "noise_scale_lars", "gradient_squared", "gradient_variance", "noise_scale_layers"}


def without_noise(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(row.keys() >= NOISE for row in lines)
    kept = [{k: v for k, v in row.items() if k not in NOISE} for row in lines]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))


def test_the_run_that_has_it_on_is_bit_for_bit_the_run_that_has_it_off(app: App, tmp_path: Path, uninterrupted: Path):
    done = app(*SMALL, "epochs=6", "name=run", "noise_scale=true")
    assert done.returncode == 0, done.stderr
    row = rows(tmp_path / "runs/run")[-1]
    assert row["noise_scale"] is None or row["noise_scale"] > 0
    assert row["gradient_variance"] > 0 and len(row["noise_scale_layers"]) > 10
    without_noise(tmp_path / "runs/run")
    assert_same_run(uninterrupted, tmp_path / "runs/run")


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_on_several_processes_too_on_and_off_are_the_same(app: App, tmp_path: Path, processes: int):
    # an epoch in which each process has one micro-batch in a step, and one in which it has several
    first = 32 * processes
    growing = [f"batch.total={first}", f"batch.grow=[[0,{first}],[1,192]]", "epochs=2"]
    for name in ("on", "off"):
        chosen = [*SMALL, *growing, f"name={name}", f"nproc={processes}"]
        done = app(*chosen, f"noise_scale={str(name == 'on').lower()}")
        assert done.returncode == 0, done.stderr
    without_noise(tmp_path / "runs/on")
    assert_same_run(tmp_path / "runs/on", tmp_path / "runs/off")


def test_a_run_that_was_stopped_within_an_epoch_has_the_same_figures(tmp_path: Path):
    for name, stops in (("whole", ()), ("stopped", (3, 6))):
        for stop in (*(f"max_steps={stop}" for stop in stops), "max_steps=null"):
            train_here(tmp_path / name, *SMALL, "epochs=2", "noise_scale=true", stop)
    assert_same_run(tmp_path / "whole/run", tmp_path / "stopped/run")


def test_a_run_that_was_stopped_in_an_evaluation_has_the_same_figures(tmp_path: Path):
    train_here(tmp_path / "whole", *SMALL, "epochs=2", "noise_scale=true")
    with mock.patch.object(Evaluation, "__call__", side_effect=StopRequested), pytest.raises(Stopped):
        train_here(tmp_path / "stopped", *SMALL, "epochs=2", "noise_scale=true")
    train_here(tmp_path / "stopped", *SMALL, "epochs=2", "noise_scale=true")
    assert_same_run(tmp_path / "whole/run", tmp_path / "stopped/run")


def test_it_is_on_the_board_for_the_network_and_each_layer(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train_here(tmp_path, *SMALL, "epochs=2", "noise_scale=true")
    board = EventAccumulator(str(run / "tb")).Reload()
    (row, _) = rows(run)
    known = {f"noise_scale/{name}": scale for name, scale in row["noise_scale_layers"].items()}
    known |= {key: row[key] for key in ("noise_scale", "noise_scale_lars")}
    for tag, value in known.items():
        if value is not None:
            assert board.Scalars(tag)[0].value == pytest.approx(value, rel=1e-3)
            assert board.Scalars(tag)[0].step == row["images"]


def test_where_lars_adapts_nothing_that_is_trained_only_the_plain_scale_is_measured(tmp_path: Path):
    adapts = ["optimizer=lars", "optimizer.exclude_norm_and_bias=true", "train_only=fc.bias"]
    run = train_here(tmp_path, *SMALL, *adapts, "epochs=1", "noise_scale=true")
    assert rows(run)[0].keys() & {"noise_scale", "noise_scale_lars"} == {"noise_scale"}


def test_a_step_of_one_micro_batch_is_refused_in_one_line(app: App):
    with pytest.raises(UserError, match="a batch of 32 is one of batch.micro=32: give a smaller batch.micro"):
        compose("batch=256", "noise_scale=true")
    done = app("batch=256", "noise_scale=true")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    compose("batch=256", "batch.micro=16", "noise_scale=true")


class Bytes(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if nothing were ever fused or cached, and their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.calls += 1
            self.moved += sum(t.nbytes for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        return out


def costs(on: bool, count: int) -> tuple[int, int, int]:
    """Bytes, operations and floating-point operations of a step of ResNet-50 at 224 pixels, counted without numbers."""
    from torchvision.models import resnet50

    device = torch.device("meta")
    with device:
        model, batch = resnet50(), (torch.empty(64, 3, 224, 224), torch.empty(64, dtype=torch.int64))
    noise = NoiseScale(model, World(), 64) if on else None
    step = connected(model, count, "meta", noise=noise)
    with Bytes() as moved, FlopCounterMode(display=False) as computed:
        step([batch] * count, lr=0.0)
    return moved.moved, moved.calls, computed.get_total_flops()


def test_at_8_micro_batches_resnet50_moves_less_than_1_percent_more_bytes_and_never_waits():
    """Meta tensors have no values: whatever would read one on the host raises."""
    (on, on_calls, flops), (off, off_calls, same) = costs(True, 8), costs(False, 8)
    # 2 operations for each of 25.6 million parameters, in each micro-batch and once more; torch counts none of them
    norms = 9 * 2 * 25_557_032
    assert flops == same and norms < 1e-4 * flops
    assert 0 < on - off < 0.01 * off, (on - off) / off
    # a few multi-tensor calls for each micro-batch
    assert on_calls - off_calls < 0.015 * off_calls, (on_calls - off_calls) / off_calls


def test_a_smaller_network_pays_more_and_still_little():
    device, found = torch.device("meta"), []
    for on in (True, False):
        with device:
            model, batch = resnet8(64), (torch.empty(32, 3, 16, 16), torch.empty(32, dtype=torch.int64))
        with Bytes() as moved:
            noise = NoiseScale(model, World(), 32) if on else None
            connected(model, 8, "meta", noise=noise)([batch] * 8, lr=0.0)
        found.append(moved.moved)
    assert 1 < found[0] / found[1] < 1.01, found[0] / found[1]


def test_the_plan_of_a_step_gives_it_the_size_of_a_micro_batch():
    config = compose(*SMALL, "noise_scale=true")
    world, plan = World(), make_plan(config.batch, 1, 512, 1)
    step = app.connect_step(config, plan, world, app.build_model(config, 8, world))
    assert step.noise and step.noise._micro == 32
