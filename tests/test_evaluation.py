"""An evaluation: exact on any number of processes."""

from pathlib import Path

import pytest
import torch

from tests.helpers import build, spawn
from train.engine.evaluation import Evaluation
from train.engine.precision import Precision


def score(rank: int, size: int, port: int, out: Path) -> None:
    """One evaluation of an untrained network over 160 images, which three processes do not divide."""
    world, data, plan, model, settings = build(rank, size, port, "batch.total=96", "data.val_per_class=20")
    loader_ = data.make_loader(world, settings.seed)
    scores = Evaluation(model, world, Precision(world.device))(loader_.validation_batches())
    torch.save(vars(scores), out / f"{size}-{rank}.pt")
    world.leave()


def test_evaluation_counts_every_image_once_when_processes_do_not_divide_them(tmp_path):
    for size in (1, 3):
        spawn(score, size, tmp_path)
    one, three = (torch.load(tmp_path / f"{size}-0.pt") for size in (1, 3))
    assert one["images"] == three["images"] == 160
    assert one == pytest.approx(three, rel=1e-5)
