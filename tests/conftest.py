"""Fixtures of all tests: the environment, the app as a user starts it, and small data that it trains on."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
from torch import nn

from tests.helpers import MAIN, SMALL, App
from train.config.compose import compose
from train.data.dataset import Data
from train.data.kinds import open_data
from train.data.loader import MicroBatch
from train.resnet import resnet8

# a loaded machine is not a failure
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, which compute other last digits than the CPU, from all but the tests that are for them."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    # the same sums on one process and on two, which share the cores; here too, where torch has been imported
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
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


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 6 epochs to which nothing happened."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    command = [sys.executable, str(MAIN), *SMALL, "epochs=6", "name=run"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "runs" / "run"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Data]:
    """Overrides for a data set of 64 images, and that data set, open."""
    root = tmp_path_factory.mktemp("tiny") / "fractals"
    small = [
        "data.classes=4", "data.train_per_class=16", "data.val_per_class=4", "data.report_per_class=3", "data.size=32",
        "batch.total=32", "batch.micro=16", f"data.root={root}", "data=fractals", "precision=fp32",
    ]  # fmt: skip
    return small, open_data(compose(*small).data)


@pytest.fixture
def model() -> nn.Module:
    """A float64 ResNet-8 whose BatchNorm layers have seen something."""
    torch.manual_seed(0)
    model = resnet8(10).double()
    with torch.no_grad():
        model(3 * torch.randn(32, 3, 16, 16, dtype=torch.float64) + 1)
    return model


@pytest.fixture
def micro_batches() -> list[MicroBatch]:
    """Each brighter than the one before: their statistics differ, and so do their gradients."""
    g = torch.Generator().manual_seed(1)
    return [(i + torch.randn(6, 3, 16, 16, generator=g, dtype=torch.float64), torch.arange(6) + i) for i in range(4)]
