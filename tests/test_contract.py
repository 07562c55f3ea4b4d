"""What other software relies on: files and keys, exit codes, TensorBoard tags, weights for torchvision."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers import MAIN, ROOT, SMALL, App, train_here


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    command = [sys.executable, str(MAIN), *SMALL, "epochs=2", "batch=256", "seed=7", "log.every_steps=2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (only,) = (folder / "runs").iterdir()
    return only


def test_the_name_says_what_ran(run: Path):
    assert run.name == (
        "fractals-resnet8-256-sgd-seed7-batch.total=128-data.classes=8"
        "-data.train_per_class=64-data.val_per_class=21-epochs=2-precision=fp32"
    )


def test_config_yaml_holds_effective_values(run: Path):
    c = OmegaConf.load(run / "config.yaml")
    assert (c.batch.total, c.batch.micro, c.optimizer.lr, c.seed, c.precision) == (128, 32, 0.1, 7, "fp32")
    assert "${" not in (run / "config.yaml").read_text()


def test_a_row_for_each_evaluation(run: Path):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["step"], r["images"]) for r in rows] == [(1, 4, 512), (2, 8, 1024)]
    for row in rows:
        assert row["train_loss"] > 0 and row["val_loss"] > 0 and row["images_per_second"] > 0
        assert 0 <= row["val_top1"] <= row["val_top5"] <= 100 and row["seconds"] > 0
    assert rows[-1]["lr"] == pytest.approx(0.1 * (1 - 7 / 8) ** 2)


def test_result_says_what_ran_where(run: Path):
    result = json.loads((run / "result.json").read_text())
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert result["last_top1"] == rows[-1]["val_top1"]
    assert result["best_top1"] == max(r["val_top1"] for r in rows)
    assert result["steps"] == 8 and result["parameters"] == 77_912 and len(result["data_fingerprint"]) == 64
    assert result["command"].startswith("python train/main.py data.classes=8") and "batch=256" in result["command"]
    assert {"versions", "hardware", "commit", "seconds"} <= result.keys() and "NOT ImageNet" in result["data"]


def test_tensorboard_has_every_curve_over_images_seen(run: Path):
    board = EventAccumulator(str(run / "tb")).Reload()
    assert set(board.Tags()["scalars"]) >= {
        "train/loss", "train/lr", "epoch", "images_per_second", "data/waiting_share",
        "validation/top1", "validation/top5", "validation/loss",
    }  # fmt: skip
    assert [e.step for e in board.Scalars("validation/top1")] == [512, 1024]
    assert [e.step for e in board.Scalars("train/loss")] == [256, 512, 768, 1024]
    # each with the lr of the step just taken: poly(2) from 0.1 over 8 steps
    rates = [e.value for e in board.Scalars("train/lr")]
    assert rates == pytest.approx([0.1 * (1 - step / 8) ** 2 for step in (1, 3, 5, 7)])
    assert "_hparams_/session_start_info" in board.summary_metadata


def test_tensorboard_has_every_layers_trust_ratio_and_norms(app: App, tmp_path: Path):
    app(*SMALL, "epochs=2", "log.layers_every_epochs=2", "name=run")
    board = EventAccumulator(str(tmp_path / "runs/run/tb")).Reload()
    for kind in ("trust_ratio", "weight_norm", "gradient_norm"):
        assert [e.step for e in board.Histograms(kind)] == [1024]
        layers = [tag for tag in board.Tags()["scalars"] if tag.startswith(f"{kind}/")]
        assert len(layers) == 29 and f"{kind}/block2.downsample.0.weight" in layers
    (ratio,), (w,), (g,) = (board.Scalars(f"{k}/conv1.weight") for k in ("trust_ratio", "weight_norm", "gradient_norm"))
    assert ratio.value == pytest.approx(0.001 * w.value / (g.value + 1e-4 * w.value), rel=1e-4)


def test_evaluate_prints_one_json_line_and_touches_no_run_folder(run: Path, app: App, tmp_path: Path):
    done = app(*SMALL, f"evaluate={run / 'weights.pt'}")
    scores = json.loads(done.stdout)
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert scores == {k: last[k] for k in ("val_top1", "val_top5", "val_loss")} | {"images": 168}
    assert not (tmp_path / "runs").exists()


def test_the_report_split_is_scored_once_training_has_ended_and_on_request(run: Path, app: App):
    result = json.loads((run / "result.json").read_text())
    scores = json.loads(app(*SMALL, f"evaluate={run / 'weights.pt'}", "data.split=report").stdout)
    assert (scores["val_top1"], scores["val_loss"]) == (result["report_top1"], result["report_loss"])
    assert scores["images"] == 8 * 3


def test_weights_that_are_not_finite_have_no_score(run: Path, app: App, tmp_path: Path):
    weights = torch.load(run / "weights.pt")
    torch.save({name: value * float("nan") for name, value in weights.items()}, tmp_path / "nan.pt")
    done = app(*SMALL, f"evaluate={tmp_path}/nan.pt")
    assert done.returncode == 2 and not done.stdout and "validation loss of nan" in done.stderr


def test_evaluate_takes_a_checkpoint_too(app: App, tmp_path: Path):
    run = train_here(tmp_path, *SMALL, "epochs=2", "max_steps=4")
    (checkpoint,) = (run / "checkpoints").glob("step-*.pt")
    row = json.loads((run / "log.jsonl").read_text())
    assert json.loads(app(*SMALL, f"evaluate={checkpoint}").stdout)["val_loss"] == row["val_loss"]


def test_a_run_stopped_within_an_epoch_says_how_fast_its_steps_were(app: App):
    said = app(*SMALL, "epochs=1", "max_steps=2").stdout
    assert re.search(r"^stopped at max_steps=2 at [\d,]+ images/s: .* can be resumed$", said, re.MULTILINE)


def test_cfg_job_prints_numbers(app: App):
    shown = OmegaConf.create(app("batch=8k", "optimizer=sgd", "--cfg", "job").stdout)
    assert (shown.batch.total, shown.optimizer.lr) == (1024, 0.8)
    assert "${" not in OmegaConf.to_yaml(shown)


def test_the_summary_says_that_this_is_not_imagenet_and_how_it_was_scaled(app: App):
    shape = ["data.classes=8", "data.train_per_class=128", "data.val_per_class=21"]
    said = app("batch=256", "optimizer=lars", "max_steps=1", "epochs=1", *shape).stdout
    assert "NOT ImageNet" in said and "preset 256 of 256 / 8: scaled down with the data" in said
    assert "not published" in said
    # ImageNet's 1,281,167 images are 1,251.1 times these 1,024
    assert "updates   32, each of 3.1 % of the training images" in said and "as many at batch 40,036" in said
    short = app("batch=8k", "max_steps=1", "epochs=1", *shape).stdout
    assert "THE RUN ENDS INSIDE THE WARM-UP" in short


def test_help_and_errors_come_without_importing_torch():
    code = "import sys, train.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_weights_load_into_torchvision(tmp_path: Path, app: App):
    done = app(*SMALL, "model=resnet50", "batch.total=8", "batch.micro=8", "data.train_per_class=1",
               "data.val_per_class=1", "epochs=1", "name=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    from torchvision.models import resnet50

    resnet50(num_classes=8).load_state_dict(torch.load(tmp_path / "runs/run/weights.pt", weights_only=True))
