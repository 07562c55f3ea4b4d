"""The second look at the evidence, which shares no code with the report."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.command import exit_with
from scripts.verification import accuracy, manifest, reference, rerun, runs, tables
from tests.helpers import ROOT
from train.errors import UserError


def test_every_record_and_every_table_holds():
    assert [*manifest.faults(), *runs.faults(), *tables.faults()] == []


def verified(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/verify.py", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    left_out = shutil.ignore_patterns("__pycache__", "tb", "*.png")
    for part in ("configs", "docs", "lars", "results", "scripts", "train"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=left_out)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize("name", ["verify", "report"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name: str):
    code = f"import runpy, sys; sys.modules['scipy'] = None; runpy.run_path('scripts/{name}.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2, f"error: scripts/{name}.py needs scipy: pip install -e '.[report]'\n"
    )  # fmt: skip


def test_one_digit_of_a_log_a_configuration_or_a_table_is_found(copy: Path):
    record = copy / "results" / "fractals-v1" / "rows" / "32k-lars-seed0"
    top1 = json.loads((record / "log.jsonl").read_text().splitlines()[-1])["val_top1"]
    change(record / "log.jsonl", f'"val_top1": {top1}', f'"val_top1": {top1 + 1}')
    change(copy / "results" / "fractals-v1" / "rows" / "8k-lars-seed1" / "config.yaml", "lr: 12.8", "lr: 12.9")
    change(copy / "results/fractals-v1/README.md", "| `8k` | SGD | 0.8 | 3 | 95.50", "| `8k` | SGD | 0.8 | 3 | 95.51")
    change(copy / "README.md", "| 73.78 |", "| 73.79 |")
    done = verified(copy)
    assert done.returncode == 1
    for said in (
        "32k-lars-seed0/log.jsonl: changed since",
        "32k-lars-seed0: result.json and log.jsonl tell different top-1",
        "8k-lars-seed1/config.yaml: changed since",
        "results/fractals-v1/README.md, table 'rows', row '8k': shows '95.51 ± 0.06', the logs give '95.50 ± 0.06'",
        "README.md, table 'table', row '8k': shows '73.79', the logs give '73.78'",
    ):
        assert said in done.stderr, said


def test_one_digit_of_every_table_and_of_every_plot_is_found(copy: Path, monkeypatch: pytest.MonkeyPatch):
    def change_last_digit(text: str) -> str:
        return re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), text)

    monkeypatch.setattr(manifest, "ROOT", copy)
    monkeypatch.setattr(manifest, "RESULTS", copy / "results")
    tables, plots = list(manifest.of_tables()), list((copy / "results" / "plots").glob("*.csv"))
    for path in {copy / name.partition(",")[0] for name in tables}:
        between = r"(?<=-->\n)((?!<!--).)*?(?=\n<!-- /)"
        path.write_text(re.sub(between, lambda table: change_last_digit(table[0]), path.read_text(), flags=re.DOTALL))
    for path in plots:
        path.write_text(change_last_digit(path.read_text()))
    changed = [*tables, *(f"results/plots/{path.name}" for path in plots)]
    assert len(changed) > 50
    assert sorted(manifest.faults()) == sorted(f"{name}: changed since the manifest was written" for name in changed)


def test_a_row_that_was_deleted_is_found(monkeypatch: pytest.MonkeyPatch):
    of_page = list(tables.shown("results/README.md", "fractals rows"))
    monkeypatch.setattr(tables, "TABLES", {("results/README.md", "fractals rows"): accuracy.rows})
    monkeypatch.setattr(tables, "shown", lambda page, name: of_page[:-1])
    (fault,) = tables.faults()
    assert "its rows are not" in fault


def test_a_command_that_its_configuration_does_not_follow_is_found():
    config = {"batch": {"preset": "32k"}, "optimizer": {"name": "lars", "lr": 29.0}, "seed": 1, "ema": 0.8}
    assert runs.of_command("python train/main.py batch=32k optimizer=lars optimizer.lr=29 seed=1 ema=0.8", config) == []
    assert runs.of_command("python train/main.py batch=16k optimizer.lr=30 seed=1", config) == [
        "the command has batch=16k, the configuration 32k", "the command has optimizer.lr=30, the configuration 29.0",
    ]  # fmt: skip
    growing = {"batch": {"grow": [[0, 1024], [15, 4096]]}}
    assert runs.of_command("python train/main.py 'batch.grow=[[0,1024],[15,4096]]'", growing) == []
    assert runs.of_command("python train/main.py 'batch.grow=[[0,1024],[15,2048]]'", growing) != []


def test_a_prediction_interval_is_that_of_a_textbook():
    # 99 %, t with 4 degrees of freedom is 4.604
    half = 4.60409 * (2.5 * (1 + 1 / 5)) ** 0.5
    assert reference.predicted([1, 2, 3, 4, 5]) == pytest.approx((3 - half, 3 + half), abs=1e-4)


def test_a_folder_that_is_no_finished_run_is_refused_in_one_line(tmp_path: Path):
    done = verified(ROOT, str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "finished run" in done.stderr


def seeded(folder: Path, seed: int, top1: float, **changed: object) -> Path:
    run = folder / f"32k-lars-seed{seed}"
    run.mkdir(parents=True)
    config = {"seed": seed, "epochs": 90, "optimizer": {"name": "lars", "lr": 29.0}, **changed}
    (run / "config.yaml").write_text(json.dumps(config))
    (run / "log.jsonl").write_text("")
    fingerprint = runs.FINGERPRINTS["fractals"]
    (run / "result.json").write_text(json.dumps({"last_top1": top1, "data_fingerprint": fingerprint}))
    return run


def test_a_checkout_that_cannot_be_written_ends_in_one_line(capsys: pytest.CaptureFixture):
    def main() -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "results/manifest.sha256")

    with pytest.raises(SystemExit, match="2"):
        exit_with(main)
    assert capsys.readouterr().err == "error: results/manifest.sha256: Read-only file system\n"


def test_a_run_is_judged_by_the_seeds_of_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reference, "FRACTALS", tmp_path)
    for seed, top1 in enumerate((80.0, 80.5, 81.0)):
        seeded(tmp_path / "rows", seed, top1)
    holds, line = reference.judge(seeded(tmp_path / "good", 7, 80.2))
    assert holds and line.startswith("as it should be: 80.20 %")
    holds, line = reference.judge(seeded(tmp_path / "bad", 7, 60.0))
    assert not holds and "NOT" in line and "\n" not in line
    with pytest.raises(UserError, match="no record has its settings"):
        reference.judge(seeded(tmp_path / "other", 7, 80.2, epochs=30))


def test_a_row_whose_seeds_end_far_apart_is_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reference, "FRACTALS", tmp_path)
    for seed, top1 in enumerate((58.2, 73.9, 72.0)):
        seeded(tmp_path / "rows", seed, top1)
    with pytest.raises(UserError, match=r"no useful reference: 3 seeds of 32k-lars had 58\.20 to 73\.90 %"):
        reference.judge(seeded(tmp_path / "mine", 7, 40.0))


def to_target(folder: Path, name: str, seed: int, steps: int, reached: float | None = 75.0) -> Path:
    run = folder / f"{name}-seed{seed}"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(json.dumps({"seed": seed, "optimizer": {"lr": 4.0}, "batch": {"total": name}}))
    (run / "log.jsonl").write_text("")
    result = {"steps": steps, "reached_top1": reached, "data_fingerprint": runs.FINGERPRINTS["fractals"]}
    (run / "result.json").write_text(json.dumps(result))
    return run


def test_a_run_to_the_target_is_judged_by_its_steps_and_the_relative_spread_of_all_points(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FRACTALS", tmp_path)
    for name, steps in {"64-sgd-lr4": (4800, 5120, 4800), "1024-sgd-lr4": (420, 440, 460)}.items():
        for seed, of_seed in enumerate(steps):
            to_target(tmp_path / "target", name, seed, of_seed)
    holds, line = reference.judge(to_target(tmp_path / "good", "1024-sgd-lr4", 7, 430))
    # 4 degrees of freedom have a t of 4.604; the spread of the logarithms is 0.0416
    assert holds and "430 steps to the target; 3 seeds of 1024-sgd-lr4 took 420 to 460, so 352 to 548 are" in line
    assert not reference.judge(to_target(tmp_path / "slow", "1024-sgd-lr4", 7, 560))[0]
    holds, line = reference.judge(to_target(tmp_path / "missed", "1024-sgd-lr4", 7, 430, None))
    assert not holds and "the target was missed" in line


def test_a_rerun_goes_to_the_first_evaluation_after_two_epochs():
    every_third = [{"epoch": epoch, "step": 5 * epoch} for epoch in (3, 6, 9)]
    assert rerun.first_rows(every_third) == every_third[:1]
    assert rerun.first_rows([{"epoch": epoch} for epoch in (1, 2, 3)]) == [{"epoch": 1}, {"epoch": 2}]


def test_a_run_of_a_later_version_is_judged_unless_what_that_added_is_on(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FRACTALS", tmp_path)
    for seed, top1 in enumerate((80.0, 80.5, 81.0)):
        seeded(tmp_path / "rows", seed, top1)
    lars = {"name": "lars", "lr": 29.0, "variance_reduction": False, "variance_groups": None}
    assert reference.judge(seeded(tmp_path / "off", 7, 80.2, optimizer=lars, train_only=None))[0]
    on = ({"optimizer": lars | {"variance_reduction": True}}, {"optimizer": lars | {"name": "x"}}, {"train_only": "fc"})
    for i, changed in enumerate(on):
        with pytest.raises(UserError, match="no record has its settings"):
            reference.judge(seeded(tmp_path / f"on{i}", 7, 80.2, **changed))
