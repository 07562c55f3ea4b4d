"""What 0.1 wrote: its runs resume, its checkpoints evaluate, its pickled optimizers load."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from lars import LARS
from tests.helpers import App, rows
from train.output import checkpoint

V01 = Path(__file__).parent / "fixtures" / "v0.1"
# on 0.1's own images, which another formula drew, at the sizes that were its defaults
SETTINGS = [
    f"data.root={V01 / 'fractals'}", "data=fractals", "data.size=32", "data.micro=512",
    "batch=32k", "data.classes=4", "data.train_per_class=16", "data.val_per_class=5", "batch.total=16", "batch.micro=8",
    "precision=fp32", "epochs=3", "optimizer.momentum_form=caffe", "optimizer.lr=5", "name=run",
]  # fmt: skip


def assert_close(a: list[dict], b: list[dict]) -> None:
    """The same rows, as closely as two CPUs compute them."""
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one == pytest.approx(other, rel=2e-3)


def test_a_run_of_0_1_is_resumed_within_its_epoch_and_ends_as_0_1_ended_it(app: App, tmp_path: Path):
    shutil.copytree(V01 / "run", tmp_path / "runs/run")
    done = app(*SETTINGS)
    assert done.returncode == 0 and "after step 6" in done.stdout, done.stderr
    # nobody knows which commit began it
    assert json.loads((tmp_path / "runs/run/result.json").read_text())["commit"] is None
    shutil.copy(V01 / "finished.jsonl", tmp_path / "log.jsonl")
    assert_close(rows(tmp_path / "runs/run"), rows(tmp_path))


def test_another_value_is_still_refused_on_a_run_of_0_1(app: App, tmp_path: Path):
    shutil.copytree(V01 / "run", tmp_path / "runs/run")
    refused = app(*SETTINGS, "ema=0.5")
    assert refused.returncode == 2 and "ema was 0.0, now 0.5" in refused.stderr and "plan." not in refused.stderr


def test_a_checkpoint_of_0_1_is_evaluated(app: App):
    (path,) = (V01 / "run/checkpoints").glob("*.pt")
    done = app(*SETTINGS, f"evaluate={path}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 20
    assert checkpoint.load(path)["position"]["step"] == 6


@pytest.mark.parametrize("name", ["default", "caffe", "nus"])
def test_an_optimizer_pickled_by_0_1_goes_on_as_there(name: str):
    pickled, ends = pickle.loads((V01 / "optimizers.pkl").read_bytes())[name]
    optimizer = pickle.loads(pickled)
    assert isinstance(optimizer, LARS)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(3):
        generator = torch.Generator().manual_seed(100 + step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    for p, end in zip(params, ends, strict=True):
        torch.testing.assert_close(p.detach(), torch.tensor(end), rtol=1e-5, atol=1e-6)
    again = pickle.loads(pickle.dumps(optimizer))
    assert again.variant == optimizer.variant
    expected = {"default": ("paper", "torch"), "caffe": ("decayed", "caffe"), "nus": ("paper", "nus")}[name]
    assert (again.variant.ratio, again.variant.momentum_form) == expected
