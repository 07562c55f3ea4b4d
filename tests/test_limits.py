"""Open files: the limit is raised, and archives make use of it. Memory: what is freed is used again."""

import platform
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.helpers import ROOT
from train.data import sources

LIMITED = """
import resource
from train.processes.limits import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000))
raise_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one():
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "(2000, 2000)\n"


FREED = """
import resource, sys, torch
from train.processes.limits import keep_freed_memory
if sys.argv[1:]:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    if step == 10:
        before = faults()
    torch.zeros(2**24), torch.zeros(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another allocator")
def test_pages_of_freed_tensors_are_not_faulted_in_again():
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", FREED, *arguments]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    # 20 tensors of 64 MiB, in pages of 4 KiB or more
    assert faults("keep") < 100 < faults()


def test_as_many_archives_stay_open_as_half_the_limit(tmp_path: Path):
    paths = [tmp_path / f"{i}.tar" for i in range(700)]
    for i, path in enumerate(paths):
        path.write_bytes(b"image %3d" % i)
    for limit, opened in ((2000, 700), (1000, 1400)):
        with (
            mock.patch("resource.getrlimit", lambda _, limit=limit: (limit, limit)),
            mock.patch.object(sources, "FileIO", side_effect=sources.FileIO) as file,
        ):
            reader = sources.ArchiveReader()
            for _ in range(2):
                assert all(reader.read(str(path), "", (6, 3)) == b"%3d" % i for i, path in enumerate(paths))
        assert file.call_count == opened
        for descriptor in reader._open.values():
            descriptor.close()
