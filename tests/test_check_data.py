"""scripts/check_data.py."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT, WNIDS, image_folder, script

DYING = """
import os
from scripts import check_data

def die(*_):
    os._exit(9)

if __name__ == "__main__":
    check_data.undecodable = die
    check_data.exit_with(check_data.main)
"""


def test_check_data_counts_and_lists_what_does_not_decode(tmp_path: Path):
    image_folder(tmp_path)
    bad = tmp_path / "train" / WNIDS[2] / f"{WNIDS[2]}_5.JPEG"
    bad.write_bytes(bad.read_bytes()[:500])
    (tmp_path / "val" / WNIDS[0] / "extra.JPEG").write_text("<html>404</html>")
    done = script("check_data", tmp_path)
    assert done.returncode == 0
    assert f"layout    ImageFolder in {tmp_path}" in done.stdout and "NOT ILSVRC-2012" in done.stdout
    assert "train     24 images (ILSVRC-2012: 1,281,167), 0.0 GB, 8 to 8 of each class" in done.stdout
    done = script("check_data", tmp_path, "--decode", "--workers", 2)
    assert done.returncode == 1 and "2 of 34 images do not decode" in done.stdout
    assert f"cannot decode {bad}" in done.stdout and "extra.JPEG" in done.stdout
    assert script("check_data", tmp_path / "none").returncode == 2


def test_a_worker_that_the_system_ends_is_told_in_one_line(tmp_path: Path):
    image_folder(tmp_path)
    (tmp_path / "dying.py").write_text(DYING)
    done = subprocess.run(
        [sys.executable, tmp_path / "dying.py", tmp_path, "--decode", "--workers", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: a worker process was ended"), done


def test_a_folder_that_cannot_be_opened_is_told_in_one_line(tmp_path: Path):
    done = script("check_data", tmp_path / ("x" * 300))
    assert done.returncode == 2 and "Traceback" not in done.stderr and "x: File name too long" in done.stderr


def test_check_data_takes_a_list_of_classes_and_names_the_split(tmp_path: Path):
    image_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "test")
    (tmp_path / "list").write_text(f"{WNIDS[1]}\n")
    done = script("check_data", tmp_path, "--classes-from", tmp_path / "list")
    assert done.returncode == 0 and "train     8 images" in done.stdout and "test      3 images" in done.stdout
