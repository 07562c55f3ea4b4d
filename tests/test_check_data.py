"""scripts/check_data.py."""

from pathlib import Path

from tests.helpers import WNIDS, image_folder, script


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


def test_check_data_takes_a_list_of_classes_and_names_the_split(tmp_path: Path):
    image_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "test")
    (tmp_path / "list").write_text(f"{WNIDS[1]}\n")
    done = script("check_data", tmp_path, "--classes-from", tmp_path / "list")
    assert done.returncode == 0 and "train     8 images" in done.stdout and "test      3 images" in done.stdout
