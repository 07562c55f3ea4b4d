"""What a user in a hurry types: each mistake ends in one line that names the value and the fix, exit code 2."""

import contextlib
import functools
import io
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import SMALL, App
from train.config import foreign
from train.config.compose import compose
from train.config.groups import GROUPS
from train.config.refusals import MISTAKES, explain, known_keys
from train.keys import values


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["batch=48k"], ["recipe=torchlars has no published values for batch=48k", "choose batch=256|8k|16k|32k"]),
        (
            ["batch=12k"],
            ["batch=12k does not exist", "batch=128|256|512|1k|4k|8k|16k|20k|32k|40k|48k|56k|64k", "batch.total=N"],
        ),
        (["recipe=ours"], ["recipe=ours does not exist: choose recipe=goyal|he|mlperf|nesterov|nus|paper|torchlars"]),
        (["batch=12288"], ["batch=12288 does not exist", "batch.total=N"]),
        (["--batch=32k"], ["--batch=32k", "without dashes"]),
        (["batch", "32k"], ["batch"]),
        (["sed=1"], ["no key 'sed'", "'seed'"]),
        (["+sed=1"], ["no key 'sed'", "'seed'"]),
        (["optimizer.lrr=1"], ["'optimizer.lr'"]),
        (["~epochs"], ["epochs has no value"]),
        (["optimizer.lr=abc"], ["optimizer.lr", "abc"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1.0 must not be negative"]),
        (["optimizer.momentum=1"], ["optimizer.momentum=1.0 must be in [0, 1)"]),
        (["epochs=1.5"], ["epochs", "1.5"]),
        (["epochs=0"], ["epochs=0 must be at least 1"]),
        (["precision=fp8"], ["precision=fp8 is not one of auto, bf16, fp16, tf32, fp32"]),
        (["schedule.origin=middle"], ["schedule.origin=middle is not one of start, warmup"]),
        (["data=imagenet", "data.train_crop=big"], ["data.train_crop=big"]),
        (["data=imagenet", "data.size=300"], ["data.size=300", "data.resize=256"]),
        (["data=imagenet", "data.classes=3"], ["'data.classes' is a key of data=fractals, and another"]),
        (["lr=3"], ["no key 'lr': did you mean 'optimizer.lr'?"]),
        (["optimiser=lars"], ["did you mean 'optimizer'?"]),
        (["data=null"], ["data=null chooses nothing"]),
        (["--resolve"], ["--resolve", "--cfg job"]),
        (["plan.gpus=8"], ["plan.gpus=8 belongs to `python scripts/plan.py`"]),
        (["schedule.milestones=8"], ["schedule.milestones", "is not a list, such as [1,2]"]),
        (["data=imagenet", "data.root="], ["data.root= is empty"]),
        (["data.root=/dev/null", "data=fractals"], ["data.root=/dev/null is not a folder"]),
        (["data.batch_divisor=7"], ["data.batch_divisor=7 does not divide", "32768"]),
        (["batch.total=1000"], ["batch.total=1000 is not a multiple of batch.micro=32", "batch.micro=25"]),
        (["batch.total=40960"], ["batch.total=40960 is more than the 20480 training images"]),
        (["nproc=3"], ["batch.total=4096", "which 3 processes cannot share equally: give nproc=2 or nproc=4"]),
        (["name=a/b"], ["name='a/b'"]),
        (
            ["model=resnet101"],
            ["model=resnet101 does not exist: choose", "|resnet8|timm|torchvision"],
        ),
        (["data=imagenet"], ["data.root=DIR", "IMAGENET_DIR"]),
        (["data=imagenet", "data.split=report"], ["data.split=report: data=imagenet has no third split"]),
        (["data.split=report"], ["data.split=report: settings are chosen on selection", "evaluate=FILE"]),
        (["data.split=test"], ["data.split=test is not one of selection, report"]),
        (["data.root=/nowhere/at/all"], ["data.root=/nowhere/at/all is not a folder"]),
        (["evaluate=/nowhere.pt"], ["there is no file /nowhere.pt"]),
        (["evaluate=/"], ["/ is a folder"]),
        (["runs_dir=/dev/null"], ["/dev/null"]),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(app: App, tmp_path: Path, arguments, said):
    small = SMALL if arguments == ["runs_dir=/dev/null"] else []
    done = app(*small, *arguments)
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and all(part in line for part in said), line
    assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / "outputs").exists()


def test_a_configuration_error_is_one_line_and_nothing_else(app: App):
    for arguments in (["batch=48k"], ["sed=1"], ["epochs=x"], ["data.batch_divisor=7"], ["batch.total=1000"]):
        done = app(*arguments)
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["batch=4k"], ["recipe=torchlars", "batch=4k", "batch=256|8k|16k|32k", "optimizer.lr=X schedule.warmup"]),
        (["recipe=nus", "batch=256"], ["recipe=nus", "batch=256", "batch=512|1k|4k|8k|16k|32k"]),
        (["recipe=goyal", "batch=64k"], ["batch=256|4k|8k|16k|32k", "by schedule.warmup_epochs=X"]),
        (["recipe=mlperf", "batch=256"], ["batch=4k|8k|16k|20k|32k|40k|48k|56k|64k"]),
        (["recipe=adam"], ["recipe=adam does not exist: choose recipe=goyal|he|mlperf|nesterov|nus|paper|torchlars"]),
        (["recipe=nus", "optimizer=sgd"], ["is a key of optimizer=lars", "the recipe= that sets it"]),
        (["schedule.decay=step", "schedule.milestones=[30,20]"], ["schedule.milestones=[30, 20]", "ascending"]),
        (["data.progressive.start=20"], ["data.progressive.start=20 must be a multiple"]),
        (["data.progressive.epochs=[1,2,3]"], ["must be two epochs"]),
        (["optimizer.momentum_correction=true"], ["momentum_form=caffe"]),
        (["recipe=goyal", "batch=8k", "optimizer.momentum=0"], ["optimizer.nesterov=true needs a momentum"]),
        (["stop_at_top1=101"], ["stop_at_top1=101.0 must be at most 100"]),
        (["init="], ["init= is empty: give a value, or leave it out"]),
        (["evaluate="], ["evaluate= is empty"]),
        (["data.mean=[nan,0,0]"], ["data.mean=[nan, 0.0, 0.0] must be finite numbers"]),
        (["data.shift=16"], ["data.shift=16 must be less than data.size=16"]),
        (["optimizer.lr=1e39"], ["must be at most 1e+38"]),
        (["timeout_minutes=1e300"], ["timeout_minutes=1e+300 must be at most"]),
        (["optimizer.momentum_form=tf"], ["is not one of torch, caffe, nus"]),
    ],
)
def test_what_a_recipe_does_not_have_is_said_in_one_line(overrides, said):

    with pytest.raises(MISTAKES) as refused:
        compose(*overrides)
    line = explain(refused.value)
    assert "\n" not in line and all(part in line for part in said), line


NASTY = ["", "null", "-1", "0", "1e99", "nan", "inf", "-inf", "[]", "{}", "[1,2]", "{a:1}", "true", "x", "'", "${x}",
         "1.5", "é", "../..", "99999999999999999999", "${oc.env:HOME}", "\\", "a=b", "@", "??"]  # fmt: skip


@functools.cache
def keys() -> list[str]:

    chosen = ([], ["data.root=/x"], ["model=torchvision", "model.arch=resnet18"])
    return sorted({key for overrides in chosen for key in values(compose(*overrides))})


def outcome(argv: list[str]) -> tuple[object, str, bool]:
    """The exit code of a command line, what stderr says, and whether a run would have started."""
    from hydra.core.global_hydra import GlobalHydra

    from train import main

    GlobalHydra.instance().clear()
    main.jobs.clear()
    said, code = io.StringIO(), 0
    with (
        mock.patch.object(main, "start", return_value=0) as start,
        # the signals of the process that tests are pytest's
        mock.patch.object(main, "StopRequest"),
        mock.patch.object(sys, "argv", ["main.py", *argv]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            main.main()
        except SystemExit as ended:
            code = ended.code or 0
    return code, said.getvalue().strip(), start.called


def assert_taken_or_told(argv: list[str]) -> None:
    code, said, started = outcome(argv)
    if code == 2:
        assert not started and said.startswith("error: ") and "\n" not in said, said
    else:
        assert code == 0, said


@settings(max_examples=60, deadline=None)
@given(chosen=st.lists(st.tuples(st.sampled_from(keys()), st.sampled_from(NASTY)), min_size=1, max_size=2))
def test_any_value_of_any_key_is_taken_or_told_in_one_line(chosen):
    assert_taken_or_told([f"{key}={value}" for key, value in chosen])


NODES = ["schedule", "log", "checkpoint", "data.progressive", "hydra", "defaults"]
HYDRA = """hydra.verbose hydra.mode hydra.job.name hydra.job.chdir hydra.job_logging hydra/job_logging hydra.runtime
    hydra.sweep.subdir hydra/launcher hydra/sweeper hydra.launcher hydra.sweeper hydra.searchpath
    hydra.callbacks hydra/env hydra.job.env_set hydra.sweeper.params hydra/hydra_logging hydra.run hydra.job
    hydra.overrides hydra/help""".split()
FLAGS = """-m | --cfg job | --cfg=all | -c hydra | --help | --hydra-help | --version | --info | --info defaults | -r
    | -mr | --resolve | --package batch | -p x | -cn x | -cp x | -cd /x | -sc | -sc install=bash | --cfg |
    --batch-size 256 | -x | --experimental-rerun x""".split("|")
MORE = """1 3 50 1e5 [1,2,3] [[1]] {a:{b:1}} TEXT lars sgd imagenet 8k nus 1,2 a,b choice(1,2) range(1,3) int(3) basic
    none ${batch} ???"""
VALUES = [*NASTY, *MORE.split()]


@st.composite
def typed_words(draw: st.DrawFn) -> list[str]:
    """An override of any key, group, node or setting of Hydra, or one of its flags."""
    kind = draw(st.sampled_from(["key", "key", "group", "group", "node", "hydra", "flag"]))
    if kind == "flag":
        return draw(st.sampled_from(FLAGS)).split()
    key = draw(st.sampled_from({"key": keys(), "group": list(GROUPS), "node": NODES, "hydra": HYDRA}[kind]))
    return [f"{draw(st.sampled_from(['', '', '', '', '+', '++', '~']))}{key}={draw(st.sampled_from(VALUES))}"]


@pytest.mark.slow
@settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(typed_words(), min_size=1, max_size=4))
def test_any_command_line_is_taken_or_told_in_one_line(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert_taken_or_told([word for some in words for word in some])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["model=50"], "model=50 does not exist: choose model=resnet20|resnet50|resnet8|timm|torchvision"),
        (["model=resnet18"], "or give a network of a library by model=torchvision model.arch=resnet18"),
        (["data=imagenette"], "or give a folder of your own images by data.root=DIR"),
        (["model=torchvision", "model.arch=resnt18", "--cfg", "job"], "model.arch=resnt18 is not a classification"),
        (["stop_at_top1=0.759"], "stop_at_top1=0.759 must be at least 1"),
        (["num_classes=10"], "classes are counted in data.root"),
        (["lr_gamma=0.1"], "give schedule.decay=step"),
        (["val_split=x"], "splits are folders of data.root"),
        (["val_resize_size=256"], "give data.resize=N"),
        (["-m", "seed=0,1", "name=x"], "name=x is one folder for all jobs of this sweep: leave out name="),
        (["data=1"], "data=1 does not exist: choose data=cifar10|cifar100|fractals|imagenet"),
        (["optimizer=[1,2,3]"], "optimizer=[1,2,3] does not exist: choose optimizer=lars|sgd"),
        (["recipe=true"], "recipe=true does not exist"),
        (["~recipe=-1"], "recipe"),
        (["model.name=resnet18"], "give model=NAME or model=torchvision model.arch=resnet18"),
        (["model.name=1"], "model.name=1: the name belongs to model="),
        (["schedule=cosine"], "schedule takes no value itself: give one of its keys, such as schedule."),
        (["hydra.verbose=3"], "hydra.verbose=3"),
        (["hydra.verbose=null", "seed=1"], "hydra.verbose=null"),
        (["hydra.verbose=[1,2]"], "hydra.verbose=[1,2]"),
        (["-m", "--cfg", "job"], "give one of -r, -m, --cfg, --info and -sc"),
        (["--cfg", "job", "--package", "x"], "--package x"),
        (["--cfg", "all", "--package", "x"], "--package shows a part of what --cfg job shows"),
        (["nproc=3", "--cfg", "job"], "which 3 processes cannot share equally"),
        (["precision=fp8", "--cfg", "job"], "precision=fp8 is not one of"),
        (["data={a:1}"], "there is no key 'data.a'"),
        (["optimizer.weight_decay=1e300"], "optimizer.weight_decay=1e+300 must be at most 1e+38"),
        (["optimizer.clamp=1e300"], "optimizer.clamp=1e+300 must be at most"),
        (["schedule.warmup_lr=1e39"], "schedule.warmup_lr=1e+39 must be at most"),
        (["logger=foo"], "logger=['foo']: give each of tensorboard"),
        (["logger=[foo]"], "give each of tensorboard, wandb, mlflow and module:callable once at most"),
        (["logger=[wandb,wandb]"], "once at most"),
    ],
)
def test_what_hydra_does_not_check_itself_is_one_line_too(argv, said):
    code, line, started = outcome(argv)
    assert (code, started) == (2, False) and said in line and "\n" not in line, line


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("gpus=8", "nproc=N"), ("trainer.devices=2", "nproc=N"), ("device=cuda", "CUDA_VISIBLE_DEVICES"),
        ("resume=true", "the same command again resumes"), ("optimizer.wd=1", "optimizer.weight_decay"),
        ("amp=true", "precision=bf16"), ("data.batch_size=1", "batch.total=N"), ("--batch-size", "batch.total=N"),
        ("num_workers=2", "data.workers"), ("workers=2", "data.workers"), ("arch=resnet18", "model="),
        ("max_epochs=3", "epochs=N"), ("opt=lars", "optimizer=lars"), ("wandb=true", "logger=[wandb]"),
    ],
)  # fmt: skip
def test_words_of_other_trainers_are_answered_with_ours(word, ours):
    code, line, _ = outcome([word])
    assert code == 2 and ours in line, line


def test_no_word_of_another_trainer_is_one_of_our_keys_and_every_answer_names_keys_that_there_are():
    ours = {*known_keys(), *GROUPS}
    assert not set(foreign.BY_WORD) & ours
    for said in foreign.ANSWERS:
        assert all(key in ours for key in re.findall(r"([a-z_.0-9]+)=", said)), said
