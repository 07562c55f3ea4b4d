"""The moving average of the weights: torch's formula, evaluated, kept and resumed."""

from pathlib import Path

import torch

from tests.helpers import SMALL, assert_same_run, build, rows, train_here
from train import app
from train.config.compose import compose
from train.engine.ema import MovingAverage
from train.output import checkpoint
from train.processes.signals import StopRequest
from train.processes.world import World
from train.resnet import resnet8


def test_the_average_is_torchs_ema():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = resnet8(4)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # its first update copies
    ours = MovingAverage(model, 0.9)
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
        app.train(compose(*small, *chosen, f"runs_dir={tmp_path / folder}", *overrides), World(), StopRequest(), "")
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


def test_the_average_follows_each_step_once(tmp_path):
    run = train_here(tmp_path, *SMALL, "batch=256", "ema=0.75", "max_steps=1", "epochs=1")
    state = checkpoint.load(checkpoint.newest_first(run / "checkpoints")[0])
    _, data, _, initial, _ = build(0, 1, 0, "batch=256")
    for name, w in initial.state_dict().items():
        if w.is_floating_point():
            expected = 0.75 * w + 0.25 * state["model"][name]
            torch.testing.assert_close(state["average"][name], expected, rtol=1e-5, atol=1e-6)
