"""The formula's pictures: the same everywhere, made once."""

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from tests.helpers import fractals_config
from train.data import fractals, ifs, randomness
from train.data.kinds import open_data
from train.errors import UserError
from train.processes.world import World


def test_fractal_classes_are_contractive_and_fill_enough_and_their_images_differ():
    for label in range(6):
        system = ifs.draw_system(label, 32)
        assert 2 <= len(system.maps) <= 7 and system.chances.sum() == pytest.approx(1)
        for a, b, c, d in 1.25 * system.maps[:, :4]:
            assert np.linalg.norm([[a, b], [c, d]], 2) <= 1 + 1e-9
        images = ifs.draw_images(system, label, np.arange(4), 32)
        assert images.shape == (4, 32, 32, 3) and len({image.tobytes() for image in images}) == 4


def test_default_fractals_have_the_committed_pixels(tmp_path):
    """The first class of the default data set, whose images do not depend on the other classes."""
    root = fractals.provide(fractals_config(classes=1, train_per_class=4, size=16, root=str(tmp_path / "f")))
    pixels, labels = fractals.read(root / "train", 16)
    assert labels.tolist() == [0] * 4
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "04c2cfd2b09d8c3e"


def test_noise_has_the_stated_spread():
    noise = ifs._normal(randomness.random_bits(1, np.arange(4)), (32, 32, 3))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_a_killed_generation_leaves_nothing_that_a_later_run_trusts(tmp_path):
    root = tmp_path / "fractals"
    c = fractals_config(classes=40, train_per_class=200, root=str(root))
    code = f"""
from tests.helpers import fractals_config
from train.data import fractals
if __name__ == "__main__":
    fractals.provide(fractals_config(classes=40, train_per_class=200, root={str(root)!r}))
"""
    script = tmp_path / "make.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    maker = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    unfinished = tmp_path / f".fractals.{platform.node()}.unfinished"
    deadline = time.time() + 60
    while not list(unfinished.glob("train/*/*.jpg")) and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(maker.pid, signal.SIGKILL)
    maker.wait()
    assert unfinished.exists() and not root.exists()
    fractals.provide(c)
    assert len(list(root.glob("train/*/*.jpg"))) == 8000 and not unfinished.exists()


def test_a_process_that_ends_while_it_draws_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # every process that this one starts ends at once, as the system ends one for want of memory
    (tmp_path / "sitecustomize.py").write_text(f"import os\nif os.getppid() == {os.getpid()}: os._exit(9)\n")
    with pytest.raises(UserError, match="a process that draws fractals was ended"):
        fractals.provide(fractals_config(root=str(tmp_path / "fractals")))


def test_another_training_count_leaves_the_images_of_the_other_splits_as_they_are():
    few, many = (open_data(fractals_config(train_per_class=n)) for n in (2, 3))
    assert few.fingerprint != many.fingerprint
    for batches in (lambda d: d.make_loader(World(), 0).validation_batches(), lambda d: d.report_batches(World())):
        a, b = (next(iter(batches(data)))[0] for data in (few, many))
        assert torch.equal(a, b)


def test_no_image_is_in_two_splits():
    data = fractals_config(classes=2, train_per_class=8, val_per_class=8, report_per_class=8)
    splits = [fractals.read(fractals.provide(data) / split, 32)[0] for split in fractals.SPLITS]
    assert len({image.tobytes() for images in splits for image in images}) == 48


def test_images_of_another_size_than_configured_are_refused(tmp_path):
    root = str(fractals.provide(fractals_config(root=str(tmp_path / "f"))))
    with pytest.raises(UserError, match="is 32x32, not data.size=16: give that size, or another data.root"):
        open_data(fractals_config(root=root, size=16))


def test_images_of_0_1_which_have_no_third_split_are_refused_where_it_is_asked_for(tmp_path):
    root = fractals.provide(fractals_config(root=str(tmp_path / "f")))
    shutil.rmtree(root / "report")
    with pytest.raises(UserError, match="has no images to report on: leave out data.split=report"):
        open_data(fractals_config(root=str(root), split="report"))
    assert open_data(fractals_config(root=str(root))).report_batches is None


@pytest.mark.parametrize(("gone", "said"), [("val/0001", "does not have the 3 classes"), ("val/*/*", "no images")])
def test_splits_of_other_classes_and_without_images_are_refused(tmp_path, gone: str, said: str):
    chosen = fractals_config(root=str(tmp_path / "images"))
    root = fractals.provide(chosen)
    for path in root.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=said):
        fractals.open_data(chosen)


def test_a_damaged_image_is_named(tmp_path):
    root = fractals.provide(fractals_config(root=str(tmp_path / "f")))
    (root / "val/0001/00000.jpg").write_bytes(b"no JPEG")
    # they may be someone's own
    with pytest.raises(UserError, match="cannot read .*val/0001/00000.jpg: give another data.root"):
        open_data(fractals_config(root=str(root)))
    with (
        mock.patch("train.data.fractals.user_cache", return_value=tmp_path),
        pytest.raises(UserError, match="cannot read .*val/0001/00000.jpg: remove the folder .*, and it is made again"),
    ):
        open_data(fractals_config(root=str(root)))
