"""What the tests share: the app as a user starts it, and small data that it trains on."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]
MAIN = ROOT / "train" / "main.py"

# 512 training and 168 validation images of 8 classes: 4 steps an epoch
SMALL = [
    "data.classes=8", "data.train_per_class=64", "data.val_per_class=21",
    "batch.total=128", "batch.micro=32", "precision=fp32",
]  # fmt: skip

# a loaded machine is no failure
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")

App = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    # the same sums on one process and on two, which share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("IMAGENET_DIR", None)


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Start ``python train/main.py ...`` in an empty folder and wait for its end."""

    def start(*arguments: str, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(MAIN), *arguments],
            **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300, **options},  # type: ignore
        )

    return start
