"""The built wheels: the app with its configurations, and the optimizer alone."""

import subprocess
import sys
import sysconfig
import venv
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
    carried = {
        "lars/lars.py", "lars/py.typed", "train/main.py", "train/configs/batch/256.yaml", "train/published-range.csv",
        "train/data/layouts/ilsvrc2012_synsets.txt",
    }  # fmt: skip
    assert carried <= set(names)
    assert not [name for name in names if name.startswith("lars/") and name.endswith((".toml", "LICENSE"))]
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


@pytest.fixture(autouse=True)
def _no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)


def wheel_of(project: Path, folder: Path) -> Path:
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "-q", "wheel", str(project), "--no-deps", "-w", str(folder)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path) -> Path:
    """The Python of a new environment that sees the packages of this one, though not what is installed editable."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    (Path(site) / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return python


USER = """
import torch
from lars import LARS, LarsSGD, split_parameters

model = torch.nn.Linear(2, 3)
optimizer = LarsSGD(split_parameters(model, 1e-4), lr=1.0, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
reveal_type(optimizer.first_not_finite())
LARS(torch.optim.SGD(model.parameters(), lr=1.0), trust_coeff=0.1)
LarsSGD(model.parameters(), lr=1.0, trust_coeff=0.1)
"""


@pytest.mark.slow
def test_the_wheel_of_lars_alone_needs_torch_passes_its_tests_and_is_typed(tmp_path: Path):
    wheel = wheel_of(ROOT / "lars", tmp_path / "wheel")
    metadata = zipfile.ZipFile(wheel).read(f"{wheel.stem.removesuffix('-py3-none-any')}.dist-info/METADATA").decode()
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert len(needs) == 1 and needs[0].startswith("Requires-Dist: torch>=")
    python = environment(tmp_path / "env")
    subprocess.run([python, "-m", "pip", "-q", "install", "--no-deps", wheel], check=True)
    tests = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--pyargs", "lars"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert tests.returncode == 0 and " passed" in tests.stdout, tests.stdout[-2000:]
    (tmp_path / "user.py").write_text(USER)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "user.py"],
        cwd=tmp_path, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert 'Revealed type is "tuple[str, str] | None"' in checked.replace("builtins.", "")
    for name in ("LARS", "LarsSGD"):
        assert f'Argument "trust_coeff" to "{name}" has incompatible type' in checked, checked
    assert "Found 2 errors" in checked, checked
    editable = [python, "-m", "pip", "-q", "install", "--no-deps", "-e", ROOT / "lars"]
    subprocess.run(editable, check=True)
    where = subprocess.run([python, "-c", "import lars; print(lars.__file__)"], cwd=tmp_path, capture_output=True)
    assert where.stdout.decode().strip() == str(ROOT / "lars" / "__init__.py")


@pytest.mark.slow
def test_both_wheels_put_the_same_lars_in_one_place(tmp_path: Path):
    """As lars/README.md tells: it works with both installed, and to uninstall either takes the files of both."""
    python = environment(tmp_path / "env")
    pip = [python, "-m", "pip", "-q"]
    app, alone = wheel_of(ROOT, tmp_path / "app"), wheel_of(ROOT / "lars", tmp_path / "alone")

    def version() -> str:
        code = "import lars; print(lars.__version__)"
        return subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True).stdout

    for wheels in ([app, alone], [alone, app]):
        for wheel in wheels:
            subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
        assert version()
        subprocess.run([*pip, "uninstall", "-y", "lars-optimizer"], check=True)
        assert not version()
        subprocess.run([*pip, "install", "--no-deps", "--force-reinstall", app], check=True)
        assert version()
        subprocess.run([*pip, "uninstall", "-y", "lars-imagenet"], check=True)
