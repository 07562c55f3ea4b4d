"""The check that every record names a commit of the history, and that code keeps it."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench
from scripts.benchmarks import figures
from scripts.command import exit_with
from scripts.reporting import provenance
from tests.helpers import ROOT, SMALL, train_here
from train.output import environment

A, B = "a1" * 20, "b2" * 20


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results with one whole record, where commit A is all of the history."""
    for name, path in {"ROOT": "", "RESULTS": "results", "PUBLISHED": "results/published"}.items():
        monkeypatch.setattr(provenance, name, tmp_path / path)
    monkeypatch.setattr(provenance, "EXEMPT", (tmp_path / "results/old",))
    add(tmp_path / "results/rows/one", "result.json", commit=A, resumed_by=[])
    return tmp_path / "results"


def add(folder: Path, name: str, **record: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").touch()
    (folder / name).write_text(json.dumps(record))


def test_a_record_of_the_history_has_no_fault(results: Path):
    assert provenance.faults({A}) == []


@pytest.mark.parametrize(
    ("name", "record", "said"),
    [
        ("result.json", {"commit": B}, f"results/rows/two/result.json: commit {B} is not in this history"),
        ("diverged.json", {"commit": B}, f"commit {B} is not in this history"),
        ("result.json", {"commit": A, "resumed_by": [B]}, f"commit {B} is not in this history"),
        ("result.json", {"commit": f"{A}-dirty"}, f"commit {A}-dirty had changes that were not committed"),
        ("result.json", {"commit": None}, "commit None is not known"),
        ("result.json", {}, "commit None is not known"),
        ("diverged", {}, "results/rows/two has neither result.json nor diverged.json"),
    ],
)
def test_a_record_that_cannot_be_traced_is_named_with_the_reason(results: Path, name: str, record: dict, said: str):
    add(results / "rows/two", name, **record)
    (line,) = provenance.faults({A})
    assert said in line


def test_a_benchmark_and_a_sentence_are_records_too(results: Path):
    add(results / "benchmarks", "train.json", what="images/s")
    (results / "benchmarks/config.yaml").unlink()
    (results / "LOG.md").write_text(f"made at {A[:7]}, and at 0123abc; 1234567 images")
    assert [line.split(": ")[0] for line in provenance.faults({A})] == [
        "results/LOG.md",
        "results/benchmarks/train.json",
    ]


def test_records_with_known_faults_and_the_commits_of_others_are_exempt(results: Path):
    add(results / "old/rows/one", "result.json", commit=B)
    add(results / "old/rows/two", "diverged")
    (results / "published").mkdir()
    (results / "published/README.md").write_text(f"their repository at {B}")
    assert provenance.faults({A}) == []


def test_without_a_history_a_dirty_record_is_still_named(results: Path):
    add(results / "rows/two", "result.json", commit=B)
    add(results / "rows/three", "result.json", commit=f"{B}-dirty")
    assert [line.split(": ")[0] for line in provenance.faults(None)] == ["results/rows/three/result.json"]


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a checkout that holds ``environment.py`` where it belongs, and a script."""
    root = tmp_path / "repository"
    for path in ("train/output/environment.py", "scripts/bench.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, root / path)
    (root / "notes").write_text("one")
    git(tmp_path, "init", "-q", str(root))
    for number in ("one", "two"):
        (root / "notes").write_text(number)
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", number)
    return root


def test_only_a_whole_history_counts_as_one(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", str(tmp_path / "shallow"))
    (repository / "inside").mkdir()
    found = {}
    for name, root in {"whole": repository, "shallow": tmp_path / "shallow", "inside": repository / "inside",
                       "none": tmp_path}.items():  # fmt: skip
        monkeypatch.setattr(provenance, "ROOT", root)
        found[name] = provenance.history()
    assert len(found.pop("whole") or ()) == 2
    assert found == {"shallow": None, "inside": None, "none": None}


def test_a_changed_script_makes_the_code_dirty_and_a_changed_text_does_not(repository: Path):
    spec = importlib.util.spec_from_file_location("copied", repository / "train/output/environment.py")
    assert spec and spec.loader
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    (repository / "notes").write_text("three")
    clean = copied.commit()
    assert len(clean) == 40
    (repository / "scripts/bench.py").write_text("changed")
    assert copied.commit() == f"{clean}-dirty"


@pytest.mark.parametrize("commit", [f"{A}-dirty", None])
def test_a_benchmark_is_refused_before_it_measures_where_its_code_has_no_commit(commit, monkeypatch, capsys):
    monkeypatch.setattr(figures.environment, "commit", lambda: commit)
    monkeypatch.setattr(sys, "argv", ["bench.py", "train"])
    with pytest.raises(SystemExit, match="2"):
        exit_with(bench.main)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: commit {commit}: a benchmark is recorded from a clean checkout only; commit the")


def test_a_result_names_the_commits_that_trained_not_the_one_at_its_end(tmp_path: Path, monkeypatch):
    starts = iter([A, A, B])
    monkeypatch.setattr(environment, "commit", lambda: next(starts))
    for limit in (["max_steps=1"], ["max_steps=2"], []):
        run = train_here(tmp_path, *SMALL, "epochs=1", "batch=256", *limit)
    result = json.loads((run / "result.json").read_text())
    assert (result["commit"], result["resumed_by"]) == (A, [B])
