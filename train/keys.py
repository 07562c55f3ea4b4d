"""What a key of the configuration may hold: declared beside the key, checked here."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

from train.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Key:
    """The bounds of a value, which None passes where its type allows None, and what the value does to a run."""

    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float | None = None
    one_of: tuple[str, ...] = ()
    ascending: bool = False  # a list of epochs, each above the one before
    free_on_resume: bool = False  # a resumed run may have another value
    range: str = ""  # for the documents, where it depends on other values
    changes_result: bool = True  # False: what the run reaches does not depend on it

    def problem(self, value: Any) -> str | None:
        """What is wrong with ``value``, as the end of a sentence that begins with it."""
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            return "is not a finite number" if numbers[0] is value else "must be finite numbers"
        if value is None:
            return None
        if value == "":
            # as an unset variable of a shell leaves it
            return "is empty: give a value, or leave it out"
        if self.one_of and value not in self.one_of:
            return f"is not one of {', '.join(self.one_of)}"
        # an interpolation may hold any text, which OmegaConf does not refuse in place of a list
        if self.ascending and (isinstance(value, str) or not all(a < b for a, b in itertools.pairwise([-1, *value]))):
            return "must be epochs in ascending order, such as [30, 60, 80]"
        if self.least is not None and self.below is not None and not self.least <= value < self.below:
            return f"must be in [{self.least}, {self.below})"
        if self.least is not None and value < self.least:
            return f"must be at least {self.least}" if self.least else "must not be negative"
        if self.above is not None and value <= self.above:
            return f"must be above {self.above}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most}"
        return None


def key(**properties: Any) -> Any:
    """A dataclass field with the properties of a ``Key``. It has no default: values live in ``configs/``."""
    return dataclasses.field(metadata={"key": Key(**properties)})


def operational(**properties: Any) -> Any:
    """A key for where, how long or with which logs to run: may change on resume, and does not affect the result."""
    return key(free_on_resume=True, changes_result=False, **properties)


def leaves(config: Any, prefix: str = "") -> list[tuple[str, Any, Key]]:
    """Dotted name, value and key of every value of ``config``, a dataclass of values and further dataclasses."""
    found: list[tuple[str, Any, Key]] = []
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found += leaves(value, f"{name}.")
        else:
            found.append((name, value, field.metadata.get("key", Key())))
    return found


def values(config: Any) -> dict[str, Any]:
    """Every value of ``config`` by its dotted name."""
    return {name: value for name, value, _ in leaves(config)}


def free_on_resume(config: Any) -> set[str]:
    """The names of the keys whose values may change when a run is resumed."""
    return {name for name, _, key in leaves(config) if key.free_on_resume}


def result_settings(config: Any) -> dict[str, Any]:
    """The values on which the result of a run depends, by name."""
    return {name: value for name, value, key in leaves(config) if key.changes_result}


def check_bounds(config: Any) -> None:
    """Raise UserError, naming key and value, for the first value that its key does not allow."""
    for name, value, key in leaves(config):
        if problem := key.problem(value):
            raise UserError(f"{name}={value} {problem}")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
