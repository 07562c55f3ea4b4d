"""Rewrites the overrides of a command line for Hydra, and back."""

import os
import re
import shlex
from argparse import Namespace, _VersionAction
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from train import __version__
from train.config.foreign import answer
from train.config.groups import GROUPS
from train.errors import UserError

# a choice that Hydra reads as a string
NAME = re.compile(r"(?!(true|false|null|nan|inf)$)(\d+k|[a-z]\w*)", re.IGNORECASE)

# keys whose value is taken literally
TEXTS = ("data.classes_from", "data.root", "evaluate", "init", "name", "runs_dir")


def parse(arguments: Sequence[str], under_torchrun: bool = False) -> Namespace:
    """The flags of a command line, and its ``overrides`` as Hydra needs them; UserError for one that is not valid.

    A group's choice is quoted where Hydra would read a number (``batch=256``), because a choice must be a string. Paths
    are quoted because they may hold ``=``, as the names of our own run folders do. ``data.root=DIR`` alone implies
    ``data=imagenet``. Flags may stand before, between and after the overrides.
    """
    parser = get_args_parser()
    for action in parser._actions:
        if isinstance(action, _VersionAction):
            action.version = f"lars-imagenet {__version__}"

    def refuse(message: str) -> None:
        word = re.search(r" --?([\w-]+)|$", message)
        known = word and answer(word[1] or "")
        raise UserError(f"{message}: {known or 'settings are key=value, without dashes (batch=32k); see --help'}")

    parser.error = refuse  # type: ignore[assignment, method-assign]
    flags = parser.parse_intermixed_args(arguments)
    if under_torchrun and (flags.multirun or any(re.match(r"\+*hydra\.mode=", given) for given in flags.overrides)):
        raise UserError(
            "-m under torchrun would run its second job in the first one's process group: start "
            "`python train/main.py -m ...`, which uses every GPU of the machine"
        )
    if flags.resolve and not flags.cfg and not flags.help:
        raise UserError("--resolve only affects --cfg job: give both, or neither")
    if flags.package and flags.cfg != "job":
        raise UserError("--package shows a part of what --cfg job shows: give both, or neither")
    if sum(map(bool, (flags.run, flags.multirun, flags.cfg, flags.info, flags.shell_completion))) > 1:
        raise UserError("give one of -r, -m, --cfg, --info and -sc alone")
    if flags.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not needed: the same command again resumes a run")
    for argument in flags.overrides if not flags.shell_completion else []:
        if re.fullmatch(rf"[+~]*({'|'.join(GROUPS)})=(null)?", argument):
            raise UserError(f"{argument} chooses nothing: leave it out, or see --help for what there is")
        if re.match(r"[+~]*(plan|machine)[.=]", argument):
            raise UserError(f"{argument} belongs to `python scripts/plan.py`, which takes all other overrides too")
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument!r} is not key=value: write, say, batch=32k")
    given = [argument.partition("=")[0] for argument in flags.overrides]
    flags.overrides = [_quote(argument) for argument in flags.overrides]
    if "data.root" in given and "data" not in given:
        flags.overrides.insert(given.index("data.root"), "data=imagenet")
    if flags.cfg == "all":
        # values instead of interpolations
        flags.resolve = True
    return flags


def spell(flags: Namespace) -> list[str]:
    """The command line of ``flags`` for Hydra, which takes overrides from one place alone: after the flags."""
    options = []
    for action in get_args_parser()._actions:
        value = getattr(flags, action.dest, None)
        if action.option_strings and value not in (None, False):
            options += [action.option_strings[0], *([value] if isinstance(value, str) else [])]
    return [*options, *flags.overrides]


def _quote(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key == "runs_dir":
        value = os.path.expanduser(value)  # Hydra uses it literally for its own sweep.dir
    if key.lstrip("+~") in GROUPS:
        value = re.sub(r"^choice\((.*)\)$", r"\1", value)
        if value.startswith("["):
            return f"{key}={_quoted(value)}"
        if re.fullmatch(r"[^'\"{}()\[\]$\\]+", value):
            return f"{key}={','.join(c if NAME.fullmatch(c) else _quoted(c) for c in value.split(','))}"
    if key == "logger" and re.fullmatch(r"[\w.:]+", value):
        return f"{key}=[{value}]"
    if key in TEXTS and value and value != "null" and value[0] not in "'\"":
        return f"{key}={_quoted(value)}"
    return argument


def _quoted(value: str) -> str:
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def unspell(overrides: Sequence[str]) -> str:
    """The command line that a person types to repeat a run with ``overrides``."""
    plain = []
    for override in overrides:
        quoted = re.fullmatch(rf"({'|'.join((*GROUPS, *TEXTS))})='(.*)'", override)
        plain.append(f"{quoted[1]}={quoted[2]}".replace("\\'", "'") if quoted else override)
    return shlex.join(["python", "train/main.py", *plain])
