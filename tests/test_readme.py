"""The README's example runs as it stands; it and the pages name only what exists."""

import re

import pytest

import dynmech as dm
from tests.helpers import ROOT


def without_rounding(text: str) -> str:
    """What is printed, with 0 for what differs from it by rounding."""
    return re.sub(r"-?[\d.]+e-1\d", "0", text).strip()


def test_example_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(block.strip().splitlines()) <= 20
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    (said,) = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert without_rounding(printed) == without_rounding(said)
    assert names["chat"].period == 2
    assert len(printed.strip().splitlines()) == 3


def test_from_a_log_to_a_verdict(monkeypatch, capsys):
    """On the shipped log, of a market with choice scale 20, queries 0.6, noise 30, ratings 0.4."""
    (block,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(block.strip().splitlines()) <= 20
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), names := {})
    for (value, error), true in zip(names["fit"].estimates.values(), (20.0, 0.6, 30.0, 0.4)):
        assert abs(value - true) < 3 * error
    assert "largest gain" in capsys.readouterr().out


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks").glob("*.md"))]


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 6_144


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


def test_statements_name_tests_that_exist():
    """Each row of the statements but one, which is not covered, names a test or a command."""
    text = (ROOT / "notebooks" / "statements.md").read_text()
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), name
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    bare = [row for row in rows if "`" not in row.split("|")[2]]
    assert [row for row in bare if "not covered" not in row and "test or command" not in row] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_names_are_public(page):
    for name in re.findall(r"(?<!})`(?:dm\.)?([A-Z]\w+)(?:\(\))?`", page.read_text()):
        places = (dm, dm.groves, dm.settlement)
        assert any(getattr(place, name, None) is not None for place in places), name
