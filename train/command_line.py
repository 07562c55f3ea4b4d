"""What a person types: spelled the way Hydra reads it, and answered in one line where it cannot be."""

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from train.config import (
    WITHOUT_EFFECT,
    Config,
    FractalsConfig,
    ImageNetConfig,
    LARSConfig,
    ResNet50Config,
    flatten,
)
from train.errors import UserError

GROUPS = ("batch", "data", "model", "optimizer", "plan", "recipe")

# where a key is to be found that the choice made of its group lacks
VARIANTS = {
    f"{group}.{field.name}": f"{group}={choice}"
    for group, choice, node in (
        ("data", "fractals", FractalsConfig),
        ("data", "imagenet", ImageNetConfig),
        ("optimizer", "lars", LARSConfig),
        ("model", "resnet50", ResNet50Config),
    )
    for field in fields(node)
}

# keys whose value is taken as it stands
TEXTS = ("data.root", "evaluate", "name", "runs_dir")


def spell(arguments: Sequence[str], under_torchrun: bool) -> list[str]:
    """Return ``arguments`` as Hydra needs them; raises UserError for what no spelling can mend.

    ``batch=256`` is quoted, because Hydra reads a bare 256 as an integer and a group's choice must be a
    string, and so are paths, which may hold ``=`` as the names of our own run folders do; ``data.root=DIR``
    alone says ``data=imagenet``; ``--cfg`` prints numbers in the place of interpolations.
    """
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UserError(f"{message}: overrides are written key=value, without dashes (batch=32k); see --help")

    parser.error = refuse  # type: ignore[assignment, method-assign]
    flags = parser.parse_args(arguments)
    if flags.multirun and under_torchrun:
        raise UserError(
            "-m under torchrun would run its second job in the first one's process group: start "
            "`python train/main.py -m ...`, which uses every GPU by itself"
        )
    if flags.resolve and not flags.cfg and not flags.help:
        raise UserError("--resolve says how --cfg job prints: give both, or neither")
    for argument in flags.overrides:
        if argument in (f"{group}=null" for group in GROUPS):
            raise UserError(f"{argument} chooses nothing: leave it out, or see --help for what there is")
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument!r} is not key=value: write, say, batch=32k")
    given = [argument.partition("=")[0] for argument in flags.overrides]
    spelled = [_quote(argument) for argument in arguments]
    if "data.root" in given and "data" not in given:
        # beside it: what stands behind the options is another list to the parser
        at = next(i for i, argument in enumerate(arguments) if argument.startswith("data.root="))
        spelled.insert(at, "data=imagenet")
    if flags.cfg and not flags.resolve and flags.cfg != "hydra":
        spelled.append("--resolve")
    return spelled


def _quote(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key == "runs_dir":
        value = os.path.expanduser(value)  # Hydra takes it for its own sweep.dir as it stands
    if key == "batch":
        quoted = [f"'{c}'" if re.fullmatch(r"\d[\d_]*", c) else c for c in value.split(",")]
        return f"{key}={','.join(quoted)}"
    if key in TEXTS and value and value != "null" and value[0] not in "'\"":
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"
    return argument


def unspell(overrides: Sequence[str]) -> str:
    """The command that a person types to have a run of ``overrides`` again."""
    plain = [re.sub(rf"^({'|'.join(('batch', *TEXTS))})='(.*)'$", r"\1=\2", o) for o in overrides]
    return shlex.join(["python", "train/main.py", *plain])


def explain(error: BaseException) -> str:
    """Say in one line what Hydra or OmegaConf refused, and the mend."""
    chain = [error]
    while (deeper := chain[-1].__cause__ or chain[-1].__context__) is not None and deeper not in chain:
        chain.append(deeper)
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            group, _, choice = (cause.missing_cfg_file or "").rpartition("/")
            options = "|".join(sorted(cause.options, key=by_size))
            mend = f"{group}={choice} does not exist: choose {group}={options}"
            if group == "batch":
                mend += ", or give a size of your own by batch.total=N (with optimizer.lr=X)"
            return mend
    for cause in chain:
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
            return _unknown_key(str(cause.full_key))
    innermost = next((c for c in reversed(chain) if isinstance(c, UnsupportedInterpolationType)), None)
    text = str(innermost or error)
    if error.__cause__ is not None and innermost is None:
        text += f": {error.__cause__}"
    text = re.sub(r"\n\s*(object_type=|reference_type=|full_key: )\S+", "", text)
    text = text.replace("a ListConfig, list or tuple", "a list, such as [1,2]")
    return " ".join(text.split())


def _unknown_key(key: str) -> str:
    schema = OmegaConf.structured(Config)
    keys = [*flatten(_shape(schema)), *VARIANTS]
    if key in VARIANTS:
        return (
            f"'{key}' is a key of {VARIANTS[key]}, and another {key.partition('.')[0]}= was chosen: choose that one, "
            "or leave out the key, or the recipe= that sets it"
        )
    # also by the last part alone, and groups
    places = {k.rpartition(".")[2]: k for k in reversed(keys)} | {k: k for k in (*keys, *GROUPS) if k != key}
    near = difflib.get_close_matches(key, list(places), n=1, cutoff=0.5)
    return f"there is no key '{key}'" + (
        f": did you mean '{places[near[0]]}'?" if near else ": see --cfg job for those there are"
    )


def _shape(node: object) -> dict:
    return {
        str(k): _shape(v) if OmegaConf.is_config(v) else None
        for k, v in ((k, node._get_node(k)) for k in node)  # type: ignore[attr-defined]
    }


def by_size(preset: str) -> tuple[float, str]:
    number = re.fullmatch(r"(\d+)(k?)", preset)
    return (int(number[1]) * (1024 if number[2] else 1) if number else 0.0, preset)


def typed(composed: DictConfig) -> Config:
    """The composed configuration as the schema's classes; raises UserError for a key not in it."""
    values = OmegaConf.to_container(composed, resolve=True)
    settings = OmegaConf.to_object(composed)
    assert isinstance(values, dict) and isinstance(settings, Config)
    known = flatten(asdict(settings))
    for key in flatten(values):  # type: ignore[arg-type]
        if key not in known:
            raise UserError(_unknown_key(key))
    for key, value in known.items():
        if value == MISSING:
            raise UserError(f"{key} has no value: give {key}=...")
    return settings


def default_name(settings: Config, overrides: Sequence[str]) -> str:
    """What runs, in one word: the same for the same result, with no clock in it, so on every rank."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    here = flatten(asdict(settings))
    name = f"{settings.data.name}-{settings.model.name}-{settings.batch.preset}"
    # the default recipe is the optimizer's own
    name += f"-{settings.recipe.name}" if settings.recipe.name != "torchlars" else ""
    name += f"-{settings.optimizer.name}-seed{settings.seed}"
    for key in sorted({o.key_or_group for o in parsed} - {*GROUPS, "seed"} - WITHOUT_EFFECT):
        others = [o.input_line for o in parsed if o.key_or_group != key and o.input_line]
        try:
            without = flatten(asdict(typed(hydra.compose("config", overrides=others))))
        except OmegaConfBaseException:
            # the recipe has no published value in its place
            without = {}
        if key in here and here[key] != without.get(key):
            name += f"-{key}={here[key]}"
    return re.sub(r"[\s/\\]+", "_", name)
