"""An evaluation: exact on any number of processes."""

from pathlib import Path

import pytest
import torch

from tests.helpers import build, spawn
from train.engine.evaluation import Evaluation
from train.engine.precision import Precision
from train.processes.world import World


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


def test_top1_and_top5_count_the_true_class_among_the_first_one_and_five():
    """Ten images of ten classes; the true class of image i has the i-th largest logit."""
    ranks = torch.arange(10)
    logits = torch.stack([torch.roll(10.0 - torch.arange(10), 3 - int(i)) for i in ranks])
    labels = torch.full((10,), 3)
    model = torch.nn.Identity()
    evaluation = Evaluation(model, World(), Precision(torch.device("cpu")))
    scores = evaluation([(logits[:4], labels[:4]), (logits[4:4], labels[4:4]), (logits[4:], labels[4:])])
    assert (scores.top1, scores.top5, scores.images) == (10.0, 50.0, 10)
    expected = torch.nn.functional.cross_entropy(logits.double(), labels)
    assert scores.loss == pytest.approx(expected.item(), rel=1e-6)


def test_with_fewer_than_five_classes_every_image_is_in_the_top_five():
    logits, labels = torch.eye(3), torch.tensor([0, 1, 0])
    scores = Evaluation(torch.nn.Identity(), World(), Precision(torch.device("cpu")))([(logits, labels)])
    assert scores.top5 == 100 and scores.top1 == pytest.approx(200 / 3)
