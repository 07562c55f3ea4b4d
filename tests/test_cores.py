"""The cores that a process may use, and how many of them decode images."""

import json
from pathlib import Path
from unittest import mock

import pytest

from tests.helpers import join, spawn
from train.cores import Allowance, cores_of, quota
from train.data.stream import decoders


def on(cores: range, machine: str = "a", quota: float | None = None, group: str = "one") -> Allowance:
    return Allowance(machine, frozenset(cores), quota, group)


@pytest.mark.parametrize(
    ("everyone", "shares"),
    [
        # one mask for all: torchrun
        ([on(range(96))] * 8, [12] * 8),
        # a mask of its own for each: torchrun --numa-binding=exclusive, srun --cpus-per-task
        ([on(range(12 * rank, 12 * rank + 12)) for rank in range(8)], [12] * 8),
        # half a machine for each four: --numa-binding=node
        ([on(range(48 * (rank // 4), 48 * (rank // 4) + 48)) for rank in range(8)], [12] * 8),
        # masks that overlap in part
        ([on(range(8)), on(range(4, 12))], [6, 6]),
        ([on(range(8)), on(range(2))], [7, 1]),
        # other machines have their own cores
        ([on(range(16), "a"), on(range(16), "b"), on(range(16), "b")], [16, 8, 8]),
        # a container that has the time of 24 of 128 cores, for all or for each
        ([on(range(128), quota=24.0)] * 3, [8] * 3),
        ([on(range(128), quota=24.0, group=str(rank)) for rank in range(3)], [24] * 3),
        ([on(range(4), quota=0.5)] * 8, [1] * 8),
    ],
)
def test_cores_are_shared_by_those_that_may_use_them(everyone: list[Allowance], shares: list[int]):
    assert [cores_of(mine, everyone) for mine in everyone] == shares


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (4, 3), (8, 6), (12, 10)])
def test_one_or_two_cores_are_left_for_the_training_process(cores: int, workers: int):
    assert decoders(cores) == workers


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_quota_of_a_control_group_and_those_above_it_counts(tmp_path: Path):
    root, mine = tmp_path / "groups", tmp_path / "mine"
    assert quota(root, mine) is None
    write(mine, "0::/pod/task\n")
    assert quota(root, mine) is None
    write(root / "pod/task/cpu.max", "max 100000\n")
    assert quota(root, mine) is None
    write(root / "pod/cpu.max", "850000 100000\n")
    assert quota(root, mine) == 8.5
    # a container that sees its own group as the top one
    write(root / "cpu.max", "400000 200000\n")
    assert quota(root, mine) == 2.0


def test_a_quota_of_the_first_version_counts_too(tmp_path: Path):
    root, mine = tmp_path / "groups", tmp_path / "mine"
    write(mine, "5:cpuset:/other\n4:cpu,cpuacct:/docker/x\n0::/\n")
    for folder, time in (("cpu/docker/x", -1), ("cpu", 600_000)):
        write(root / folder / "cpu.cfs_quota_us", f"{time}\n")
        write(root / folder / "cpu.cfs_period_us", "100000\n")
    assert quota(root, mine) == 6.0


def count(rank: int, size: int, port: int, out: Path) -> None:
    own, common = range(12 * rank, 12 * rank + 12), range(24)
    found = []
    with mock.patch("train.cores.quota", lambda: None):
        for number, mask in enumerate((own, common)):
            with mock.patch("os.sched_getaffinity", lambda _, mask=mask: set(mask)):
                world = join(rank, size, port + number)
                found.append((world.cores, decoders(world.cores)))
                world.leave()
    (out / f"{rank}.json").write_text(json.dumps(found))


def test_two_processes_count_the_cores_that_they_really_share(tmp_path: Path):
    spawn(count, 2, tmp_path)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [[[12, 10], [12, 10]]] * 2
