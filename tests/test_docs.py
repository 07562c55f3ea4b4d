"""What is written holds: the README's commands are CI's, and its tables are what the records say."""

import itertools
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import train
from lars import split_parameters
from tests.helpers import ROOT


def test_ci_runs_the_test_command_of_the_readme():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    command = readme.split("**Run the tests**:\n\n```sh\n")[1].split("\n")[0]
    assert command in ci.splitlines()


def test_the_training_loop_of_the_readme_of_lars_runs():
    code = (ROOT / "lars" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    values: dict[str, Any] = {}
    exec(code, values)
    assert values["scheduler"].get_last_lr()[0] < 1e-3 and torch.isfinite(values["loss"])


def test_the_two_forms_of_groups_in_coming_from_differ_in_what_is_adapted_alone():
    table = (ROOT / "lars" / "README.md").read_text().split("## Coming from")[1]
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    values: dict[str, Any] = {"split_parameters": split_parameters, "model": model, "weight_decay": 1e-4}
    exec(table.split("```python\n")[1].split("```")[0], values)
    forms = [[(g["lars"], g["weight_decay"], len(g["params"])) for g in values[n]] for n in ("excluded", "all_adapted")]
    assert forms == [[(True, 1e-4, 1), (False, 0.0, 3)], [(True, 1e-4, 1), (True, 0.0, 3)]]
    assert not re.search(r"LarsSGD\((?!excluded|all_adapted)", table.partition("## Works with")[0])


@pytest.mark.slow  # .ci/run runs the program itself
def test_tables_are_what_the_records_say():
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "report.py", "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_every_promise_names_tests_that_exist():
    text = (ROOT / "docs" / "guarantees.md").read_text().partition("## Exit codes")[0]
    rows = [r for r in text.splitlines() if r.startswith("| ") and r != "| promise | tests |"]
    named = [re.findall(r"`(\w+)` in \[[^]]*\]\((\S+)\)", row) for row in rows]
    assert len(rows) > 10 and all(named)
    for name, path in itertools.chain(*named):
        assert f"def {name}(" in (ROOT / "docs" / path).resolve().read_text(), (name, path)


def test_every_relative_link_of_a_document_leads_somewhere():
    links = 0
    for page in itertools.chain(*(ROOT.glob(f"{at}*.md") for at in ("", "docs/", "lars/", "results/**/"))):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if not re.match(r"\w+:", link):
                file, _, anchor = link.partition("#")
                target = (page.parent / file).resolve() if file else page
                assert target.exists(), (page.name, link)
                assert not anchor or anchor in anchors(target.read_text()), (page.name, link)
                links += 1
    assert links > 50


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_citation_names_the_last_release_and_the_code_is_that_or_later():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(r"^## (\d\S+) - (\S+)$", changelog, re.MULTILINE)
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert released and (citation.version, str(citation["date-released"])) == released.groups()
    assert train.__version__ == released[1] or ("## Unreleased" in changelog and train.__version__.endswith(".dev0"))
