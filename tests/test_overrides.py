"""Command lines rewritten for Hydra, and completed in a shell."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from tests.helpers import ROOT
from train.config.overrides import spell, unspell


def test_options_may_follow_the_data_root():
    spelled = spell(["batch=8k", "data.root=/x", "--cfg", "job"], under_torchrun=False)
    parsed = get_args_parser().parse_args(spelled)
    assert parsed.overrides == ["batch=8k", "data=imagenet", "data.root='/x'"] and parsed.cfg == "job"


@pytest.mark.parametrize(("typed", "offered"), [("recipe=p", "recipe=paper"), ("mlperf", "mlperf_log=")])
def test_bash_completes_groups_and_keys(typed: str, offered: str):
    """As bash does on the tab key after Hydra's completion was installed with the documented line."""
    lines = (ROOT / "docs/daily_work.md").read_text().splitlines()
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
    command = unspell(spell(typed, under_torchrun=False))
    assert shlex.split(command) == ["python", "train/main.py", "batch=256", "data=imagenet", *typed[1:]]
