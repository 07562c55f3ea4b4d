"""``layers.csv``: figures of every layer, written once for each step or epoch, whatever happened on the way."""

import csv
from pathlib import Path

import pytest
import torch

from tests.helpers import SMALL, train_here
from train.output.layers import LayersLogger

RUN = [*SMALL, "batch=32k", "epochs=2"]


def read(run: Path) -> list[dict[str, str]]:
    with open(run / "layers.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_layer_has_its_trust_ratio_and_norms_after_every_step_that_is_asked_for(tmp_path: Path):
    rows = read(train_here(tmp_path, *RUN, "log.layers_every_steps=3", "log.layers_every_epochs=0"))
    assert [(row["step"], row["images"]) for row in rows[::29]] == [("3", "384"), ("6", "768")] and len(rows) == 58
    assert list(rows[0]) == ["step", "images", "layer", "trust_ratio", "weight_norm", "gradient_norm"]
    assert {rows[0]["layer"], rows[28]["layer"]} == {"conv1.weight", "fc.bias"}
    for row in rows:
        ratio, w, g = (float(row[key]) for key in ("trust_ratio", "weight_norm", "gradient_norm"))
        assert ratio == pytest.approx(0.001 * w / (g + 1e-4 * w + 1e-8) if w and g else 1, rel=1e-4), row["layer"]


def test_a_resumed_run_has_the_layers_of_an_uninterrupted_one(tmp_path: Path):
    every = ["log.layers_every_steps=1", "log.layers_every_epochs=2"]
    whole = train_here(tmp_path / "whole", *RUN, *every)
    for stop in (3, 5):
        train_here(tmp_path / "parts", *RUN, *every, f"max_steps={stop}")
    parts = train_here(tmp_path / "parts", *RUN, *every)
    assert (parts / "layers.csv").read_text() == (whole / "layers.csv").read_text()


def test_what_a_killed_attempt_logged_after_its_last_checkpoint_is_dropped(tmp_path: Path):
    path = tmp_path / "layers.csv"
    logger = LayersLogger(path, 0)
    for step in (1, 2, 3):
        logger.layers(step, 100 * step, ["a", "b"], {"trust_ratio": torch.tensor([0.5, 0.25])})
    with open(path, "a") as file:
        file.write("4,40")
    LayersLogger(path, 200)
    assert [row["step"] for row in read(tmp_path)] == ["1", "1", "2", "2"]
    LayersLogger(path, 0)
    assert path.read_text() == "step,images,layer,trust_ratio\n"


@pytest.mark.parametrize("left", ["", "step,im"])
def test_a_header_that_a_full_disk_cut_short_is_written_anew(tmp_path: Path, left: str):
    path = tmp_path / "layers.csv"
    path.write_text(left)
    LayersLogger(path, 0).layers(1, 100, ["a"], {"trust_ratio": torch.tensor([0.5])})
    assert path.read_text() == "step,images,layer,trust_ratio\n1,100,a,0.5\n"


def test_sgd_measures_no_layers_and_leaves_no_file(tmp_path: Path):
    run = train_here(tmp_path, *SMALL, "batch=256", "epochs=1", "log.layers_every_steps=1")
    assert not (run / "layers.csv").exists()
