"""The README's example runs as it stands; it and the pages name only what exists."""

import re

import pytest

import dynmech as dm
from tests.helpers import ROOT


def test_example_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(block.strip().splitlines()) <= 20
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "incentives     HOLD" in printed
    assert "1983 USD" in printed
    assert names["chat"].period == 2


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks").glob("*.md"))]


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8_000


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_and_files_exist(page):
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    for module in re.findall(r"python -m experiments\.(\w+)", text):
        assert (ROOT / "experiments" / f"{module}.py").exists() or (
            ROOT / "experiments" / module / "__main__.py"
        ).exists()
    for path in re.findall(r"`((?:dynmech|solvers|experiments|notebooks|tests)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_names_are_public(page):
    for name in re.findall(r"`(?:dm\.)?([A-Z]\w+)(?:\(\))?`", page.read_text()):
        places = (dm, dm.groves, dm.settlement)
        assert any(name in dir(place) for place in places), name
