"""``mlperf_log=true``: MLPerf's own checkers accept the log of a real run, and refuse it once it is tampered with."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlperf_logging.compliance_checker import mlp_compliance
from mlperf_logging.mllog import mllog
from mlperf_logging.rcp_checker import rcp_checker

from train import app
from train.config.compose import compose
from train.errors import Diverged, UserError
from train.output.mlperf import MLPerfLogger
from train.processes.signals import StopRequest
from train.processes.world import World

pytest.importorskip("mlperf_logging", reason="needs the extra: pip install -e '.[mlperf]'")


# two classes of fractals that 100 steps tell apart, and what the closed division fixes for LARS
EASY = [
    "data.classes=2", "data.train_per_class=640", "data.val_per_class=42", "data.size=16", "batch.total=32",
    "batch.micro=32", "precision=fp32", "optimizer.lr=4", "optimizer.eps=0", "schedule.warmup_epochs=1",
    "schedule.origin=warmup", "schedule.end_lr=1e-4", "epochs=5", "name=run", "mlperf_log=true",
]  # fmt: skip


Event = dict


def train(folder: Path, *overrides: str) -> Path:
    app.train(compose(*EASY, f"runs_dir={folder}", *overrides), World(), StopRequest(), "test")
    return folder / "run/mlperf.log"


def events(path: Path) -> list[Event]:
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in path.read_text().splitlines()]


def write(path: Path, log: list[Event]) -> Path:
    path.write_text("".join(f":::MLLOG {json.dumps(event)}\n" for event in log))
    return path


def complies(path: Path) -> bool:
    checker = mlp_compliance.make_checker("training", "4.0.0", False, True)
    try:
        return mlp_compliance.main(str(path), "training_4.0.0/common.yaml", checker)[0]
    except FileNotFoundError:
        # how it refuses a benchmark or an optimizer that has no rules
        return False
    finally:
        mlp_compliance.enqueued_configs.clear()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of an uninterrupted run that reaches 75.9 % and goes on to its end."""
    return train(tmp_path_factory.mktemp("real"))


@pytest.fixture
def log(real: Path) -> list[Event]:
    return events(real)


def value(log: list[Event], key: str, new: object) -> None:
    for event in log:
        if event["key"] == key:
            event["value"] = new


def test_the_compliance_checker_accepts_the_log_of_a_real_run(log, tmp_path: Path):
    assert complies(write(tmp_path / "result_0.txt", log))


def without(key: str) -> Callable[[list[Event]], None]:
    def drop(log: list[Event]) -> None:
        log[:] = [event for event in log if event["key"] != key]

    return drop


def changed(key: str, new: object) -> Callable[[list[Event]], None]:
    return lambda log: value(log, key, new)


def first(log: list[Event], key: str) -> Event:
    return next(event for event in log if event["key"] == key)


TAMPERED = {
    "no run_stop": without("run_stop"),
    "no run_start": without("run_start"),
    "no init_stop": without("init_stop"),
    "no evaluation": without("eval_accuracy"),
    "no batch size": without("global_batch_size"),
    "no sample count": without("train_samples"),
    "top-1 below the target": changed("eval_accuracy", 0.7589),
    "another optimizer": changed("opt_name", "adam"),
    "poly(1)": changed("lars_opt_learning_rate_decay_poly_power", 1),
    "torchlars' eps": changed("lars_epsilon", 1e-8),
    "lr ends at 0": changed("lars_opt_end_learning_rate", 0.0),
    "weight decay off the grid": changed("lars_opt_weight_decay", 3e-4),
    "another benchmark": changed("submission_benchmark", "alexnet"),
    "no organisation": changed("submission_org", ""),
    "run_stop without a status": lambda log: first(log, "run_stop")["metadata"].pop("status"),
    "block without its length": lambda log: first(log, "block_start")["metadata"].pop("epoch_count"),
    "two batch sizes": lambda log: log.append({**first(log, "global_batch_size"), "value": 1}),
    "training before the end of init": lambda log: log.insert(0, log.pop(log.index(first(log, "run_start")))),
    "an hour of init": lambda log: first(log, "init_stop").update(time_ms=first(log, "init_start")["time_ms"] + 3.6e6),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_the_compliance_checker_refuses_a_log_that_was_tampered_with(tamper, log, tmp_path: Path):
    tamper(log)
    assert not complies(write(tmp_path / "result_0.txt", log))


def test_the_log_says_what_was_trained_and_stops_at_the_first_top1_at_the_target(real: Path):
    said = {event["key"]: event for event in events(real)}
    numbers = {
        "train_samples": 1280, "eval_samples": 84, "global_batch_size": 32, "gradient_accumulation_steps": 1,
        "model_bn_span": 32, "opt_name": "lars", "lars_opt_base_learning_rate": 4.0, "lars_epsilon": 0.0,
        "lars_opt_learning_rate_decay_steps": 160, "lars_opt_learning_rate_warmup_epochs": 1.0, "seed": 0,
    }  # fmt: skip
    assert {key: said[key]["value"] for key in numbers} == numbers
    assert said["model"]["value"] == "resnet8" and "NOT ImageNet" in said["data"]["value"]

    rows = [json.loads(line) for line in real.with_name("log.jsonl").read_text().splitlines()]
    reached = next(i for i, row in enumerate(rows) if row["val_top1"] >= 75.9)
    assert 0 < reached < len(rows) - 1 == 4
    accuracies = [event["value"] for event in events(real) if event["key"] == "eval_accuracy"]
    assert accuracies == [row["val_top1"] / 100 for row in rows[: reached + 1]]
    last = events(real)[-1]
    assert last["key"] == "run_stop" and last["metadata"]["status"] == "success"
    assert last["metadata"]["epoch_num"] == reached + 1


def story(path: Path) -> list[tuple]:
    return [(event["key"], event["value"], event["metadata"]) for event in events(path)]


def test_a_resumed_run_goes_on_in_its_log_as_if_nothing_had_been(real: Path, tmp_path: Path):
    run = train(tmp_path, "max_steps=50").parent
    begun = (run / "mlperf.log").read_text()
    shutil.copytree(run / "checkpoints", tmp_path / "kept")
    train(tmp_path, "max_steps=85")
    # as a kill does: what was logged after the last checkpoint is of steps that are taken again
    shutil.rmtree(run / "checkpoints")
    (tmp_path / "kept").rename(run / "checkpoints")
    with open(run / "mlperf.log", "a") as file:
        file.write(':::MLLOG {"half')
    assert story(train(tmp_path)) == story(real)
    assert (run / "mlperf.log").read_text().startswith(begun)


def test_a_block_has_as_many_epochs_as_there_are_to_the_next_evaluation(tmp_path: Path):
    for stop in ("max_steps=50", "epochs=5"):
        path = train(tmp_path, "evaluate_every=2", stop)
    log = events(path)
    reached = [event["metadata"]["epoch_num"] for event in log if event["key"] == "eval_accuracy"]
    blocks = [event["metadata"] for event in log if event["key"] == "block_start"]
    ends = [event["metadata"]["first_epoch_num"] for event in log if event["key"] == "block_stop"]
    expected = [(1, 2), (3, 2), (5, 1)][: len(reached)]
    assert [(block["first_epoch_num"], block["epoch_count"]) for block in blocks] == expected
    assert ends == [first for first, _ in expected] and reached == [2, 4, 5][: len(reached)] != []


def test_a_log_that_would_lack_the_runs_beginning_is_refused(tmp_path: Path):
    train(tmp_path, "max_steps=2", "mlperf_log=false")
    with pytest.raises(UserError, match="does not hold this run from its beginning: resume without mlperf_log=true"):
        train(tmp_path)


def test_a_run_that_ends_below_the_target_is_aborted_and_so_is_one_that_diverges(tmp_path: Path):
    ended = events(train(tmp_path / "low", "epochs=1"))
    assert [e["metadata"].get("status") for e in ended if e["key"] == "run_stop"] == ["aborted"]
    with pytest.raises(Diverged):
        train(tmp_path / "diverged", "optimizer.lr=1e30")
    assert events(tmp_path / "diverged/run/mlperf.log")[-1]["metadata"]["status"] == "aborted"


def test_after_a_step_back_with_a_lower_lr_the_log_is_closed(tmp_path: Path):
    path = train(tmp_path, "max_steps=4")
    log = MLPerfLogger(path, 0, {})
    log.rewind(0, 0)
    before = path.read_text()
    later = MLPerfLogger(path, 0, {})
    later.training(2, 2)
    later.row({"epoch": 2, "val_top1": 80.0})
    assert path.read_text() == before and '"status": "aborted"' in before


def test_lines_have_the_form_that_mllog_gives_them(real: Path):
    lines: list[str] = []
    logger = logging.getLogger("mllog_of_this_test")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    theirs = mllog.MLLogger(logger)
    theirs.start("block_start", metadata={"first_epoch_num": 1, "epoch_count": 1})
    theirs.event("seed", 0)
    theirs.end("block_stop", metadata={"first_epoch_num": 1})
    ours = {event["key"]: event for event in events(real)}
    for line in lines:
        event = json.loads(line.removeprefix(":::MLLOG "))
        mine = ours[event["key"]]
        assert list(mine) == list(event) and mine["event_type"] == event["event_type"]
        assert list(mine["metadata"]) == list(event["metadata"]) and mine["value"] == event["value"]
    assert all(line.startswith(":::MLLOG {") for line in real.read_text().splitlines())


@pytest.mark.parametrize(("batch", "mean"), [(4096, 40.0), (8192, 42.0), (32768, 56.0), (65536, 84.5)])
def test_the_convergence_checker_accepts_the_reference_mean_and_refuses_half_of_it(batch, mean, tmp_path: Path):
    """Synthetic logs, which say so: no run of these batches has been made. Means: rcps_resnet.json, ruleset 4.0.0."""
    for epochs in (mean, mean / 2):
        folder = tmp_path / str(epochs)
        folder.mkdir()
        for i in range(5):
            facts = {"submission_org": "SYNTHETIC, made by a test", "submission_benchmark": "resnet"}
            log = MLPerfLogger(folder / f"result_{i}.txt", None, {**facts, "global_batch_size": batch})
            log.training(1, epochs)
            log.evaluating(epochs)
            log.row({"epoch": epochs, "val_top1": 76.0})
        passed, said, _ = rcp_checker.check_directory(
            str(folder), "training", "4.0.0", False, False, rcp_pass="full_rcps"
        )
        assert said == "RCP found" and passed == (epochs == mean)
