"""Composes YAML files and overrides to one checked ``Config``."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from train import model, optimizer
from train.config import resolvers
from train.config.groups import CONFIGS, GROUPS
from train.config.overrides import TEXTS, parse
from train.config.schema import Config
from train.data import kinds
from train.errors import UserError
from train.keys import free_on_resume, values

LONGEST_NAME = 255  # bytes, of a folder on Linux

# the parts whose keys depend on the chosen variant, which ``name`` identifies
PARTS = {"data": kinds.config_class, "model": model.config_class, "optimizer": optimizer.config_class}


def compose(*overrides: str) -> Config:
    """The configuration that the app would run with these ``overrides``, for other programs."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = typed(hydra.compose("config", overrides=parse(overrides).overrides))
    config.check()
    return config


def typed(composed: DictConfig) -> Config:
    """What Hydra composed, as a ``Config``; raises UserError or OmegaConf's errors for a key that is wrong."""
    resolvers.register()
    schema = OmegaConf.structured(Config)
    for part, config_class in PARTS.items():
        name = OmegaConf.select(composed, f"{part}.name")
        if name is None:
            raise UserError(f"{part}.name has no value: give {part}=...")
        schema[part] = OmegaConf.structured(config_class(str(name)))
    # merged before it is resolved, so that a value of a wrong type is reported under its own key
    merged = OmegaConf.merge(schema, composed)
    if missing := sorted(OmegaConf.missing_keys(merged)):
        raise UserError(f"{missing[0]} has no value: give {missing[0]}=...")
    return cast(Config, OmegaConf.to_object(merged))


def default_name(config: Config, overrides: Sequence[str]) -> str:
    """The name of a run's folder: what runs, without a clock, so that it is the same on every rank.

    It names each override that changes the result. Hydra must be initialised.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = values(config)
    name = f"{config.data.name}-{config.model.name}-{config.batch.preset}"
    # the default recipe is the optimizer's own
    name += f"-{config.recipe.name}" if config.recipe.name != "torchlars" else ""
    name += f"-{config.optimizer.name}-seed{config.seed}"
    free = {"seed", *free_on_resume(config)}
    for key in sorted({o.key_or_group for o in parsed} - {*GROUPS, *free}):
        # An override that only repeats the default changes nothing, which shows when it is left out.
        others = [o.input_line for o in parsed if o.key_or_group != key and o.input_line]
        try:
            default = values(typed(hydra.compose("config", overrides=others)))
        except (OmegaConfBaseException, UserError):
            # without the override there is no configuration: the recipe publishes no value in its place
            default = {}
        if key not in chosen:
            # an element of a list, a key of options, or a file of the user's own, which set other keys
            others_set = any(value != default.get(k) for k, value in chosen.items() if k not in free)
            name += "".join(f"-{key}={o.value()}" for o in parsed if o.key_or_group == key and others_set)
        elif chosen[key] != default.get(key):
            value = chosen[key]
            # of a path the end, which tells two runs' weights.pt apart
            name += f"-{key}={'/'.join(Path(value).parts[-2:]) if key in TEXTS and value else value}"
    name = re.sub(r"[\s/\\]+", "_", name)
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UserError(f"the name of this run has more than {LONGEST_NAME} bytes ({name[:60]}...): give name=NAME")
    return name
