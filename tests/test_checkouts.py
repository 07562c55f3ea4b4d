"""A program acts on the checkout that it lies in, also where another one is installed or is the current folder."""

import ast
import os
import re
from pathlib import Path

import pytest

from tests.helpers import ROOT, image_folder, script
from tests.test_imports import PACKAGES

PATHS = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
PROGRAMS = [
    p for p in PATHS if 'if __name__ == "__main__":' in p.read_text() and p.name != "__main__.py"
]  # -m finds it


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_program_puts_its_checkout_first_before_it_imports_from_it(path: Path):
    statements = [ast.unparse(statement) for statement in ast.parse(path.read_text()).body]
    own = next(i for i, text in enumerate(statements) if re.match(rf"(from|import) ({'|'.join(PACKAGES)})\b", text))
    (first,) = [text for text in statements[:own] if "sys.path[0] = " in text]
    value = first.partition("sys.path[0] = ")[2].splitlines()[0]
    assert eval(value, {"Path": Path, "__file__": str(path)}) == str(ROOT)


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, object]:
    """How a program is started in another checkout, which is on Python's path as an editable install would be."""
    for file in ("lars/__init__.py", "train/__init__.py", "scripts/records.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("raise SystemExit('this is another checkout')")
    return {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path)}}


def test_a_script_imports_its_own_checkout(elsewhere: dict[str, object]):
    done = script("mlperf_runs", "--help", **elsewhere)
    assert done.returncode == 0, done.stderr


def test_processes_that_decode_import_it_too(elsewhere: dict[str, object], tmp_path: Path):
    image_folder(tmp_path / "images")
    done = script("check_data", tmp_path / "images", "--decode", "--workers", "1", **elsewhere)
    assert done.returncode == 0, done.stderr
