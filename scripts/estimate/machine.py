"""The machine that a run is estimated on: ``configs/machine``, and the overrides that choose and change it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import hydra
from omegaconf import OmegaConf

from train.config.groups import CONFIGS
from train.errors import UserError
from train.keys import check_bounds, key


@dataclass(kw_only=True)
class MachineConfig:
    """In the units that the names end with."""

    name: str
    gpus: list[int]
    images_per_second: float | None = key(above=0)
    published: float = key(above=0)
    published_at: int = key(least=1)
    published_most: float | None = key(above=0)
    published_most_at: int | None = key(least=1)
    published_gmacs: float = key(above=0)
    fixed_ms: float = key(least=0)
    gpus_per_machine: int = key(least=1)
    machine_efficiency: float = key(above=0, most=1)
    inside_gbs: float = key(above=0)
    between_gbs: float = key(above=0)
    inside_us: float = key(least=0)
    between_us: float = key(least=0)
    dollars_per_hour: float | None = key(least=0)


def ends(machine: MachineConfig) -> list[MachineConfig]:
    """The machine at its least and at its most, where its published speed is a range; else the machine alone."""
    if machine.images_per_second is not None or machine.published_most is None:
        return [machine]
    most, at = machine.published_most, machine.published_most_at or machine.published_at
    least = replace(machine, name=f"{machine.name} at least")
    return [least, replace(machine, name=f"{machine.name} at most", published=most, published_at=at)]


@dataclass(kw_only=True)
class _Root:
    machine: MachineConfig


def compose_machine(*overrides: str) -> MachineConfig:
    """The machine that ``overrides`` of ``machine=`` and ``machine.`` describe; raises as ``compose`` does."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = hydra.compose("machine", overrides=list(overrides))
    root = cast(_Root, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(_Root), composed)))
    check_bounds(root)
    gpus = root.machine.gpus
    if not gpus or min(gpus) < 1:
        raise UserError(f"machine.gpus={gpus} must be counts of GPUs, each at least 1")
    return root.machine


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of the machine, and those of the run."""
    current = [_renamed(override) for override in overrides]
    of_machine = [o for o in current if o.startswith(("machine=", "machine."))]
    return of_machine, [o for o in current if o not in of_machine and o != ""]


def _renamed(override: str) -> str:
    """``plan.gpus=`` and the like, as the app took them until 0.1, by their names of today; for one release."""
    if not override.startswith(("plan=", "plan.")):
        return override
    today = override.replace("plan", "machine", 1) if not override.startswith("plan.show=") else ""
    print(f"{override} is now {today or 'what this program does'}", file=sys.stderr)
    return today
