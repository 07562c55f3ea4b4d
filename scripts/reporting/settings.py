"""docs/settings.md: every key with type, default, range and comment, from the schema and the files in ``configs/``."""

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.config.compose import PARTS
from train.config.groups import CONFIGS, choices
from train.config.schema import Config
from train.keys import Key

LINE = re.compile(r"( *)([\w.]+):(?: +(.*?))?(?:\s+# (.*))?$")


def settings() -> str:
    """A table for the keys of every run, and one for each choice of a part that has keys of its own."""
    root = written(CONFIGS / "config.yaml")
    plain = [row for row in fields(Config) if row[0].partition(".")[0] not in PARTS]
    tables = ["## Of every run", table(plain, root)]
    for part, config_class in PARTS.items():
        for name in choices(part):
            mine = written(CONFIGS / part / f"{name}.yaml", f"{part}.")
            tables += [f"## `{part}={name}`", table(list(fields(config_class(name), f"{part}.")), mine)]
    return "\n\n".join(tables)


def table(rows: list[tuple[str, str, Key]], said: dict[str, tuple[str, str]]) -> str:
    lines = ["| key | type | default | range | on resume | |", "|---|---|---|---|---|---|"]
    for name, kind, key in rows:
        value, comment = said.get(name, ("", ""))
        default = f"`{value}`" if value else chosen_by(name)
        cells = [f"`{name}`", kind, default, bounds(key), "free" if key.free_on_resume else "fixed", comment]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def chosen_by(name: str) -> str:
    """The groups whose files set a key that has no default of its own."""
    files = {group: (CONFIGS / group).glob("*.yaml") for group in ("batch", "recipe")}
    return ", ".join(f"by `{group}=`" for group in files if any(name in written(path) for path in files[group]))


def fields(cls: type, prefix: str = "") -> Iterator[tuple[str, str, Key]]:
    """Name, type and bounds of every key of a configuration."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind) and name not in PARTS:
            yield from fields(typing.cast(type, kind), f"{name}.")
        else:
            yield name, type_name(kind), field.metadata.get("key", Key())


def type_name(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(type_name(one) for one in typing.get_args(kind))
    if kind is types.NoneType:
        return "null"
    return f"list of {type_name(typing.get_args(kind)[0])}" if typing.get_origin(kind) is list else kind.__name__


def bounds(key: Key) -> str:
    if key.one_of:
        return ", ".join(f"`{choice}`" for choice in key.one_of)
    if key.range:
        return key.range
    words = {"at least": key.least, "above": key.above, "at most": key.most, "below": key.below}
    said = [
        f"{word} {'2^63' if value == 2**63 else f'{value:g}'}" for word, value in words.items() if value is not None
    ]
    return ", ".join([*said, "ascending"] if key.ascending else said)


def written(path: Path, prefix: str = "") -> dict[str, tuple[str, str]]:
    """The value of each key in a YAML file, as it is written there, and the comment above and beside it."""
    found: dict[str, tuple[str, str]] = {}
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    # what opens a file is about all of it
    lines = path.read_text().splitlines()
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    for line in lines:
        if line.lstrip().startswith("# "):
            above.append(line.lstrip()[2:].strip())
        elif match := LINE.match(line):
            indent, name, value, beside = len(match[1]), match[2], match[3], match[4]
            parents = [parent for parent in parents if parent[0] < indent]
            full = prefix + ".".join([*(parent for _, parent in parents), name])
            parents.append((indent, name))
            # a comment of a node is that of its first key
            found[full] = (value or "", " ".join([*above, *([beside] if beside else [])]))
            above = []
        else:
            above = []
    return found
