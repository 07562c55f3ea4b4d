"""The groups of ``configs/``, and what each of them offers."""

from pathlib import Path

from omegaconf import OmegaConf

GROUPS = ("batch", "data", "model", "optimizer", "recipe")

# beside the package in a checkout, inside it in a wheel
PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
CONFIGS = next(place for place in PLACES if place.is_dir())


def choices(group: str) -> list[str]:
    """What ``group`` offers, batches in the order of their size."""
    return sorted((path.stem for path in (CONFIGS / group).glob("*.yaml")), key=images if group == "batch" else None)


def images(preset: str) -> int:
    """Images of a step of ``batch=preset``."""
    written = OmegaConf.load(CONFIGS / "batch" / f"{preset}.yaml")
    # a preset that chooses more than the batch begins at the root
    return int(OmegaConf.select(written, "batch.published") or OmegaConf.select(written, "published"))
