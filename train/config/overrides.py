"""Rewrites the overrides of a command line for Hydra, and back."""

import os
import re
import shlex
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from train.errors import UserError

GROUPS = ("batch", "data", "model", "optimizer", "recipe")

# keys whose value is taken literally
TEXTS = ("data.root", "evaluate", "init", "name", "runs_dir")


def spell(arguments: Sequence[str], under_torchrun: bool) -> list[str]:
    """Return ``arguments`` as Hydra needs them; raises UserError for what cannot be rewritten.

    ``batch=256`` is quoted, because Hydra reads a bare 256 as an integer and a group's choice must be a string. Paths
    are quoted because they may hold ``=``, as the names of our own run folders do. ``data.root=DIR`` alone implies
    ``data=imagenet``. ``--cfg`` prints values instead of interpolations.
    """
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UserError(f"{message}: overrides are written key=value, without dashes (batch=32k); see --help")

    parser.error = refuse  # type: ignore[assignment, method-assign]
    flags = parser.parse_args(arguments)
    if flags.multirun and under_torchrun:
        raise UserError(
            "-m under torchrun would run its second job in the first one's process group: start "
            "`python train/main.py -m ...`, which uses every GPU of the machine"
        )
    if flags.resolve and not flags.cfg and not flags.help:
        raise UserError("--resolve only affects --cfg job: give both, or neither")
    for argument in flags.overrides:
        if argument in (f"{group}=null" for group in GROUPS):
            raise UserError(f"{argument} chooses nothing: leave it out, or see --help for what there is")
        if re.match(r"[+~]*(plan|machine)[.=]", argument):
            raise UserError(f"{argument} belongs to `python scripts/plan.py`, which takes all other overrides too")
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument!r} is not key=value: write, say, batch=32k")
    given = [argument.partition("=")[0] for argument in flags.overrides]
    spelled = [_quote(argument) for argument in arguments]
    if "data.root" in given and "data" not in given:
        # beside data.root, because the parser treats arguments before and after the options as separate lists
        at = next(i for i, argument in enumerate(arguments) if argument.startswith("data.root="))
        spelled.insert(at, "data=imagenet")
    if flags.cfg and not flags.resolve and flags.cfg != "hydra":
        spelled.append("--resolve")
    return spelled


def _quote(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key == "runs_dir":
        value = os.path.expanduser(value)  # Hydra uses it literally for its own sweep.dir
    if key == "batch":
        quoted = [f"'{c}'" if re.fullmatch(r"\d[\d_]*", c) else c for c in value.split(",")]
        return f"{key}={','.join(quoted)}"
    if key in TEXTS and value and value != "null" and value[0] not in "'\"":
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"
    return argument


def unspell(overrides: Sequence[str]) -> str:
    """The command line that a person types to repeat a run with ``overrides``."""
    plain = []
    for override in overrides:
        quoted = re.fullmatch(rf"({'|'.join(('batch', *TEXTS))})='(.*)'", override)
        plain.append(f"{quoted[1]}={quoted[2]}".replace("\\'", "'") if quoted else override)
    return shlex.join(["python", "train/main.py", *plain])
