"""LARS in the hands of other libraries; each test is skipped where its library is not installed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lars import LARS, LarsSGD, split_parameters
from lars.tests.reference import assert_equal, stepped, tensors

BATCHES = [torch.randn(8, 6, generator=torch.Generator().manual_seed(i)) for i in range(8)]


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))


def made(net: torch.nn.Module) -> LarsSGD:
    return LarsSGD(split_parameters(net, 1e-2), lr=5.0, momentum=0.9)


def by_hand(accumulate: int = 1, clip: float | None = None) -> list[Tensor]:
    """The weights after ``BATCHES``, with lr halved after each step."""
    net = model()
    optimizer = made(net)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for i, x in enumerate(BATCHES):
        (net(x).square().mean() / accumulate).backward()
        if (i + 1) % accumulate == 0:
            if clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return [p.detach() for p in net.parameters()]


def assert_close(ours: Any, theirs: list[Tensor]) -> None:
    for a, b, start in zip(ours, theirs, model().parameters(), strict=True):
        assert not torch.equal(b, start)
        torch.testing.assert_close(a.detach(), b, rtol=1e-6, atol=1e-7)


def test_a_lightning_trainer_with_a_scheduler_clipping_and_a_checkpoint(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="pip install lightning")

    class Module(lightning.LightningModule):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = model()

        def training_step(self, batch: Tensor, _: int) -> Tensor:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> Any:
            optimizer = made(self.net)
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def fit(steps: int, **options: Any) -> tuple[Module, Any]:
        module = Module()
        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, gradient_clip_val=0.1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(BATCHES, batch_size=None), **options)
        return module, trainer

    whole, trainer = fit(8)
    assert_close(whole.net.parameters(), by_hand(clip=0.1))
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    again, trainer = fit(8, ckpt_path=tmp_path / "whole.ckpt")
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(5.0 * 0.5**8)
    assert [g["lars"] for g in trainer.optimizers[0].param_groups] == [True, False]
    assert_equal(list(whole.parameters()), list(again.parameters()))


def test_accelerate_accumulates_and_steps_as_by_hand():
    accelerate = pytest.importorskip("accelerate", reason="pip install accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = model()
    optimizer = made(net)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    net, optimizer, scheduler = accelerator.prepare(net, optimizer, scheduler)
    for x in BATCHES:
        with accelerator.accumulate(net):
            accelerator.backward(net(x).square().mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert_close(net.parameters(), by_hand(accumulate=2))


@pytest.mark.parametrize("name", ["CosineLRScheduler", "PolyLRScheduler", "StepLRScheduler"])
def test_a_scheduler_of_timm_drives_it_as_it_drives_sgd(name):
    schedulers = pytest.importorskip("timm.scheduler", reason="pip install timm")
    options = {"decay_t": 2} if name == "StepLRScheduler" else {"t_initial": 6}
    rates = []
    for make in (torch.optim.SGD, LarsSGD):
        params = tensors()
        optimizer = make(params, lr=1.0, momentum=0.9)
        scheduler = getattr(schedulers, name)(optimizer, warmup_t=2, warmup_lr_init=0.1, t_in_epochs=False, **options)
        rates.append([])
        for step in range(6):
            stepped(optimizer, params, 1, step)
            scheduler.step_update(step)
            rates[-1].append(optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1] and len(set(rates[0])) > 2


def test_timm_makes_it_from_its_registry_with_its_own_groups():
    optim = pytest.importorskip("timm.optim", reason="pip install timm")
    registry = pytest.importorskip("timm.optim._optim_factory").default_registry
    registry.register(optim.OptimInfo("larssgd", LarsSGD, has_momentum=True))
    net = model()
    optimizer = optim.create_optimizer_v2(
        net, opt="larssgd", lr=5.0, weight_decay=1e-2, momentum=0.9, skip_without_decay=True
    )
    assert type(optimizer) is LarsSGD and sorted(g["weight_decay"] for g in optimizer.param_groups) == [0.0, 1e-2]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for x in BATCHES:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
    assert_close(net.parameters(), by_hand())


def test_an_average_of_the_weights_is_taken_and_its_learning_rate_kept():
    swa = torch.optim.swa_utils
    net = model()
    optimizer = made(net)
    average, scheduler = swa.AveragedModel(net), swa.SWALR(optimizer, swa_lr=0.5, anneal_epochs=4)
    seen = []
    for x in BATCHES:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
        average.update_parameters(net)
        seen.append([p.detach().clone() for p in net.parameters()])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    means = [torch.stack(each).mean(0) for each in zip(*seen, strict=True)]
    for a, b in zip(average.module.parameters(), means, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-5, atol=1e-6)


def test_a_wrapper_and_the_class_are_the_same_optimizer():
    ends = []
    for make in (lambda p: LARS(torch.optim.SGD(p, lr=5.0, momentum=0.9, weight_decay=0.01)),
                 lambda p: LarsSGD(p, lr=5.0, momentum=0.9, weight_decay=0.01)):  # fmt: skip
        params = tensors()
        stepped(make(params), params)
        ends.append(params)
    assert_equal(*ends)
