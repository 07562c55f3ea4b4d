"""Command lines rewritten for Hydra, and completed in a shell."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from tests.helpers import ROOT, App
from train import __version__
from train.config.compose import compose
from train.config.overrides import parse, spell, unspell


@pytest.mark.parametrize("flag", [["-m"], ["--cfg", "job"], ["--info", "all"]])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_flags_may_stand_before_between_and_after_overrides(flag: list[str], at: int):
    typed = ["batch=256", "data.root=/x"]
    flags = parse([*typed[:at], *flag, *typed[at:]])
    assert flags.overrides == ["batch='256'", "data=imagenet", "data.root='/x'"]
    # as Hydra, which takes overrides from one place alone, reads what it is given
    assert vars(get_args_parser().parse_args(spell(flags))) == vars(flags)


@pytest.mark.parametrize(("typed", "offered"), [("recipe=p", "recipe=paper"), ("mlperf", "mlperf_log=")])
def test_bash_completes_groups_and_keys(typed: str, offered: str):
    """As bash does on the tab key after Hydra's completion was installed with the documented line."""
    lines = (ROOT / "docs/sweeps.md").read_text().splitlines()
    (install,) = [line for line in lines if line.startswith("eval ")]
    script = f"""{install}
        COMP_LINE='python train/main.py {typed}' COMP_POINT=100 COMP_CWORD=2
        hydra_bash_completion
        echo "${{COMPREPLY[@]}}"
    """
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == offered.split(), done.stderr


def test_the_recorded_command_is_the_typed_one():
    typed = ["batch=256", "data.root=/it's here/a=b", "name=x", "optimizer.lr=1"]
    command = unspell(parse(typed).overrides)
    assert shlex.split(command) == ["python", "train/main.py", "batch=256", "data=imagenet", *typed[1:]]


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("batch=256,8k", "batch='256',8k"), ("batch=choice(256,8k)", "batch='256',8k"),
        ("model=50", "model='50'"), ("recipe=1e5", "recipe='1e5'"), ("data=null,true", "data='null','true'"),
        ("optimizer=[1,2]", "optimizer='[1,2]'"), ("recipe=nus", "recipe=nus"), ("logger=wandb", "logger=[wandb]"),
        ("logger=[a,b.c:d]", "logger=[a,b.c:d]"), ("data={a:1}", "data={a:1}"),
    ],
)  # fmt: skip
def test_a_choice_is_text_to_hydra_whatever_it_looks_like(typed: str, spelled: str):
    assert parse([typed]).overrides == [spelled]


def test_version_is_that_of_the_app(app: App):
    assert app("--version").stdout == f"lars-imagenet {__version__}\n"


def test_help_is_fifteen_lines_with_examples_that_work_and_batches_in_the_order_of_their_size(app: App):
    said = app("--help").stdout
    assert len(said.splitlines()) <= 15 and "batch=128|256|512|1k|4k|8k|16k|20k|32k|40k|48k|56k|64k\n" in said
    examples = [line.split("  ")[1].split() for line in said.splitlines() if line.startswith("  python")]
    assert len(examples) == 4
    for python, script, *words in examples:
        assert (python, script) == ("python", "train/main.py")
        compose(*(word.partition(",")[0] for word in parse(words).overrides))


def test_cfg_job_shows_what_is_checked_and_needs_no_data(app: App, tmp_path: Path):
    shown = app("batch=256", "--cfg", "job", "seed=1", "data=imagenet")
    values = OmegaConf.create(shown.stdout)
    assert (values.seed, values.batch.total, values.data.root) == (1, 256, None)
    assert OmegaConf.create(app("--cfg", "job", "--package", "optimizer").stdout).lr == 29
    assert not list(tmp_path.iterdir())


def test_windows_is_refused_in_one_line():
    """Where there is no fcntl and no SIGUSR1."""
    code = "import sys, signal; sys.modules['fcntl'] = None; del signal.SIGUSR1\n"
    code += "from train import main; sys.platform = 'win32'; main.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: Windows is not supported"), done.stderr
    assert len(done.stderr.splitlines()) == 1
