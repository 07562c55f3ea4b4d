"""What a check of a GPU finds: claims that held, did not hold or could not be tried, and the figures behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HELD, FAILED, UNTRIED = "held", "did not hold", "could not be tried"


@dataclass(frozen=True)
class Claim:
    """One sentence about this machine, its outcome, and the reason in a few words."""

    sentence: str
    outcome: str
    why: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How large everything is: as it is meant for a GPU, or a toy with which the CPU tries the checks themselves."""

    is_toy: bool
    model: str  # of timed steps
    pixels: int
    eager: list[int]  # images of a micro-batch
    compiled: list[int]
    accumulation: int
    steps: int  # timed, after as many that are not
    optimizer_steps: int
    images: tuple[int, int]  # JPEG files for training, and how many of them differ
    epochs: int  # over them
    workers: list[int]
    row_epochs: int


GPU = Sizes(
    is_toy=False, model="resnet50", pixels=224, eager=[32, 64, 128, 256], compiled=[64, 256], accumulation=8, steps=5,
    optimizer_steps=100, images=(32_768, 256), epochs=3, workers=[4, 8, 16], row_epochs=90,
)  # fmt: skip
TOY = Sizes(
    is_toy=True, model="resnet8", pixels=32, eager=[4], compiled=[4], accumulation=2, steps=1, optimizer_steps=2,
    images=(64, 4), epochs=2, workers=[1], row_epochs=1,
)  # fmt: skip


@dataclass
class Machine:
    """What all parts share: the device, the sizes, a folder for runs, and the speeds that earlier parts measured."""

    device: str  # "cuda" or "cpu"
    sizes: Sizes
    folder: Path
    speeds: dict[str, float] = field(default_factory=dict)  # images/s of the bare step, such as by "eager, 64 images"


def judged(sentence: str, holds: bool, why: str, **figures: Any) -> Claim:
    return Claim(sentence, HELD if holds else FAILED, why, figures)


def table(claims: list[Claim]) -> str:
    """The claims as Markdown, in the order of trial."""
    lines = ["| claim | outcome | |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {c.sentence} | {c.outcome} | {c.why} |" for c in claims)])
