"""What TensorBoard shows of a run: each thing once, whatever happened on the way."""

import csv
import io
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from scripts.matrix import ROWS
from scripts.reporting import boards
from tests.helpers import ROOT, SMALL, free_port, plan_for, train_here
from train.config.compose import compose
from train.data.kinds import open_data
from train.engine.mistakes import COUNT
from train.output.board import CHARTS, BoardLogger, opening
from train.output.pictures import grid
from train.processes.world import World


def board(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def pixels(board: EventAccumulator, tag: str) -> np.ndarray:
    (event,) = board.Images(tag)
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string))).astype(int)


def test_a_resumed_run_has_settings_layout_and_pictures_once(tmp_path: Path):
    train_here(tmp_path, *SMALL, "epochs=2", "batch=256", "max_steps=2")
    train_here(tmp_path, *SMALL, "epochs=2", "batch=256")
    folder = tmp_path / "run" / "tb"
    assert all(path.is_file() and path.stat().st_size < 500_000 for path in folder.iterdir())
    shown = board(folder)
    assert {tag: [e.step for e in shown.Images(tag)] for tag in shown.Tags()["images"]} == {
        "images/augmented": [128],
        "images/mistakes": [1024],
    }
    assert [e.step for e in shown.Scalars("validation/top1")] == [512, 1024]
    assert len(shown.Tensors("run/text_summary")) == 1
    (layout,) = shown.Tensors("custom_scalars__config__")
    written = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0])
    assert [category.title for category in written.category] == ["accuracy", "optimisation", "throughput"]
    # the charts are of tags that there are
    tags = {tag for charts in CHARTS.values() for _, (tag,) in charts.values() if "trust_ratio" not in tag}
    assert tags <= set(shown.Tags()["scalars"])
    # as the network saw them: the first images of the first step, moved, mirrored and normalised
    settings = compose(*SMALL, "batch=256")
    data = open_data(settings.data)
    loader, plan = data.make_loader(World(), settings.seed), plan_for(settings, data.train_images)
    first, other = (
        np.asarray(grid(loader.pixels(next(loader.training_batches(plan, 0, step))[0][:COUNT]))) for step in (0, 1)
    )
    picture = pixels(shown, "images/augmented")
    # JPEG takes off some of the noise
    assert np.abs(picture - first).mean() < 15 < np.abs(picture - other).mean()


def test_a_run_that_ends_at_its_top1_shows_the_mistakes_of_that_evaluation(tmp_path: Path):
    train_here(tmp_path, *SMALL, "epochs=2", "batch=256", "stop_at_top1=1")
    assert [e.step for e in board(tmp_path / "run" / "tb").Images("images/mistakes")] == [512]


def test_an_attempt_that_saved_nothing_leaves_nothing_behind(tmp_path: Path):
    pixels = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    for attempt in range(2):
        log = BoardLogger(tmp_path / "tb", 0, opening({"seed": 0}, f"attempt {attempt}"))
        log.scalars(10, {"train/loss": attempt})
        log.picture(10, "images/augmented", pixels)
        # back to the very beginning: settings stay, what came later is logged again
        log.rewind(0, 0)
        log.scalars(10, {"train/loss": attempt + 0.5})
        log.picture(10, "images/augmented", pixels)
        log.close(is_over=True)
    shown = board(tmp_path / "tb")
    assert [e.value for e in shown.Scalars("train/loss")] == [1.5]
    assert len(shown.Images("images/augmented")) == 1
    (about,) = shown.Tensors("run/text_summary")
    assert about.tensor_proto.string_val == [b"attempt 1"]


def test_committed_boards_show_what_the_records_say():
    names = set()
    for path in boards.boards():
        shown, record = board(path.parent), ROOT / "results/fractals/rows" / path.parent.name
        names.add(path.parent.name.rsplit("-", 1)[0])
        rows = [json.loads(line) for line in (record / "log.jsonl").read_text().splitlines()]
        assert [e.step for e in shown.Scalars("validation/top1")] == [row["images"] for row in rows]
        assert [e.value for e in shown.Scalars("validation/top1")] == pytest.approx([row["val_top1"] for row in rows])
        if (record / "layers.csv").exists():
            with open(record / "layers.csv", newline="") as file:
                ratios = [float(r["trust_ratio"]) for r in csv.DictReader(file) if r["layer"] == "fc.weight"]
            assert [e.value for e in shown.Scalars("trust_ratio/fc.weight")] == pytest.approx(ratios)
    assert names == {f"{preset}-{optimizer}" for preset, optimizer in ROWS}
    assert sum(path.stat().st_size for path in boards.FOLDER.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.slow
def test_a_browser_shows_the_charts_in_groups_and_the_runs_side_by_side():
    browsers = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium")
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(boards.FOLDER), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            with socket.socket() as s:
                if s.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.5)
        with browsers.sync_playwright() as p:
            page = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
            page.set_default_timeout(120_000)
            page.goto(f"http://localhost:{port}/#custom_scalars")
            for title in ("accuracy", "optimisation", "throughput", "top-1 (%)"):
                page.get_by_text(title, exact=True).first.wait_for()
            page.get_by_text("Matches (7)").first.wait_for()
            page.goto(f"http://localhost:{port}/#hparams")
            page.reload()
            for title in ("optimizer.lr", "32k-lars-seed0", "32k-sgd-seed0"):
                page.get_by_text(title, exact=True).first.wait_for()
    finally:
        server.terminate()
        server.wait()
