"""Which finished runs become records of the ImageNet table, and which do not."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scripts import add_record, records
from scripts.reporting import tables
from train.config.compose import compose
from train.data.dataset import ILSVRC_2012
from train.errors import UserError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that a run of ``batch=8k`` on ImageNet would leave; its numbers are made up."""
    settings = compose("batch=8k", "data.root=/somewhere", "seed=3", "nproc=8", "precision=bf16")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(settings))))
    rows = [{"epoch": epoch, "val_top1": 0.8 * epoch} for epoch in range(1, 91)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = dict(zip(("train_images", "val_images", "classes"), ILSVRC_2012, strict=True))
    change(folder, last_top1=72.0, best_top1=72.0, commit="0" * 40, versions={"torch": "2"}, hardware={"cores": 1},
           command="python train/main.py", data_fingerprint="f", **counts)  # fmt: skip
    monkeypatch.setattr(add_record, "IMAGENET", tmp_path / "results")
    monkeypatch.setattr(add_record, "ROOT", tmp_path)
    monkeypatch.setattr(records, "IMAGENET", tmp_path / "results")
    return folder


def change(run: Path, **values: object) -> None:
    path = run / "result.json"
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def test_a_whole_run_of_a_preset_is_filed_and_shown(run: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    assert tables.imagenet("8k", "lars") == "not run yet"
    monkeypatch.setattr(sys, "argv", ["add_record.py", str(run)])
    assert add_record.main() == 0
    assert "filed as results/8k-lars-seed3" in capsys.readouterr().out
    assert tables.imagenet("8k", "lars") == "**72.00** (1)"
    assert tables.imagenet("16k", "lars") == "not run yet"


def test_the_rival_of_a_row_is_shown_once_there_is_a_record_of_it(run: Path):
    assert tables.imagenet_table().count("`8k`") == 1
    (run.parent / "results").mkdir()
    another_value(run, "optimizer.name", "sgd")
    run.rename(run.parent / "results" / "8k-sgd-seed3")
    assert "| `8k` | SGD | - | **72.00** (1) |" in tables.imagenet_table()


def another_value(run: Path, key: str, value: object) -> None:
    settings = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(settings, key, value)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(settings))


def every_second_epoch(run: Path) -> None:
    another_value(run, "evaluate_every", 2)
    path = run / "log.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1::2]))


def one_row_less(run: Path) -> None:
    path = run / "log.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: (run / "result.json").unlink(), "lacks result.json: give the folder of a finished run"),
        (lambda run: (run / "result.json").write_text('{"steps": '), "is damaged .*JSONDecodeError"),
        (lambda run: (run / "config.yaml").write_text(""), "is damaged .*KeyError"),
        (lambda run: another_value(run, "optimizer.lr", 13.0), "is no record of batch=8k: optimizer.lr=13.0, not 12.8"),
        (lambda run: another_value(run, "batch.micro", 128), "batch.micro=128, not 64"),
        (lambda run: change(run, train_images=1_281_166), "not .1281167, 50000, 1000."),
        (one_row_less, "89 evaluations, not one after each of 90 epochs"),
        (every_second_epoch, "no record of batch=8k: log.jsonl: 45 evaluations, not one after each of 90 epochs"),
        (lambda run: change(run, last_top1=75.0), "tell different top-1"),
        (lambda run: change(run, commit="0123-dirty"), "commit: 0123-dirty, where only a clean checkout"),
        (lambda run: change(run, resumed_by=["0123-dirty"]), "commit: 0123-dirty, where only a clean checkout"),
        (lambda run: change(run, hardware=None), "hardware: missing"),
        (lambda run: change(run, restarts=[{"diverged_at": 9}]), "restarts: 1, after which it went on with a lower lr"),
        (lambda run: another_value(run, "data.on_bad_image", "skip"), "data.on_bad_image=skip, not stop"),
    ],
)
def test_what_is_no_record_is_refused_with_the_reason(run: Path, harm, said):
    harm(run)
    with pytest.raises(UserError, match=said):
        add_record.check(run)


def test_records_may_be_of_a_pack_and_of_its_originals_but_not_of_other_images(run: Path):
    other = run.parent / "results" / "16k-lars-seed0" / "result.json"
    other.parent.mkdir(parents=True)
    for fingerprint in ("f", "f-0123"):
        other.write_text(json.dumps({"data_fingerprint": fingerprint}))
        assert add_record.check(run) == "8k-lars-seed3"
    other.write_text(json.dumps({"data_fingerprint": "e-0123"}))
    with pytest.raises(UserError, match="names or labels are not those of the records"):
        add_record.check(run)


def test_a_batch_that_the_table_does_not_publish_is_refused_in_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    another_value(run, "batch.preset", "4k")
    monkeypatch.setattr(sys, "argv", ["add_record.py", str(run)])
    assert add_record.main() == 2
    assert "recipe=torchlars has no published values for batch=4k" in capsys.readouterr().err
