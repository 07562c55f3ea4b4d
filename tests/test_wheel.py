"""The built wheel: the optimizer and the app with its configurations, from any folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT


@pytest.mark.slow
def test_a_built_wheel_carries_lars_and_the_app_with_its_configs(tmp_path: Path):
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"lars/lars.py", "train/main.py", "train/configs/batch/256.yaml"} <= set(names)
    site = tmp_path / "site"
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(site)], check=True)
    shown = subprocess.run(
        [sys.executable, str(site / "train" / "main.py"), "batch=256", "--cfg", "job"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "total: 32\n" in shown.stdout
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import lars; print(lars.__file__)"
    where = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(site) in where.stdout
