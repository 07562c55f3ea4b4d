"""scripts/plan.py --from: what a run's noise scale says of other batches and numbers of GPUs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.estimate import frontier
from scripts.estimate.machine import compose_machine
from tests.helpers import SMALL, script, train_here

# 400 steps of 4,000 images, with a median noise scale of 2,000
SCALES = [500.0, 1000.0, None, 2000.0, 4000.0, 9000.0]


def record(folder: Path, **changes: object) -> Path:
    """The files of a finished run, as far as they are read."""
    folder.mkdir()
    rows = [{"noise_scale": scale, "images_per_second": 2000.0} for scale in SCALES]
    (folder / "log.jsonl").write_text("".join(json.dumps({**row, **changes}) + "\n" for row in rows))
    (folder / "config.yaml").write_text("batch: {total: 4000, micro: 50, grow: null}\n")
    result = {"steps": 400, "last_top1": 70.0, "train_images": 40_000, "parameters": 1000,
              "hardware": {"processes": 2}}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_steps_and_images_follow_the_curve_through_the_run(tmp_path: Path):
    run = frontier.read(record(tmp_path / "run"))
    assert run.noise_scale == 2000 and run.noise_range == (500, 9000) and run.images_per_second == 1000
    # S_min (1 + 2,000 / 4,000) = 400
    assert run.steps_at(4000) == pytest.approx(400) and run.steps_at(1e12) == pytest.approx(400 / 1.5)
    assert run.steps_at(2000) == pytest.approx(2 * 400 / 1.5)
    images = [run.steps_at(batch) * batch for batch in (1e-6, 2000)]
    assert images[1] == pytest.approx(2 * images[0])


def test_without_communication_small_batches_cost_least_and_large_ones_take_least_time(tmp_path: Path):
    run = frontier.read(record(tmp_path / "run"))
    free = replace(compose_machine(), inside_us=0.0, between_us=0.0, inside_gbs=1e9, between_gbs=1e9, fixed_ms=0.0,
                   machine_efficiency=1.0, dollars_per_hour=2.0)  # fmt: skip
    points = frontier.frontier(run, frontier.with_speed_of(run, free))
    # 512 GPUs would have 25,600 of 40,000 images in a step, and 1,024 more than there are
    assert [p.gpus for p in points] == [2**n for n in range(10)] and all(p.batch == 50 * p.gpus for p in points)
    for p in points:
        images = 400 * 4000 / (1 + 4000 / 2000) * (1 + p.batch / 2000)
        assert (p.images, p.gpu_hours) == pytest.approx((images, images / 1000 / 3600))
        assert p.dollars == pytest.approx(2 * p.gpu_hours)
    assert all(a.hours > b.hours and a.gpu_hours < b.gpu_hours for a, b in zip(points, points[1:], strict=False))


def test_where_a_step_waits_for_gradients_the_fastest_batch_is_larger(tmp_path: Path):
    run = frontier.read(record(tmp_path / "run"))
    slow = replace(compose_machine(), inside_us=20_000.0)
    machine = frontier.with_speed_of(run, slow)
    for point in frontier.frontier(run, machine)[1:4]:
        assert point.batch > 50 * point.gpus
        for other in range(1, 40):
            assert frontier._point(run, machine, point.gpus, other).hours >= point.hours * (1 - 1e-9)


def test_it_says_the_sentence_and_where_it_extrapolates(tmp_path: Path):
    folder = record(tmp_path / "run", noise_scale_lars=1500.0)
    done = script("plan", "--from", folder, "machine.dollars_per_hour=3", "--plot", tmp_path / "plot.png")
    assert done.returncode == 0, done.stderr
    assert "beyond about 2,000 images a step more GPUs mostly buy waste" in done.stdout
    assert "2,000 images, the median of 5 evaluations (500 to 9,000)" in done.stdout
    assert "none came out in 1 more" in done.stdout and "for steps of LARS 1,500; not used below" in done.stdout
    assert "extrapolated: the run has measured 4,000 images a step on 2 processes" in done.stdout
    assert "more GPUs than 512 would not get a micro-batch of 50 images each" in done.stdout
    assert (tmp_path / "plot.png").exists() and (tmp_path / "plot.csv").read_text().startswith("gpus,batch,steps")


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"noise_scale": None}, (), "has no noise scale in its log.jsonl: train it with noise_scale=true"),
        ({"images_per_second": None}, (), "has no images/s"),
        ({}, ("batch=32k",), "batch=32k: --from takes everything from the run"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, changes: dict, overrides: tuple[str, ...], said: str):
    done = script("plan", "--from", record(tmp_path / "run", **changes), *overrides)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_folder_without_a_finished_run_is_named(tmp_path: Path):
    done = script("plan", "--from", tmp_path)
    assert done.returncode == 2 and "give the folder of a finished run" in done.stderr


def test_it_reads_what_a_run_writes(tmp_path: Path):
    run = train_here(tmp_path, *SMALL, "epochs=2", "noise_scale=true", "optimizer=sgd", "optimizer.lr=0.01")
    read = frontier.read(run)
    assert (read.batch, read.micro, read.steps, read.processes) == (128, 32, 8, 1) and read.images_per_second > 0
