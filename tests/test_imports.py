"""Who may import whom: every pair of modules in ``lars``, ``train`` and ``scripts``."""

import ast
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

# Rooms from top to bottom, and those below that each may import. A room is a module, or a folder with all its files.
# Modules within one folder may import one another without a circle. A pair that is not named here is wrong.
ROOMS: dict[str, set[str]] = {
    "scripts.slurm": set(),
    "scripts.add_record": {
        "scripts.command", "scripts.records", "train.config", "train.data", "train.keys", "train.errors",
    },
    "scripts.mlperf_runs": {"scripts.command", "scripts.records", "train.errors"},
    "scripts.report": {"scripts.command", "scripts.reporting", "scripts.records", "train.errors"},
    "scripts.verify": {"scripts.command", "scripts.verification", "train.errors"},
    "scripts.verification": {"train.errors"},  # nothing of scripts.reporting, whose tables it checks
    "scripts.bench": {"scripts.command", "scripts.benchmarks"},
    "scripts.plan": {"scripts.reporting", "scripts.estimate", "train.config", "train.errors"},
    "scripts.experiments": {"scripts.command", "scripts.matrix", "scripts.records", "train.cores", "train.errors"},
    "scripts.rehearsal": {"scripts.records", "train.config", "train.data"},
    "scripts.soak": {"scripts.command", "scripts.records", "train.output", "train.errors"},
    "scripts.check_data": {"scripts.command", "train.data", "train.cores", "train.errors"},
    "scripts.gpu_check": {"scripts.gpu", "train.output", "train.errors"},
    "scripts.gpu": {
        "scripts.benchmarks", "scripts.records", "train.app", "train.config", "train.data",
        "train.engine", "train.processes", "train.resnet", "train.plan", "lars",
    },
    "scripts.benchmarks": {
        "scripts.pack", "scripts.estimate", "train.app", "train.config", "train.data", "train.engine", "train.output",
        "train.processes", "train.plan", "train.cores", "train.errors", "lars",
    },
    "scripts.pack": {"train.output", "train.data", "train.cores", "train.errors"},
    "scripts.reporting": {
        "scripts.estimate", "scripts.matrix", "scripts.records", "train.config", "train.output", "train.engine",
        "train.data", "train.keys", "train.errors",
    },
    "scripts.estimate": {
        "scripts.records", "train.description", "train.config", "train.engine", "train.data", "train.model",
        "train.weights", "train.optimizer", "train.schedule", "train.processes", "train.plan", "train.keys",
        "train.errors",
    },
    "scripts.barlow_twins": {"train.config", "train.data", "train.resnet", "lars"},
    "scripts.matrix": {"scripts.records"},
    "scripts.records": set(),
    "scripts.command": {"train.errors"},
    "train.__main__": {"train.main", "train.processes"},
    "train.main": {
        "train.app", "train.config", "train.output", "train.engine", "train.model", "train.processes", "train.plan",
        "train.errors",
    },
    "train.app": {
        "train.description", "train.config", "train.output", "train.engine", "train.data", "train.model",
        "train.weights", "train.optimizer", "train.schedule", "train.processes", "train.plan",
        "train.keys", "train.errors",
    },
    "train.weights": {"train.output", "train.model", "train.errors"},
    "train.description": {"train.config", "train.output", "train.data", "train.plan"},
    "train.config": {
        "train.data", "train.model", "train.optimizer", "train.schedule", "train.plan", "train.keys", "train.errors",
    },
    "train.output": {"train.engine", "train.cores", "train.keys", "train.errors"},
    "train.engine": {"train.data", "train.optimizer", "train.processes", "train.plan", "train.errors"},
    "train.data": {"train.plan", "train.keys", "train.errors"},
    "train.model": {"train.resnet", "train.errors"},
    "train.resnet": set(),
    "train.optimizer": {"train.keys", "train.errors", "lars"},
    "train.schedule": {"train.plan", "train.keys"},
    "train.processes": {"train.plan", "train.cores", "train.errors"},
    "train.plan": {"train.keys", "train.errors"},
    "train.keys": {"train.errors"},
    "train.cores": set(),
    "train.errors": set(),
    "lars.tests": {"lars"},
    "lars": set(),
}  # fmt: skip
PACKAGES = ("lars", "train", "scripts")
# output reports what the loop tells it, through this interface alone
ONLY = {("train.output", "train.engine"): {"train.engine.logger"}}
# of the engine, the batches and what an optimizer measured are all that it knows of their rooms
ONLY |= {
    ("train.engine", "train.data"): {"train.data.loader"},
    ("scripts.reporting", "train.data"): {"train.data.dataset"},
    ("scripts.reporting", "train.engine"): {"train.engine.logger"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    return max((name for name in ROOMS if module == name or module.startswith(f"{name}.")), key=len)


def imported(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere in a file, also within functions and for types alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` imports the module, and not the names of the package
            names |= (below & MODULES.keys()) or {str(node.module)}
            if node.module == "torch":
                names |= below
    return names


IMPORTS = {module: imported(ast.parse(path.read_text())) for module, path in MODULES.items()}


def wrong(module: str, name: str) -> bool:
    """Whether ``module`` may not import ``name``."""
    mine = room(module)
    if name.split(".")[0] not in PACKAGES:
        allowed = {*sys.stdlib_module_names, "torch"}
        if mine == "lars":
            return name.split(".")[0] not in allowed
        # one file talks to other processes, and one starts them
        return name.startswith("torch.distributed") and mine.startswith("train") and mine != "train.processes"
    if name in PACKAGES and name != "lars":
        return name != module.split(".")[0]
    theirs = room(name)
    if mine == theirs:
        return False
    return theirs not in ROOMS[mine] or name not in ONLY.get((mine, theirs), {name})


def test_rooms_import_only_rooms_below_them():
    order = list(ROOMS)
    for name, below in ROOMS.items():
        assert all(order.index(name) < order.index(other) for other in below), name


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may(module: str):
    assert [name for name in sorted(IMPORTS[module]) if wrong(module, name)] == []


def test_every_permission_is_used():
    """One that is not would let an arrow in that nobody has thought of."""
    used = {(room(module), name) for module in MODULES for name in IMPORTS[module] if name.split(".")[0] in PACKAGES}
    rooms = {(mine, room(name)) for mine, name in used if name not in PACKAGES or name == "lars"}
    assert [(mine, theirs) for mine in ROOMS for theirs in sorted(ROOMS[mine]) if (mine, theirs) not in rooms] == []
    assert [(pair, name) for pair, names in ONLY.items() for name in names if (pair[0], name) not in used] == []


def test_imports_within_torch_are_seen_in_every_form():
    for text in ("import torch.distributed as dist", "from torch import distributed as dist",
                 "from torch.distributed import run"):  # fmt: skip
        assert any(wrong("train.data.loader", name) for name in imported(ast.parse(text))), text


def test_no_module_imports_itself_by_way_of_others():
    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in IMPORTS[module] & MODULES.keys():
                visit(name, (*path, module))
            done.add(module)

    done: set[str] = set()
    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("train.data.loader", "train.engine.step"), ("train.data.loader", "train.processes.world"),
        ("train.data.decode", "train.config.schema"), ("train.output.mlperf", "train.data.dataset"),
        ("train.output.board", "train.processes.world"), ("train.output.mlperf", "train.config.schema"),
        ("train.engine.loop", "lars"), ("train.engine.finite", "lars.lars"), ("train.engine.loop", "train.output.rows"),
        ("train.engine.step", "train.data.sources"), ("scripts.reporting.fractals_v1", "scripts.experiments"),
        ("scripts.matrix", "scripts.reporting.tables"), ("train.app", "train.main"), ("scripts.report", "train.main"),
        ("scripts.gpu.in_a_group", "train.main"),
        ("train.config.schema", "train.app"), ("train.app", "scripts.estimate.cost"), ("lars.lars", "train.keys"),
        ("lars.update", "numpy"), ("train.engine.step", "torch.distributed"), ("train.schedule", "train.config.schema"),
    ],
)  # fmt: skip
def test_these_arrows_would_be_wrong(module: str, name: str):
    """Those that were there once, and others of their kind."""
    assert wrong(module, name)


def test_no_folder_has_more_files_than_a_reader_keeps_in_mind():
    for package in PACKAGES:
        for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
            assert len(list(folder.glob("*.py"))) <= 16, folder


def test_nothing_around_the_optimizer_asks_for_its_class():
    for module, path in MODULES.items():
        if module.startswith("train.") and module != "train.optimizer":
            assert "lars" not in {name.split(".")[0] for name in IMPORTS[module]}, module
            assert "isinstance(optimizer" not in path.read_text()
