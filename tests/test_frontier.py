"""scripts/plan.py --from: what a run's noise scale says of other batches and numbers of GPUs."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.estimate import frontier
from scripts.estimate.cost import all_reduce_seconds
from scripts.estimate.machine import compose_machine
from tests.helpers import SMALL, script, train_here
from train.errors import UserError

# 400 steps of 4,000 images, with a median noise scale of 2,000; null is a large one
SCALES = [500.0, 1000.0, None, 1500.0, 2500.0, 9000.0]
GPU = "NVIDIA A100-SXM4-80GB"


def record(
    folder: Path,
    scales: Sequence[float | None] = SCALES,
    parameters: int = 1000,
    processes: int = 2,
    gpus: Sequence[str] = (GPU, GPU),
    variance_reduction: bool = False,
    **changes: object,
) -> Path:
    """The files of a finished run, as far as they are read; ``changes`` to each row of its log."""
    folder.mkdir()
    rows = [{"noise_scale": scale, "images_per_second": 2000.0, **changes} for scale in scales]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(
        "batch: {total: 4000, micro: 50, grow: null}\n"
        f"optimizer: {{variance_reduction: {str(variance_reduction).lower()}}}\n"
    )
    result = {"steps": 400, "last_top1": 70.0, "train_images": 40_000, "parameters": parameters,
              "hardware": {"processes": processes, "gpus": list(gpus)}}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_an_estimate_that_is_not_positive_counts_as_an_infinite_scale_in_the_median(tmp_path: Path):
    assert frontier.median_scale([3.0, None, 1.0]) == 3 and frontier.median_scale([2.0, None, 1.0, 4.0]) == 3
    assert frontier.median_scale([1.0, None]) == frontier.median_scale([None, 1.0, None]) == math.inf
    folder = record(tmp_path / "run")
    # the rows of a run that was resumed with noise_scale=false say nothing
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"images_per_second": 2000.0}\n' * 9)
    run = frontier.read(folder)
    assert (run.noise_scale, run.evaluations, run.infinite) == (2000, 6, 1)


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
    points = frontier.frontier(run, free)
    assert [(p.gpus, p.batch) for p in points if p.is_own] == [(2, 4000)]
    fastest = [p for p in points if not p.is_own]
    # 512 GPUs would have 25,600 of 40,000 images in a step, and 1,024 more than there are
    assert [p.gpus for p in fastest] == [2**n for n in range(10)] and all(p.batch == 50 * p.gpus for p in fastest)
    for p in points:
        images = 400 * 4000 / (1 + 4000 / 2000) * (1 + p.batch / 2000)
        assert (p.images, p.gpu_hours) == pytest.approx((images, images / 1000 / 3600))
        assert p.dollars == pytest.approx(2 * p.gpu_hours)
    assert all(a.hours > b.hours and a.gpu_hours < b.gpu_hours for a, b in zip(fastest, fastest[1:], strict=False))


@pytest.mark.parametrize(
    ("processes", "parameters"), [(1, 1000), (2, 1000), (8, 1000), (8, 25_000_000), (80, 25_000_000)]
)
@pytest.mark.parametrize("reduced", [False, True])
def test_the_runs_own_batch_on_its_own_processes_takes_the_time_that_was_measured(
    tmp_path: Path, processes: int, parameters: int, reduced: bool
):
    run = frontier.read(
        record(tmp_path / "run", processes=processes, parameters=parameters, variance_reduction=reduced)
    )
    machine = replace(compose_machine(), inside_us=100.0, between_us=100.0)
    (own,) = [p for p in frontier.frontier(run, machine) if p.is_own]
    assert (own.gpus, own.batch, own.steps) == (processes, 4000, pytest.approx(400))
    assert own.hours == pytest.approx(run.hours)
    alone = frontier.with_speed_of(run, machine).images_per_second
    # neither waiting nor a full machine's loss is in the speed of a single GPU
    assert alone == pytest.approx(2000) if processes == 1 else alone and alone > 1.01 * run.images_per_second


def test_the_squares_of_variance_reduction_are_waited_for_too(tmp_path: Path):
    plain, reduced = (
        frontier.read(record(tmp_path / str(on), parameters=25_000_000, variance_reduction=on)) for on in (False, True)
    )
    machine = replace(compose_machine(), images_per_second=1000.0)
    without, costs = (frontier._cost(run, machine, 16, 1) for run in (plain, reduced))
    # one flat all-reduce with what is waited for in any case, so that its hops count once
    longer = all_reduce_seconds(1e8, 16, machine) - all_reduce_seconds(0, 16, machine)
    assert costs.step_seconds - without.step_seconds == pytest.approx(longer) and longer > 0


def test_where_a_step_waits_for_gradients_the_fastest_batch_is_larger(tmp_path: Path):
    run = frontier.read(record(tmp_path / "run"))
    slow = replace(compose_machine(), inside_us=20_000.0)
    machine = frontier.with_speed_of(run, slow)
    for point in [p for p in frontier.frontier(run, slow) if not p.is_own][1:4]:
        assert point.batch > 50 * point.gpus
        for other in range(1, 40):
            assert frontier._point(run, machine, point.gpus, other).hours >= point.hours * (1 - 1e-9)


@pytest.mark.parametrize("override", [{"images_per_second": 1e300}, {"inside_gbs": 1e-300}])
def test_a_machine_of_absurd_speed_still_gets_a_plan(tmp_path: Path, override: dict[str, float]):
    run = frontier.read(record(tmp_path / "run"))
    machine = replace(compose_machine(), **{"images_per_second": 1000.0, **override})  # type: ignore[arg-type]
    assert all(1 <= point.batch <= run.train_images for point in frontier.frontier(run, machine))


def test_it_says_the_sentence_and_where_it_extrapolates(tmp_path: Path):
    folder = record(tmp_path / "run", noise_scale_lars=1500.0)
    done = script("plan", "--from", folder, "machine.dollars_per_hour=3", "--plot", tmp_path / "plot.png")
    assert done.returncode == 0, done.stderr
    assert "beyond about 2,000 images a step more GPUs mostly buy waste" in done.stdout
    assert "2,000 images, the median of 6 evaluations (500 to 9,000)" in done.stdout
    assert "in 1 it could not be told from infinity" in done.stdout
    assert "noise_scale_lars 1,500; not used below" in done.stdout
    assert (
        "images/s of one GPU; measured 2,000 on 2 processes; waiting for one another as on machine=a100" in done.stdout
    )
    assert "extrapolated: the run has measured 4,000 images a step on 2 processes" in done.stdout
    assert "more GPUs than 800 would not get a micro-batch of 50 images each" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" *\d+\*? ", line)]
    assert [row[:2] for row in rows if "*" not in row[0]] == [["2", "4,000"]]
    assert (tmp_path / "plot.png").exists() and (tmp_path / "plot.csv").read_text().startswith("gpus,batch,steps")


def test_processes_on_cpus_have_no_price_unless_it_is_given(tmp_path: Path):
    folder = record(tmp_path / "run", gpus=())
    for given, priced in ((), False), (("machine.gpus=[8]",), False), (("machine=a100",), True):
        done = script("plan", "--from", folder, *given)
        (row,) = re.findall(r"^ *2 +4,000 .*$", done.stdout, re.MULTILINE)
        assert row.endswith(" -") is not priced
    assert "processes  " in done.stdout and "images/s of one CPU process" in done.stdout and "GPUs" not in done.stdout
    assert "2,000 images a step more processes mostly buy waste" in done.stdout


def test_a_noise_scale_of_less_than_an_image_is_said_as_one():
    assert [frontier.rounded(images) for images in (0.01, 0.4, 1.6, 94.6, 2345.0)] == [1, 1, 2, 95, 2300]


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"scales": [500.0, None, None, None]}, (), "3 of 4 evaluations could not tell noise_scale from infinity"),
        ({"scales": [500.0, None]}, (), "train with more steps between evaluations (evaluate_every=N), or longer"),
        ({"images_per_second": None}, (), "has no images/s"),
        ({}, ("batch=32k",), "batch=32k: --from takes everything from the run"),
        ({}, ("machine.inside_us=1e7",), "machine=a100 waits longer for gradients than the 2e+03 ms of a step of run"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, changes: dict, overrides: tuple[str, ...], said: str):
    done = script("plan", "--from", record(tmp_path / "run", **changes), *overrides)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.jsonl", '{"images_per_second": 10}\n', "has no noise_scale in its log.jsonl: train it with noise"),
        ("log.jsonl", '{"noise_scale": 10', "log.jsonl, result.json or config.yaml is damaged (JSONDecodeError"),
        ("log.jsonl", '{"noise_scale": 10}\n', "is damaged (KeyError: 'images_per_second')"),
        ("result.json", '{"steps": 400}', "is damaged (KeyError: 'hardware')"),
        ("result.json", "", "is damaged (JSONDecodeError"),
        ("config.yaml", "batch: {", "is damaged (ParserError: while parsing a flow node"),
        ("config.yaml", "", "is damaged (ConfigAttributeError: "),
        ("result.json", None, "run has no result.json: give the folder of a finished run"),
        ("diverged.json", "{}", "run diverged: give the folder of a finished run"),
    ],
)  # fmt: skip
def test_a_folder_without_a_whole_and_finished_run_is_refused(tmp_path: Path, name: str, text: str | None, said: str):
    folder = record(tmp_path / "run")
    if name == "diverged.json" or text is None:
        (folder / "result.json").unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        frontier.read(folder)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_run_is_named(tmp_path: Path):
    done = script("plan", "--from", tmp_path / "typo")
    assert done.returncode == 2 and "typo has no result.json: give the folder of a finished run" in done.stderr


def test_it_reads_what_a_run_writes(tmp_path: Path):
    run = train_here(tmp_path, *SMALL, "epochs=2", "noise_scale=true", "optimizer=sgd", "optimizer.lr=0.01")
    read = frontier.read(run)
    assert (read.batch, read.micro, read.steps, read.processes) == (128, 32, 8, 1) and read.images_per_second > 0
