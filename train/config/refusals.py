"""Turns what Hydra, OmegaConf or our own checks refuse into one line that names the value and the fix."""

import difflib
import inspect
import os
import re
import sys
import time
import traceback
from collections.abc import Callable

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
    ValidationError,
)

from train.config.compose import PARTS
from train.config.foreign import answer
from train.config.groups import CONFIGS, GROUPS, choices
from train.errors import UserError, print_error
from train.keys import flatten

MISTAKES = (UserError, HydraException, OmegaConfBaseException)


def is_of_command_line(error: Exception, job: Callable) -> bool:
    """Whether Hydra or OmegaConf raised ``error`` before ``job`` began: they do not check all that they are given."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_code is inspect.unwrap(job).__code__ for frame in frames):
        return False
    return any(frame.f_globals["__name__"].startswith(("hydra.", "omegaconf.")) for frame in frames)


def refuse(error: Exception) -> int:
    """Print what is wrong with the configuration, once for all ranks, which compose the same; the exit code."""
    if int(os.environ.get("RANK") or 0) > 0:
        # give rank 0 time to print it before torchrun kills all processes
        time.sleep(2)
        return UserError.exit_code
    return print_error(UserError(explain(error)))


def explain(error: BaseException) -> str:
    """What was refused and how to fix it, in one line."""
    chain = [error]
    while (deeper := chain[-1].__cause__ or chain[-1].__context__) is not None and deeper not in chain:
        chain.append(deeper)
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            return _unknown_choice(cause)
    for cause in chain:
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
            # Hydra tells the whole key, OmegaConf the part that it does not find
            whole = re.search(r"Could not override '([^']+)'", str(error))
            return _unknown_key(max(whole[1] if whole else "", str(cause.full_key), key=len))
    if isinstance(error, ValidationError) and "is not a subclass of" in str(error):
        own = [key for key in known_keys() if key.startswith(f"{error.full_key}.")]
        if own:
            return f"{error.full_key} takes no value itself: give one of its keys, such as {own[0]}="
    innermost = next((c for c in reversed(chain) if isinstance(c, UnsupportedInterpolationType)), None)
    text = str(innermost or error)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        text = f"{error.full_key}: {text}"
    if error.__cause__ is not None and innermost is None:
        text += f": {error.__cause__}"
    if not isinstance(error, MISTAKES):
        # an error in something that Hydra does not check
        given = sys.argv[1:]
        suspects = [argument for argument in given if re.match(r"[+~]*hydra[./]", argument)] or given
        text = f"Hydra cannot use {' '.join(suspects)}: {text or 'not a valid value'}"
    text = re.sub(r"\n\s*(object_type=|reference_type=|full_key: )\S*", "", text)
    text = text.replace("a ListConfig, list or tuple", "a list, such as [1,2]")
    return " ".join(text.split())


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    options = "|".join(choices(group) if group in GROUPS else sorted(error.options or ()))
    line = f"{group}={choice} does not exist: choose {group}={options}"
    others = {
        "batch": "a size of your own by batch.total=N (with optimizer.lr=X)",
        "data": "a folder of your own images by data.root=DIR",
        "model": f"a network of a library by model=torchvision model.arch={choice}",
    }
    return line + (f", or give {others[group]}" if group in others else "")


def _unknown_key(key: str) -> str:
    known = known_keys()
    if owners := known.get(key):
        return (
            f"'{key}' is a key of {owners}, and another {key.partition('.')[0]}= was chosen: choose that one, "
            "or leave out the key, or the recipe= that sets it"
        )
    if foreign := answer(key):
        return f"there is no key '{key}': {foreign}"
    # also by the last part alone, and groups
    places = {k.rpartition(".")[2]: k for k in reversed(known)} | {k: k for k in (*known, *GROUPS) if k != key}
    near = difflib.get_close_matches(key, list(places), n=1, cutoff=0.65)
    return f"there is no key '{key}'" + (
        f": did you mean '{places[near[0]]}'?" if near else ": docs/settings.md has those there are"
    )


def known_keys() -> dict[str, str]:
    """Every key in ``configs/``, and the choices that have it, such as ``optimizer=lars|sgd``; "" for a key of all."""
    root = flatten(OmegaConf.to_container(OmegaConf.load(CONFIGS / "config.yaml")))  # type: ignore[arg-type]
    keys = dict.fromkeys((key for key in root if not key.startswith(("defaults", "hydra"))), "")
    keys |= dict.fromkeys(("batch.preset", "batch.published", "schedule.warmup_epochs"), "")
    for part in PARTS:
        owners: dict[str, list[str]] = {}
        for path in sorted((CONFIGS / part).glob("*.yaml")):
            for key in flatten(OmegaConf.to_container(OmegaConf.load(path))):  # type: ignore[arg-type]
                owners.setdefault(key, []).append(path.stem)
        owners.pop("defaults", None)
        keys |= {f"{part}.{key}": f"{part}={'|'.join(names)}" for key, names in owners.items()}
    return keys
